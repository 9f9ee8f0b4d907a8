"""MatchFilters: the calls, participants, sessions, tracks and output types that a run was given by
name -> those of them that are nowhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import apache_beam as beam

from transforms.catalog import partitions
from transforms.context import JobSettings
from transforms.elements import ArchiveSummary, TrackPart
from transforms.filters import CALL_FLAG, EXCLUDED_CALL_FLAG, Filters, Named, TrackNames

_MOST_NAMES_COMPARED = 3
"""Named values of one flag for which the nearest are looked for: of more it is no help."""
_NEAREST = 3
_COMPARED_CHARACTERS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmatched:
    """A value that a run was given by name and that is nowhere."""

    flag: str
    value: str
    nearest: tuple[str, ...]
    """What there is of its kind, the most like it first; at most three."""


class MatchFilters(beam.PTransform):
    """Input: `TrackPart`, `ArchiveSummary`, the URIs of archives left out, and with manifests cids
    of calls whose archives were not looked at, as nobody wants them. Output: `Unmatched`.

    A value is there when an archive that was read holds it, or the catalog's rows of one that was
    left out: of these `calls` or `tracks` are read, from the newest date on, and only while a value
    is missing. A run that has no archives at all misses none. Writes nothing; memory grows with the
    URIs of the archives left out.
    """

    def __init__(self, job: JobSettings) -> None:
        super().__init__()
        self._job = job

    def expand(
        self,
        inputs: tuple[beam.PCollection[Any], ...],
    ) -> beam.PCollection[Unmatched]:
        parts, summaries, skipped, *unwanted = inputs
        filters = self._job.filters
        seen = (
            (
                parts | "SeenInParts" >> beam.Map(_seen_in_part, filters),
                summaries | "SeenInArchives" >> beam.Map(_seen_in_archive, filters),
                *(
                    cids | "SeenInManifests" >> beam.Map(_seen_in_manifest, filters)
                    for cids in unwanted
                ),
            )
            | "AllSeen" >> beam.Flatten()
            | "GatherSeen" >> beam.CombineGlobally(_GatherFn(filters))
        )
        return (
            parts.pipeline
            | "Start" >> beam.Impulse()
            | "LookForMissing"
            >> beam.FlatMap(
                _look_for_missing,
                seen=beam.pvalue.AsSingleton(seen),
                skipped=beam.pvalue.AsIter(skipped),
                job=self._job,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What some of the input has of what was named, and what it has of the same kinds."""

    archives: int
    matched: frozenset[Named]
    others: tuple[Named, ...]
    """Of each named value the most like it."""


def _seen_in_part(part: TrackPart, filters: Filters) -> _Seen:
    return _Seen(
        archives=0,
        matched=filters.matched_by(part.names),
        others=tuple(filters.names_of(part.names)),
    )


def _seen_in_archive(summary: ArchiveSummary, filters: Filters) -> _Seen:
    matched = [filters.matched_by_call(call.cid) for call in summary.calls]
    return _Seen(
        archives=1,
        matched=frozenset().union(*matched),
        others=tuple(name for call in summary.calls for name in _names_of_call(call.cid)),
    )


def _names_of_call(cid: str) -> tuple[Named, ...]:
    return ((CALL_FLAG, cid), (EXCLUDED_CALL_FLAG, cid))


def _seen_in_manifest(cid: str, filters: Filters) -> _Seen:
    return _Seen(archives=1, matched=filters.matched_by_call(cid), others=_names_of_call(cid))


class _GatherFn(beam.CombineFn):
    def __init__(self, filters: Filters) -> None:
        self._filters = filters

    def create_accumulator(self) -> _Seen:
        return _Seen(archives=0, matched=frozenset(), others=())

    def add_input(self, seen: _Seen, more: _Seen) -> _Seen:
        return _Seen(
            archives=seen.archives + more.archives,
            matched=seen.matched | more.matched,
            others=_most_alike({*seen.others, *more.others}, self._filters),
        )

    def merge_accumulators(self, accumulators: Iterable[_Seen]) -> _Seen:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            merged = self.add_input(merged, accumulator)
        return merged

    def extract_output(self, seen: _Seen) -> _Seen:
        return seen


def _most_alike(others: set[Named], filters: Filters) -> tuple[Named, ...]:
    """Returns of each named value the most like it; nothing where it would be of no help."""
    found: set[Named] = set()
    for flag, values in filters.named.items():
        if len(values) <= _MOST_NAMES_COMPARED:
            there = [name for kind, name in others if kind == flag]
            for value in values:
                found.update((flag, name) for name in _nearest(value, there))
    return tuple(sorted(found))


def _nearest(value: str, there: list[str]) -> list[str]:
    if len(there) <= _NEAREST:
        return sorted(there)
    by_cut = {name[:_COMPARED_CHARACTERS]: name for name in sorted(there)}
    near = difflib.get_close_matches(value[:_COMPARED_CHARACTERS], by_cut, _NEAREST, 0.0)
    return [by_cut[name] for name in near]


def _look_for_missing(
    _: bytes, seen: _Seen, skipped: Iterable[tuple[str, ...]], job: JobSettings
) -> Iterator[Unmatched]:
    filters = job.filters
    missing = filters.all_named - seen.matched
    others = set(seen.others)
    if not missing:
        return
    uris = {uri for batch in skipped for uri in batch}
    if not (uris or seen.archives):
        return
    if uris:
        missing, more = _look_in_catalog(missing, uris, job)
        others |= more
    for flag, value in sorted(missing):
        there = [name for kind, name in others if kind == flag]
        is_few = len(filters.named[flag]) <= _MOST_NAMES_COMPARED
        yield Unmatched(
            flag=flag, value=value, nearest=tuple(_nearest(value, there)) if is_few else ()
        )


def _look_in_catalog(
    missing: frozenset[Named], uris: set[str], job: JobSettings
) -> tuple[frozenset[Named], set[Named]]:
    """Returns what is not in the catalog's rows of some archives either, and what is there most
    like it.
    """
    filters = job.filters
    table = "tracks" if filters.narrows_tracks else "calls"
    columns: tuple[str, ...] = ("call_cid", "archive_uris")
    if filters.narrows_tracks:
        columns = (*columns, "participant_id", "user_session_id", "output_type", "track_ids")
    others: set[Named] = set()
    files = partitions.list_files(job.catalog_uri, table)
    for file in sorted(files, key=lambda file: file.call_date, reverse=True):
        names: set[Named] = set()
        for row in partitions.read_table(file, table, columns).to_pylist():
            # Rows of tracks of which nothing was made name no archives.
            if uris.isdisjoint(row["archive_uris"] or uris):
                continue
            found = TrackNames(
                call_cid=row["call_cid"],
                participant_id=row.get("participant_id"),
                user_session_id=row.get("user_session_id"),
                output_type=row.get("output_type"),
                track_ids=tuple(row.get("track_ids") or ()),
            )
            missing -= filters.matched_by(found)
            names |= {*_names_of_call(found.call_cid), *filters.names_of(found)}
        if not missing:
            break
        others = set(_most_alike(others | names, filters))
    return missing, others
