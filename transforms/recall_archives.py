"""RecallArchives: calls that are pressed anew -> the earlier archives they were made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam

from transforms.context import JobSettings
from transforms.elements import ArchiveRef, Row, TrackPart
from transforms.engine import progress
from transforms.media.errors import RecordingError
from transforms.media.values import CallKey
from transforms.sources import archive_files


class RecallArchives(beam.PTransform):
    """Input: `TrackPart` of this run, and the catalog's rows of `calls` for the same calls.

    Output: `ArchiveRef`, of each archive that one of these calls was pressed from before and that
    is not in this run. It names the calls it is wanted for: only those are unpacked from it, and
    they fail with it if it is gone by now. It is one hop through the catalog: other calls of such
    an archive bring no further archives in.

    Groups by call, then by archive. Writes nothing; memory grows with the calls of one archive.
    """

    def __init__(self, job: JobSettings) -> None:
        super().__init__()
        self._job = job

    def expand(
        self, inputs: tuple[beam.PCollection[TrackPart], beam.PCollection[Row]]
    ) -> beam.PCollection[ArchiveRef]:
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
            | "FindArchive" >> beam.Map(_find_archive, self._job)
        )


def _ask_for_earlier(
    group: tuple[tuple[str, str, str], dict[str, Iterable[Any]]],
) -> Iterator[tuple[str, tuple[str, str, str]]]:
    call, found = group
    now = set(found["now"])
    for uris in found["before"]:
        for uri in sorted(set(uris) - now):
            yield uri, call


def _find_archive(
    group: tuple[str, Iterable[tuple[str, str, str]]], _job: JobSettings
) -> ArchiveRef:
    """Returns the archive as it stands now; one that is gone fails where it is read. By the job a
    worker knows how to reach its store.
    """
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
    progress.add("bytes_found", listed.size_bytes if listed else 0)
    return ArchiveRef(
        uri=uri,
        size_bytes=listed.size_bytes if listed else 0,
        modified_unix_ns=listed.modified_unix_ns if listed else 0,
        fingerprint=fingerprint,
        recalled_for=wanted,
    )
