"""The bases of DoFns that belong to a run. The one place where a DoFn learns which run that is: by
the element that the first step of the job makes, a side input of all others.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.typehints.decorators import no_annotations

from transforms.context import JobSettings, RunIdentity
from transforms.engine.parallel import ParallelFn
from transforms.locking.lease import lease_of

RunInput = RunIdentity | beam.pvalue.AsSingleton
"""Which run it is, as a step is given it beside its main input: known once the job is at work."""


class RunFn(beam.DoFn):
    """A DoFn that knows what was asked for and, once a bundle is at work, which run this is. To be
    applied with a `RunInput` as its first side input.
    """

    is_after_all = False
    """Whether it is among the last steps, which may be done once more when the lock is given back
    already: they ask for it where they need it.
    """
    run: RunIdentity
    """The run this is part of; there once an element has come."""

    def __init__(self, job: JobSettings) -> None:
        self.job = job

    @no_annotations  # Beam cannot make hints of a variable number of side inputs
    def process(self, element: Any, run: RunIdentity, *beside: Any, **named: Any) -> Iterator[Any]:
        self.run = run
        held = contextlib.nullcontext() if self.is_after_all else lease_of(self.job, run).at_work()
        with held:
            yield from self.each(element, *beside, **named)

    def each(self, element: Any, *beside: Any, **named: Any) -> Iterator[Any]:
        """Returns an element's outputs. Args: beside, named: the other side inputs."""
        raise NotImplementedError


class ParallelRunFn(RunFn, ParallelFn):
    """A `RunFn` whose work is done on threads that drive codec processes."""

    def __init__(self, job: JobSettings) -> None:
        RunFn.__init__(self, job)
        ParallelFn.__init__(self, job.codec_processes, in_one_bundle=job.is_one_process)

    def each(self, element: Any, *beside: Any, **named: Any) -> Iterator[Any]:
        return self.take(element)

    def work_at(self, element: Any) -> list[Any]:
        with lease_of(self.job, self.run).at_work():
            return super().work_at(element)
