"""TellNotices: what is pending in `notices` -> sent."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import apache_beam as beam

from transforms.context import JobSettings
from transforms.engine import progress
from transforms.engine.run_fn import RunFn, RunInput
from transforms.locking.lease import lease_of
from transforms.locking.lock import LockLostError
from transforms.media.errors import CallpressError
from transforms.notices import tell
from transforms.notices.result import in_words
from transforms.notices.tell import Told

logger = logging.getLogger(__name__)


class TellNotices(beam.PTransform):
    """Input: one element, once all is published; none where nobody is to be told yet. Output:
    `Told`, one for each target, or a line that says why nobody was told.

    One worker sends (`notices.tell`), to all targets at once, also what an earlier run has left.
    Done again, it sends what is pending still. It ends no run, unless that has lost its lock.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, due: beam.PCollection[Any]) -> beam.PCollection[Told | str]:
        return due | "Tell" >> beam.ParDo(_TellFn(self._job), self._run)


class _TellFn(RunFn):
    def each(self, _: Any) -> Iterator[Told | str]:
        job, run = self.job, self.run
        progress.add("telling")
        logger.info("sending what is to be told to %d targets", len(job.notify.targets))
        try:
            check = lease_of(job, run).check
            for told in tell.tell_pending(job.catalog_uri, job.notify, run.run_id, check):
                logger.info("%s", in_words(told))
                yield told
        except LockLostError:
            raise
        except CallpressError as error:
            yield f"nobody was told of what is new, the next run does that: {error}"
