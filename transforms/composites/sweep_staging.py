"""SweepStaging: folders of runs -> gone, with all that is in them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import apache_beam as beam

from transforms.context import JobSettings
from transforms.engine import begun
from transforms.engine.fusion_break import break_fusion
from transforms.engine.run_fn import RunFn, RunInput
from transforms.locking.lease import lease_of
from transforms.media.errors import StorageError
from transforms.storage import objects

_AT_A_TIME = 300
"""Objects that one worker deletes between two looks around: three requests in a bucket."""


class SweepStaging(beam.PTransform):
    """Input: URIs of staging folders. Output: the same, each when nothing of it is left.
    It may be done once more when the run that it is for is over: it looks for no lock.

    In a store without folders the objects are listed, and deleted in parallel, some hundreds at a
    time; on a disk a folder is deleted with all that is in it. What is gone already is no error.
    """

    def __init__(self, job: JobSettings, run: RunInput) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(self, folders: beam.PCollection[str]) -> beam.PCollection[str]:
        found = folders | "ListObjects" >> beam.FlatMap(_list_objects, self._job)
        deleted = break_fusion(found, "SpreadObjects", self._job) | "DeleteObjects" >> beam.ParDo(
            _DeleteObjectsFn(self._job), self._run
        )
        return folders | "DeleteFolders" >> beam.Map(
            _delete_folder, self._job, beam.pvalue.AsIter(deleted)
        )


# A worker may have one of these steps and no other: by the job it knows how to reach the store.


def _list_objects(folder: str, _job: JobSettings) -> Iterator[tuple[str, tuple[str, ...]]]:
    if objects.is_folder(folder):
        return
    found = [listed.path for listed in objects.list_below(folder)]
    for start in range(0, len(found), _AT_A_TIME):
        yield folder, tuple(found[start : start + _AT_A_TIME])


class _DeleteObjectsFn(RunFn):
    is_after_all = True

    def each(self, found: tuple[str, tuple[str, ...]]) -> Iterator[None]:
        folder, uris = found
        lease = lease_of(self.job, self.run)
        with (
            lease.at_work() if lease.is_held() else contextlib.nullcontext(),
            _unless_refused(folder),
        ):
            objects.delete_many(folder, list(uris))
        yield None


def _delete_folder(folder: str, _job: JobSettings, _deleted: Iterable[None]) -> str:
    with _unless_refused(folder):
        objects.delete_below(folder)
    return folder


@contextlib.contextmanager
def _unless_refused(folder: str) -> Iterator[None]:
    """Tells of a store that lets nothing be deleted: no run ends for what is of no use any more."""
    try:
        yield
    except StorageError as error:
        if not objects.was_refused(error):
            raise
        begun.say(
            f"{folder} stays, as its store does not let it be deleted ({error.message}); expected "
            "a --temp_location without retention, where this account may delete"
        )
