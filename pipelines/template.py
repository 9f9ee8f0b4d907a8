"""A template of a job: what Dataflow keeps of it to start it later, as often as is asked for."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    StandardOptions,
)

from pipelines.runners.dataflow_preflight import is_dataflow
from transforms.media.errors import ConfigError

_OF_LAUNCHER = "job_object"
"""What the launcher of flex templates names the template that it asks for, and starts at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Where a template is to be written, and whose jobs it starts."""

    uri: str
    project: str | None
    region: str | None

    @property
    def folder(self) -> str:
        """The URI of the place it lies in."""
        return self.uri.rpartition("/")[0]

    @property
    def is_started_at_once(self) -> bool:
        """Whether who asked for it starts it as soon as it is there, and once only."""
        return self.uri.rpartition("/")[2] == _OF_LAUNCHER

    def how_to_start(self) -> tuple[str, ...]:
        """Returns what to say once it is written, in lines."""
        if self.is_started_at_once:
            return (f"wrote the job for its launcher, {self.uri}; the launcher starts it",)
        where = {
            "--gcs-location": self.uri,
            "--region": self.region,
            "--project": self.project,
        }
        flags = [f"{flag}={shlex.quote(value)}" for flag, value in where.items() if value]
        return (
            f"wrote the job's template {self.uri}; nothing is pressed before it is started, as "
            "often as you like, with a name of your choice for NAME:",
            f"gcloud dataflow jobs run NAME {' '.join(flags)}",
        )


def template_of(options: PipelineOptions) -> Template | None:
    """Returns the template that a command line asks for instead of a run; None where it asks for
    none. Its place was looked at before (`dataflow_preflight`).

    Args:
      options: Beam's.

    Raises:
      ConfigError: the engine has no templates: Beam would run the job there.
    """
    cloud = options.view_as(GoogleCloudOptions)
    uri = cloud.template_location
    if not uri:
        return None
    if not is_dataflow(options.view_as(StandardOptions).runner):
        raise ConfigError(
            "--template_location: templates are Dataflow's, expected it beside "
            "--runner=DataflowRunner"
        )
    return Template(uri=uri, project=cloud.project, region=cloud.region)
