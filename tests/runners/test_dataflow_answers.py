"""What Dataflow answers where a job is not taken, or fails before it works: a line, and what to do.

Beam's own client speaks to a stand-in for the service; buckets are an emulator's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.dataflow.internal.apiclient import DataflowJobAlreadyExistsError
from google.api_core import exceptions as google_errors
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from pipelines import press
from pipelines.runners import dataflow_answers
from pipelines.runners.beam import BeamEngine
from pipelines.runners.engine import EngineDownError
from pipelines.runners.job_errors import error_of
from tests.support.command import SAMPLE, callpress
from tests.support.dataflow_service import DataflowService, running_dataflow_service
from tests.support.storage_servers import client_with_faults, forget_clients, running_emulator
from transforms.media.errors import ConfigError, StorageError
from transforms.stamp import own_stamp

BUCKET = "lab-bucket"


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """A bucket, and the service."""

    storage_url: str
    service: DataflowService

    def flags(self, *flags: str) -> list[str]:
        """Returns a command line for Beam that is right otherwise."""
        given = {flag.split("=")[0] for flag in flags}
        usual = (
            "--runner=DataflowRunner",
            "--project=lab-project",
            "--region=europe-west1",
            f"--temp_location=gs://{BUCKET}/tmp",
            f"--sdk_container_image=europe-docker.pkg.dev/lab/callpress:{own_stamp().image_tag}",
            f"--dataflow_endpoint={self.service.endpoint}",
            "--experiments=disable_logging_submission_environment",  # it would run pip
        )
        return [*(flag for flag in usual if flag.split("=")[0] not in given), *flags]

    def start(self, *flags: str) -> BeamEngine:
        """Starts a job of no work. Raises: as `BeamEngine.start`."""
        engine = BeamEngine(PipelineOptions(self.flags(*flags)))
        try:
            engine.start(lambda pipeline: pipeline | beam.Create([1]))
        finally:
            assert engine.has_ended  # it is not said that a job may be at work
        return engine


@pytest.fixture(scope="module")
def servers() -> Iterator[Cloud]:
    with running_emulator(BUCKET) as url, running_dataflow_service() as service:
        yield Cloud(storage_url=url, service=service)


@pytest.fixture
def cloud(servers: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", servers.storage_url)
    forget_clients()
    servers.service.asked.clear()
    yield servers
    forget_clients()


# --- the job is not taken -------------------------------------------------------------------------

MISSING_ROLE = (
    "(4a5b): Could not create workflow; user does not have write access to project: lab-project "
    "Causes: (4a5c): Permission 'dataflow.jobs.create' denied on project: 'lab-project'"
)
DISABLED = (
    "Dataflow API has not been used in project 1234 before or it is disabled. Enable it by "
    "visiting https://console.developers.google.com/apis/api/dataflow.googleapis.com/overview "
    "then retry."
)


@pytest.mark.parametrize(
    ("status", "message", "kind", "told"),
    [
        (
            403,
            MISSING_ROLE,
            ConfigError,
            "is --project lab-project the right one, and has this account roles/dataflow.developer",
        ),
        (
            403,
            "Permission denied on resource project lab-project.",
            ConfigError,
            "project lab-project; is --project lab-project the right one, and has this account",
        ),
        (
            403,
            DISABLED,
            ConfigError,
            "; gcloud services enable dataflow.googleapis.com --project=lab-project",
        ),
        (
            403,
            "Current user cannot act as service account 1234-compute@developer.example.com.",
            ConfigError,
            "this account needs roles/iam.serviceAccountUser on the workers' service account",
        ),
        (
            404,
            "(4a5b): The workflow could not be created.",
            ConfigError,
            "found --project lab-project and --region europe-west1",
        ),
        (
            400,
            "The regional endpoint mars-north1 is not known.",
            ConfigError,
            "is --region europe-west1 one of Dataflow's?",
        ),
        (
            400,
            "(4a5b): The container image europe-docker.pkg.dev/lab/callpress is not valid.",
            ConfigError,
            "HTTP status 400: (4a5b): The container image europe-docker.pkg.dev/lab/callpress is",
        ),
        (
            429,
            "Quota exceeded for quota metric 'Create requests'.",
            EngineDownError,
            "; start it again later, or ask for more quota in project lab-project",
        ),
    ],
    ids=["role", "project", "API", "act as", "404", "region", "image", "quota"],
)
def test_answer_is_told_with_what_to_do(
    status: int, message: str, kind: type[Exception], told: str, cloud: Cloud
) -> None:
    cloud.service.status, cloud.service.message = status, message

    with pytest.raises(kind) as raised:
        cloud.start()

    line = str(raised.value)
    assert line.startswith(f"--runner DataflowRunner: HTTP status {status}: {message[:40]}")
    assert told in line
    assert "\n" not in line
    assert cloud.service.asked == ["POST /v1b3/projects/lab-project/locations/europe-west1/jobs"]


def test_answer_over_grpc_is_told_as_well() -> None:
    """As to the service itself: its answers have no request before them, and may have details."""
    options = PipelineOptions(["--project=lab-project", "--region=europe-west1"])
    error = dataflow_answers.error_of_start(google_errors.PermissionDenied(DISABLED), options)

    assert type(error) is ConfigError
    assert str(error).endswith("services enable dataflow.googleapis.com --project=lab-project")
    error = dataflow_answers.error_of_start(google_errors.Unauthenticated("who?"), options)
    assert type(error) is ConfigError
    assert "HTTP status 401: who?; the credentials are not taken, run gcloud auth" in str(error)
    error = dataflow_answers.error_of_start(google_errors.ServiceUnavailable("busy"), options)
    assert type(error) is EngineDownError
    assert str(error) == "--runner DataflowRunner: HTTP status 503: busy"


def test_name_that_a_job_at_work_has_is_told() -> None:
    options = PipelineOptions(["--job_name=nightly"])
    busy = DataflowJobAlreadyExistsError("There is already active job named nightly with id: 7.")

    error = dataflow_answers.error_of_start(busy, options)

    assert type(error) is ConfigError
    assert str(error).startswith("--job_name nightly: a job at work has this name: There is alr")


def test_options_that_beam_does_not_take_are_no_bug(cloud: Cloud) -> None:
    with pytest.raises(ConfigError) as raised:
        cloud.start(
            "--dataflow_endpoint=https://dataflow.googleapis.com",  # Beam asks less of another one
            "--job_name=Every Night",
            "--num_workers=9",
            "--max_num_workers=2",
        )

    assert str(raised.value).startswith("--runner DataflowRunner: Invalid job_name (Every Night)")
    assert "; num_workers (9) cannot exceed max_num_workers (2)" in str(raised.value)
    assert "\n" not in str(raised.value)


# --- what a job is made of cannot be put there ----------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "place"),
    [
        ("--temp_location", "gs://no-bucket/tmp"),
        ("--staging_location", "gs://no-bucket/stage"),
        ("--template_location", "gs://no-bucket/t1"),
    ],
)
def test_bucket_that_is_not_there_is_told_at_once(flag: str, place: str, cloud: Cloud) -> None:
    """Beam tries for 10 minutes."""
    with pytest.raises(ConfigError) as raised:
        cloud.start(f"{flag}={place}")

    assert str(raised.value).startswith(f"{flag} {place}: cannot be written: HTTP status 404")
    assert "storage.objects.create" in str(raised.value)
    assert not cloud.service.asked


def test_bucket_that_takes_no_uploads_is_told(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise google_errors.Forbidden("denied on storage.objects.create")

    monkeypatch.setattr(storage.Blob, "create_resumable_upload_session", refuse)

    with pytest.raises(ConfigError, match="cannot be written: HTTP status 403: denied on storage"):
        cloud.start()


def test_bucket_that_cannot_be_asked_is_no_fault_of_the_command_line(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client_with_faults(cloud.storage_url, monkeypatch) as faults:
        faults.unavailable_ratio = 1.0

        with pytest.raises(StorageError, match=r"^--temp_location gs://lab-bucket/tmp: can"):
            cloud.start()


def test_asking_for_uploads_leaves_nothing_in_the_way(cloud: Cloud) -> None:
    cloud.start(f"--template_location=gs://{BUCKET}/templates/t1")

    client = storage.Client(project="anonymous", credentials=AnonymousCredentials())
    names = [blob.name for blob in client.list_blobs(BUCKET)]
    assert [name for name in names if name.startswith("templates/")] == ["templates/t1"]
    assert "tmp/pipeline.pb" not in names


# --- the job fails before a step works ------------------------------------------------------------

FAILED = "Dataflow pipeline failed. State: FAILED, Error:\n"
IMAGE = "europe-west1-docker.pkg.dev/lab-project/callpress/worker:0.1.0-py3.11-1a2b3c4d"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            f'Error syncing pod 3f, skipping: Failed to pull image "{IMAGE}": 404',
            f"image {IMAGE}: ",
        ),
        (
            'Error syncing pod 3f: failed to \\"StartContainer\\" with ErrImagePull:'
            f' \\"Back-off pulling image \\\\"{IMAGE}\\\\"\\"',
            f"image {IMAGE}: is it there, and may their service account read it (roles/artifactre",
        ),
        ("Startup of the worker pool in zone europe-west1-b failed: ZONE_RESOURCE", "Startup of "),
        ("None", "it does not say why"),
    ],
    ids=["image", "image as told by a pod", "quota", "nothing"],
)
def test_error_of_a_job_is_what_stands_behind_beams_words(text: str, told: str) -> None:
    error = error_of(FAILED + text)

    assert type(error) is EngineDownError
    assert told in str(error)
    assert not str(error).startswith("Dataflow pipeline failed")


# --- the command ----------------------------------------------------------------------------------


def test_command_tells_an_answer_in_one_line_and_leaves_nothing(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The whole job is 10 s of translation.
    monkeypatch.setattr(press, "build", lambda pipeline, *_: pipeline | beam.Create([1]))
    client = storage.Client(project="anonymous", credentials=AnonymousCredentials())
    client.bucket(BUCKET).blob("raw/sync.tar.gz").upload_from_filename(SAMPLE)
    cloud.service.status, cloud.service.message = 403, MISSING_ROLE

    done = callpress(
        *("run", f"--input=gs://{BUCKET}/raw/*", f"--output=gs://{BUCKET}/pressed"),
        *cloud.flags(),
    )

    assert done.status == 2
    (line,) = done.err.splitlines()
    assert line.startswith("callpress: --runner DataflowRunner: HTTP status 403: (4a5b): Could not")
    assert not [*client.list_blobs(BUCKET, prefix="pressed/")]
