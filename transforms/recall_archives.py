"""RecallArchives: calls that are pressed anew -> the earlier archives they were made from, unpacked
too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from transforms.context import JobSettings, RunIdentity
from transforms.elements import ArchiveRef, Row, TrackPart
from transforms.engine import progress
from transforms.media.errors import RecordingError
from transforms.media.values import CallKey
from transforms.sources import archive_files
from transforms.unpack_archives import ARCHIVES, FAILURES, _UnpackFn


class RecallArchives(beam.PTransform):
    """Input: `TrackPart` of this run and, by the name `prior`, rows of `calls` for the same calls.

    Output: as `UnpackArchives`, of the archives these calls were pressed from before and that are
    not in this run: one hop through the catalog. An archive that is gone or unreadable is a failure
    of each call it was wanted for.
    """

    def __init__(self, job: JobSettings, run: RunIdentity) -> None:
        super().__init__()
        self._job = job
        self._run = run

    def expand(
        self, inputs: tuple[beam.PCollection[TrackPart], beam.PCollection[Row]]
    ) -> beam.pvalue.DoOutputsTuple:
        parts, prior = inputs
        return (
            {
                "now": parts
                | "KeyPartsByCall"
                >> beam.Map(lambda part: (part.call.as_tuple(), part.archive_uri)),
                "before": prior
                | "KeyPriorByCall"
                >> beam.Map(
                    lambda row: (
                        (row["call_type"], row["call_id"], row["call_session_id"]),
                        row["archive_uris"] or [],
                    )
                ),
            }
            | "GroupByCall" >> beam.CoGroupByKey()
            | "AskForEarlier" >> beam.FlatMap(_ask_for_earlier)
            | "GroupByArchive" >> beam.GroupByKey()
            | "FindArchive" >> beam.Map(_find_archive)
            | "SpreadArchives" >> beam.Reshuffle()
            | "Unpack"
            >> beam.ParDo(_UnpackFn(self._job, self._run)).with_outputs(
                FAILURES, ARCHIVES, main="parts"
            )
        )


def _ask_for_earlier(
    group: tuple[tuple[str, str, str], dict[str, Iterable[Any]]],
) -> Iterator[tuple[str, tuple[str, str, str]]]:
    call, found = group
    now = set(found["now"])
    for uris in found["before"]:
        for uri in sorted(set(uris) - now):
            yield uri, call


def _find_archive(group: tuple[str, Iterable[tuple[str, str, str]]]) -> ArchiveRef:
    """Returns the archive as it stands now; one that is gone fails where it is read."""
    uri, calls = group
    wanted = tuple(
        CallKey(call_type=call[0], call_id=call[1], call_session_id=call[2])
        for call in sorted(set(calls))
    )
    try:
        listed = archive_files.stat_archive(uri)
        fingerprint = archive_files.fingerprint(uri) if listed else ""
    except RecordingError:
        listed, fingerprint = None, ""
    progress.report("bytes_found", listed.size_bytes if listed else 0)
    return ArchiveRef(
        uri=uri,
        size_bytes=listed.size_bytes if listed else 0,
        modified_unix_ns=listed.modified_unix_ns if listed else 0,
        fingerprint=fingerprint,
        recalled_for=wanted,
    )
