"""The bases of DoFns that belong to a run. The one place where a DoFn learns which run that is."""

from __future__ import annotations

import apache_beam as beam

from transforms.context import JobSettings, RunIdentity
from transforms.engine.parallel import ParallelFn


class RunFn(beam.DoFn):
    """A DoFn that knows what was asked for and, once a bundle is at work, which run this is."""

    def __init__(self, job: JobSettings, run: RunIdentity) -> None:
        self.job = job
        self._run = run

    @property
    def run(self) -> RunIdentity:
        """The run this is part of; not to be asked for before a bundle is at work."""
        return self._run


class ParallelRunFn(RunFn, ParallelFn):
    """A `RunFn` whose work is done on as many threads as the job has codec processes a worker."""

    def __init__(self, job: JobSettings, run: RunIdentity) -> None:
        RunFn.__init__(self, job, run)
        ParallelFn.__init__(self, job.threads)
