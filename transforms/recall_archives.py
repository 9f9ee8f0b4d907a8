"""RecallArchives: calls that are pressed anew -> the earlier archives they were made from.
FindRecalled: these -> what opens them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import apache_beam as beam

from transforms.context import JobSettings
from transforms.elements import ArchiveRef, Row, TrackPart
from transforms.engine import progress
from transforms.media.errors import RecordingError
from transforms.media.values import CallKey
from transforms.media.wall_time import from_time
from transforms.sources import archive_files, raw_copies

Recalled = tuple[str, tuple[str, str, str]]
"""The URI of an archive, and one of the calls that it is wanted for."""


class RecallArchives(beam.PTransform):
    """Input: `TrackPart` of this run, and the catalog's rows of `calls` for the same calls.

    Output: `Recalled`, of each archive that one of these calls was pressed from before and that is
    not in this run. It is one hop through the catalog: other calls of such an archive bring no
    further archives in. Groups by call. Writes nothing; memory grows with the archives of one call.
    """

    def expand(
        self, inputs: tuple[beam.PCollection[TrackPart], beam.PCollection[Row]]
    ) -> beam.PCollection[Recalled]:
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
        )


class FindRecalled(beam.PTransform):
    """Input: `Recalled`; the catalog's rows of `archives` for the same, among others; with
    manifests the link of each archive that they name, by its URI.

    Output: `ArchiveRef` of each, which names the calls it is wanted for: only those are unpacked
    from it, and they fail with it if it is gone by now. It is opened by its copy, else by the
    newest link, else by its URI. Groups by archive. Writes nothing; memory grows with the calls of
    one archive.
    """

    def __init__(self, job: JobSettings) -> None:
        super().__init__()
        self._job = job

    def expand(self, inputs: dict[str, beam.PCollection[Any]]) -> beam.PCollection[ArchiveRef]:
        return (
            {
                "wanted": inputs["wanted"],
                "rows": inputs["rows"]
                | "KeepThoseWithCopy" >> beam.Filter(lambda row: row["copy_uri"])
                | "KeyRows" >> beam.Map(lambda row: (row["archive_uri"], row)),
                **({"links": inputs["links"]} if "links" in inputs else {}),
            }
            | "GroupByArchive" >> beam.CoGroupByKey()
            | "FindArchive" >> beam.FlatMap(_find_archive, self._job)
        )


def _ask_for_earlier(
    group: tuple[tuple[str, str, str], dict[str, Iterable[Any]]],
) -> Iterator[Recalled]:
    call, found = group
    now = set(found["now"])
    for uris in found["before"]:
        for uri in sorted(set(uris) - now):
            yield uri, call


def _find_archive(
    group: tuple[str, dict[str, Iterable[Any]]], _job: JobSettings
) -> Iterator[ArchiveRef]:
    """Yields an archive as it stands now; one that is gone fails where it is read. By the job a
    worker knows how to reach its store.
    """
    uri, found = group
    calls = sorted(set(found["wanted"]))
    if not calls:
        return
    ref = ArchiveRef(
        uri=uri,
        size_bytes=0,
        modified_unix_ns=0,
        fingerprint="",
        recalled_for=tuple(
            CallKey(call_type=call[0], call_id=call[1], call_session_id=call[2]) for call in calls
        ),
        link=next(iter(found.get("links", ())), ""),
    )
    ref = _copied(ref, found["rows"]) or _as_it_stands(ref)
    progress.add("bytes_found", ref.size_bytes)
    yield ref


def _copied(ref: ArchiveRef, rows: Iterable[Row]) -> ArchiveRef | None:
    """Returns an archive that has a copy, as it was copied; None where none is there."""
    for row in rows:
        if not raw_copies.is_gone(row["copy_uri"], row["size_bytes"]):
            return replace(
                ref,
                size_bytes=row["size_bytes"],
                modified_unix_ns=from_time(row["modified_time"]),
                fingerprint=row["fingerprint"],
                copy_uri=row["copy_uri"],
            )
    return None


def _as_it_stands(ref: ArchiveRef) -> ArchiveRef:
    try:
        listed = archive_files.look_at(ref.source)
    except RecordingError:
        return ref
    return replace(
        ref,
        size_bytes=listed.size_bytes,
        modified_unix_ns=listed.modified_unix_ns,
        fingerprint=listed.fingerprint,
    )
