"""A template of a job: what Dataflow keeps of it to start it later, as often as is asked for."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from transforms.media.errors import ConfigError
from transforms.storage import objects

_OF_LAUNCHER = "job_object"
"""What the launcher of flex templates names the template that it asks for, and starts at once."""
_OF_AN_OBJECT = re.compile(r"\w+://[^/]+/.*[^/]")


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


def template_of(options: PipelineOptions, *, shares_this_machine: bool) -> Template | None:
    """Returns the template that a command line asks for instead of a run; None where it asks for
    none.

    Args:
      options: Beam's.
      shares_this_machine: whether the engine's workers see the files of this machine.

    Raises:
      ConfigError: the engine has no templates, or could not read it there.
    """
    cloud = options.view_as(GoogleCloudOptions)
    uri = cloud.template_location
    if not uri:
        return None
    if shares_this_machine:
        raise ConfigError(
            "--template_location: the local engine has no templates, expected it beside "
            "--runner=DataflowRunner"
        )
    if not (objects.can_be_down(uri) and _OF_AN_OBJECT.fullmatch(uri)):
        raise ConfigError(
            f"--template_location {uri}: expected a place that Dataflow can read, "
            "gs://bucket/folder/name"
        )
    return Template(uri=uri, project=cloud.project, region=cloud.region)
