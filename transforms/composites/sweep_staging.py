"""SweepStaging: folders of runs -> gone, with all that is in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import apache_beam as beam

from transforms.storage import objects

_AT_A_TIME = 300
"""Objects that one worker deletes between two looks around: three requests in a bucket."""


class SweepStaging(beam.PTransform):
    """Input: URIs of staging folders. Output: the same, each when nothing of it is left.

    In a store without folders the objects are listed, and deleted in parallel, some hundreds at a
    time; on a disk a folder is deleted with all that is in it. What is gone already is no error.
    """

    def expand(self, folders: beam.PCollection[str]) -> beam.PCollection[str]:
        deleted = (
            folders
            | "ListObjects" >> beam.FlatMap(_list_objects)
            | "SpreadObjects" >> beam.Reshuffle()
            | "DeleteObjects" >> beam.MapTuple(_delete_objects)
        )
        return folders | "DeleteFolders" >> beam.Map(_delete_folder, beam.pvalue.AsIter(deleted))


def _list_objects(folder: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    if objects.is_folder(folder):
        return
    found = [listed.path for listed in objects.list_below(folder)]
    for start in range(0, len(found), _AT_A_TIME):
        yield folder, tuple(found[start : start + _AT_A_TIME])


def _delete_objects(folder: str, uris: tuple[str, ...]) -> None:
    objects.delete_many(folder, list(uris))


def _delete_folder(folder: str, _deleted: Iterable[None]) -> str:
    objects.delete_below(folder)
    return folder
