"""What Dataflow's service answers where a job is not taken, with what to do about it."""

from __future__ import annotations

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from pipelines.runners.engine import EngineDownError
from transforms.media.errors import CallpressError, ConfigError, StorageError
from transforms.storage import buckets, uris
from transforms.storage.errors import describe_error, status_of

_TAKEN = "DataflowJobAlreadyExistsError"
"""Beam's own error for a name that a job at work has."""
_REFUSED = (400, 401, 403, 404)


def check_uploads(options: PipelineOptions) -> None:
    """Finds out whether Beam may put there what a job is made of.

    It would try for 10 minutes where a bucket is not there, or may not be written.

    Raises:
      ConfigError: it may not.
      StorageError: that cannot be found out.
    """
    cloud = options.view_as(GoogleCloudOptions)
    staging = "staging_location" if cloud.staging_location else "temp_location"
    places = {staging: uris.join(getattr(cloud, staging), "pipeline.pb")}
    if cloud.template_location:
        places["template_location"] = cloud.template_location
    for name, place in places.items():
        try:
            buckets.check_uploads(place)
        except StorageError as error:
            cause = error.__cause__ or error
            line = f"--{name} {getattr(cloud, name)}: cannot be written: {_said(cause)}"
            if status_of(cause) not in _REFUSED:
                raise StorageError(line) from error
            raise ConfigError(
                f"{line}; is there such a bucket, and may this account ask for it "
                "(storage.buckets.get) and write into it (storage.objects.create)?"
            ) from error


def error_of_start(error: Exception, options: PipelineOptions) -> CallpressError:
    """Returns what to raise where the job was not taken.

    Returns:
      a ConfigError for what is the operator's to mend, an EngineDownError for what may go well
      later, or is nobody's fault here.
    """
    cloud = options.view_as(GoogleCloudOptions)
    said = _said(error)
    line = f"--runner DataflowRunner: {said}"
    if type(error).__name__ == _TAKEN:
        return ConfigError(f"--job_name {cloud.job_name}: a job at work has this name: {said}")
    status = status_of(error)
    if status == 401:
        return ConfigError(
            f"{line}; the credentials are not taken, run gcloud auth application-default login"
        )
    if status == 403:
        return ConfigError(f"{line}; {_what_is_lacking(str(error), cloud)}")
    if status == 404:
        return ConfigError(
            f"{line}; expected a project and a region of Dataflow, found --project {cloud.project} "
            f"and --region {cloud.region}"
        )
    if status == 400:
        region = f"; is --region {cloud.region} one of Dataflow's?" if _is_region(said) else ""
        return ConfigError(f"{line}{region}")
    if status == 429:
        return EngineDownError(
            f"{line}; start it again later, or ask for more quota in project {cloud.project}"
        )
    return EngineDownError(line)


def _what_is_lacking(text: str, cloud: GoogleCloudOptions) -> str:
    """Returns what to do where an account may not start a job."""
    if "SERVICE_DISABLED" in text or "it is disabled" in text:
        return f"gcloud services enable dataflow.googleapis.com --project={cloud.project}"
    if "actAs" in text or "act as" in text:
        return (
            "this account needs roles/iam.serviceAccountUser on the workers' service account "
            f"({cloud.service_account_email or 'the default one of Compute Engine'})"
        )
    return (
        f"is --project {cloud.project} the right one, and has this account "
        "roles/dataflow.developer there?"
    )


def _said(error: BaseException) -> str:
    return describe_error(error).rstrip(".")


def _is_region(said: str) -> bool:
    return any(word in said.lower() for word in ("region", "location", "endpoint"))
