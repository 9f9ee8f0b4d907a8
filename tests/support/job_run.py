"""What was asked for and which run it is, as one value: `Transform(*context)` takes both."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, NamedTuple

from transforms.context import JobSettings, RunIdentity
from transforms.media.settings import PressSettings

_OF_RUN = {field.name for field in fields(RunIdentity)}


class JobRun(NamedTuple):
    """A job's settings and the identity of one run of it."""

    job: JobSettings
    run: RunIdentity

    def changed(self, **changes: Any) -> JobRun:
        """Returns both with some fields of either changed."""
        return JobRun(
            replace(self.job, **{k: v for k, v in changes.items() if k not in _OF_RUN}),
            replace(self.run, **{k: v for k, v in changes.items() if k in _OF_RUN}),
        )

    @property
    def output_uri(self) -> str:
        return self.job.output_uri

    @property
    def catalog_uri(self) -> str:
        return self.job.catalog_uri

    @property
    def settings(self) -> PressSettings:
        return self.job.settings

    @property
    def settings_fingerprint(self) -> str:
        return self.job.settings_fingerprint

    @property
    def run_id(self) -> str:
        return self.run.run_id

    @property
    def started_unix_ns(self) -> int:
        return self.run.started_unix_ns

    @property
    def staging_uri(self) -> str:
        return self.run.staging_uri

    def staged(self, *parts: str) -> str:
        return self.run.staged(*parts)
