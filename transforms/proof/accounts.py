"""What a catalog adds up to, shard by shard: records of dumps and their fates, seconds claimed and
found, bounds on times, archives by status, and a digest over all files. Says what it cannot tell:
columns that are null, or not there, as in rows of earlier versions, are not known, and never whole.

Memory is one shard and the names of one date's files.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.catalog.conservation import FATE_PREFIX, RECORDS, SUMMED
from transforms.catalog.schema import TABLES
from transforms.catalog.shards import DUMPS, SESSION, Shard, number_together
from transforms.catalog.sums import Column, Flags, column, extreme_by, is_one_of
from transforms.elements import Status
from transforms.media.rtp.fates import AUDIO_MISSING, FATES
from transforms.media.text import printable, utf8_text
from transforms.media.units import Ints
from transforms.media.values import segment_stem

MOST_NAMED = 2_000
"""Archives, entries of a listing and problems that are named one by one; all are counted."""
MOST_CHARACTERS = 400
"""Of one text in an account: a hostile one may be as long as a file."""
CLAIMS_AGREE_MS = 1_120
"""How much shorter than its claim a segment may seem though nothing is missing: the clock of the
server that states the claim agrees with that of the dump within a second, and each end with the
packet next to it within 60 ms (`rtp/dump_claims.py`).
"""
_WHOLE = (Status.OK, Status.EMPTY)
_LINES_AT_A_TIME = 100_000
_STEP_US = 100
_STEPS = 1 << 20
"""Bounds of times are counted in steps of 0.1 ms, up to 105 s."""
_MOST = 1 << 44
"""Of one count, length in ms or size in bytes: so many of a shard's rows can be added up."""
_LAST_US = 253_402_300_799_999_999
"""The end of the year 9999, up to which times can be spelled."""
_SHA256 = "^[0-9a-f]{64}$"
_SEGMENT = (*SESSION, "output_type", "stem", "claimed_start_time", "claimed_end_time", "claimed_ms")
"""What is one segment, whichever archive speaks of it."""


def told(text: object) -> str:
    """Returns a text of a catalog or listing as accounts and receipts have it: one line of UTF-8,
    of bounded length.
    """
    found = str(text)
    if len(found) > MOST_CHARACTERS:
        found = found[: MOST_CHARACTERS - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return printable(utf8_text(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedArchive:
    """An archive of which the catalog has not everything, and why."""

    archive_uri: str
    status: str
    error_type: str
    error_message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that does not agree, and where."""

    uri: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesOfDate:
    """The files of the calls that began on one date."""

    call_date: str
    count: int
    size_bytes: int
    sha256: str
    """Of their lines `<sha256>  <uri>`, as `sha256sum` writes them, in the order of bytes."""
    newest_unix_us: int
    """When the newest of their rows was made."""


@dataclass(slots=True, kw_only=True)
class Accounts:
    """What a catalog adds up to so far."""

    wanted: frozenset[str] = frozenset()
    """Archives (`told`) whose status is asked for."""
    since_unix_us: Mapping[str, int] = field(default_factory=dict)
    """By date, the moment after which rows of files that were made are told apart."""
    rows: Counter[str] = field(default_factory=Counter)
    """By table."""
    archives: Counter[str] = field(default_factory=Counter)
    """By status."""
    named: list[NamedArchive] = field(default_factory=list)
    """Those that are not whole, `MOST_NAMED` at most."""
    statuses: dict[str, str] = field(default_factory=dict)
    """Of the wanted archives."""
    files: list[FilesOfDate] = field(default_factory=list)
    """By date, in its order."""
    newer: dict[str, list[str]] = field(default_factory=dict)
    """By date, files whose rows were made after its moment, `MOST_NAMED` at most."""
    newer_counts: Counter[str] = field(default_factory=Counter)
    records: int = 0
    fates: Counter[str] = field(default_factory=Counter)
    """Those that this version does not know are `other`."""
    unaccounted_records: int = 0
    claimed_ms: int = 0
    found_ms: int = 0
    missing_ms: int = 0
    unaccounted_ms: int = 0
    """Claimed by the metadata, and neither in a dump nor told as missing."""
    lacking: list[Fault] = field(default_factory=list)
    """The segments that have them, `MOST_NAMED` at most."""
    lacking_count: int = 0
    segments_without_claim: int = 0
    """Segments of which the metadata does not say when they were."""
    segments: int = 0
    largest_error_us: int = 0
    not_known: Counter[str] = field(default_factory=Counter)
    """How many rows do not say what is asked of them, by what that is."""
    _error_ms: Ints = field(default_factory=lambda: np.zeros(_STEPS, dtype=np.int64))
    """By the bound on its times, in steps, how many ms of the segments have it."""
    _date: str = ""
    _lines: list[pa.Array] = field(default_factory=list)
    _sizes: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, shard: Shard) -> None:
        """Takes a shard in; shards come date by date."""
        if shard.call_date != self._date:
            self._end_date()
            self._date = shard.call_date
        for table in TABLES:
            self.rows[table] += shard.rows[table].num_rows
        self._add_archives(shard.rows["archives"])
        self._add_files(shard.rows["recordings"])
        self._add_records(shard.rows[DUMPS])
        self._add_times(shard.rows[DUMPS], shard.rows["tracks"])
        self._add_errors(shard.rows["segments"])

    def end(self) -> None:
        """Says that there are no more shards."""
        self._end_date()

    # --- what was added up ------------------------------------------------------------------------

    @property
    def whole(self) -> int:
        """How many archives are whole."""
        return sum(self.archives[status] for status in _WHOLE)

    @property
    def audio_not_in_files(self) -> int:
        """Records that came, may be audio and are in no file; each has a reason."""
        return sum(self.fates[fate] for fate in AUDIO_MISSING)

    @property
    def typical_error_us(self) -> int:
        """Within what half of the time of all segments is placed, rounded up to 0.1 ms."""
        up_to = np.cumsum(self._error_ms)
        step = int(np.searchsorted(up_to, (int(up_to[-1]) + 1) // 2))
        return min(step * _STEP_US, self.largest_error_us)

    # --- adding up --------------------------------------------------------------------------------

    def _add_archives(self, rows: pa.Table) -> None:
        known = is_one_of(rows, "status", tuple(Status))
        for counted in rows.column("status").filter(pa.array(known)).value_counts().to_pylist():
            self.archives[counted["values"]] += counted["counts"]
        self._unknown("archives", ~known)
        names = ("archive_uri", "status", "error_type", "error_message")
        whole = is_one_of(rows, "status", _WHOLE)
        for row in rows.select(names).filter(pa.array(~whole)).to_pylist():
            if len(self.named) == MOST_NAMED:
                break
            self.named.append(NamedArchive(**{name: told(row[name] or "") for name in names}))
        if self.wanted:
            for row in rows.select(names[:2]).to_pylist():
                if (uri := told(row["archive_uri"])) in self.wanted:
                    self.statuses[uri] = told(row["status"])

    def _add_files(self, rows: pa.Table) -> None:
        uri, sha256 = (rows.column(name).combine_chunks() for name in ("uri", "sha256"))
        size, made = _count(rows, "size_bytes"), column(rows, "created_at")
        is_hash = _flags(pc.fill_null(pc.match_substring_regex(sha256, _SHA256), False))
        known = is_hash & _flags(uri.is_valid()) & size.known
        self._unknown("files", ~known)
        kept = pa.array(known)
        self._lines.append(_lines(uri.filter(kept), sha256.filter(kept)))
        newest = int(made.values[made.values <= _LAST_US].max(initial=0))
        self._sizes.append((int(known.sum()), int(size.values[known].sum()), newest))
        if (since_unix_us := self.since_unix_us.get(self._date)) is not None:
            newer = rows.column("uri").filter(pa.array(made.values > since_unix_us))
            found = self.newer.setdefault(self._date, [])
            found.extend(map(told, newer.slice(0, MOST_NAMED - len(found)).to_pylist()))
            self.newer_counts[self._date] += len(newer)

    def _end_date(self) -> None:
        """Sums up the files of a date once all its shards are in."""
        if sum(count for count, _, _ in self._sizes):
            lines = pa.chunked_array(self._lines, pa.large_string())
            order = pc.sort_indices(lines)
            digest = hashlib.sha256()
            for start in range(0, len(order), _LINES_AT_A_TIME):
                some = lines.take(order.slice(start, _LINES_AT_A_TIME))
                digest.update("".join(some.to_pylist()).encode())
            counts, sizes, newest = zip(*self._sizes, strict=True)
            self.files.append(
                FilesOfDate(
                    call_date=self._date,
                    count=sum(counts),
                    size_bytes=sum(sizes),
                    sha256=digest.hexdigest(),
                    newest_unix_us=max(newest),
                )
            )
        self._lines, self._sizes = [], []

    def _add_records(self, dumps: pa.Table) -> None:
        """Counts records and their fates, where a segment has a dump."""
        records = _count(dumps, RECORDS)
        names = [name for name in dumps.schema.names if name.startswith(FATE_PREFIX)]
        fates = {name.removeprefix(FATE_PREFIX): _count(dumps, name) for name in names}
        counted = np.zeros(dumps.num_rows, dtype=np.int64)
        is_told = np.zeros(dumps.num_rows, dtype=np.bool_)
        for name, fate in fates.items():
            counted += fate.values
            is_told |= fate.known
            self.fates[name if name in FATES else "other"] += int(fate.values.sum())
        has_dump = _flags(dumps.column("member").combine_chunks().is_valid())
        self._unknown("dumps", (has_dump & ~records.known) | (records.known & ~is_told))
        self.records += int(records.values.sum())
        without = np.maximum(0, records.values - counted)[records.known]
        self.unaccounted_records += int(without.sum())

    def _add_times(self, dumps: pa.Table, tracks: pa.Table) -> None:
        """Sums what is claimed, found and missing, and finds what none of them tells of.

        A segment that two archives bring is claimed twice, and missing in neither where they have
        it together: it is judged by all of its rows.
        """
        # An earlier version kept no account of a track: no row of dumps, and null here.
        unsaid = ~column(tracks, "found_ms").known
        self._unknown("tracks", unsaid & ~is_one_of(tracks, "status", (Status.EMPTY,)))
        if not dumps.num_rows:
            return
        claimed, found, missing = (_count(dumps, name) for name in SUMMED)
        begin, end = (column(dumps, f"claimed_{name}_time") for name in ("start", "end"))
        is_claimed = column(dumps, "claimed_ms").known | (begin.known & end.known)
        odd = is_claimed & ~claimed.known
        self._unknown("seconds", ~found.known | ~missing.known | odd)
        self.claimed_ms += int(claimed.values.sum())
        self.found_ms += int(found.values.sum())
        self.missing_ms += int(missing.values.sum())
        self.segments_without_claim += int((~claimed.known).sum())
        (segment,) = number_together([_with_stem(dumps)], _SEGMENT)
        count = int(segment.max()) + 1
        first = extreme_by(segment, column(dumps, "found_start_time"), count, largest=False)
        last = extreme_by(segment, column(dumps, "found_end_time"), count, largest=True)
        span_ms = np.where(first.known & last.known, (last.values - first.values) // 1_000, 0)
        of_claim = extreme_by(segment, claimed, count, largest=True)
        told_ms = extreme_by(segment, missing, count, largest=True)
        lacking = of_claim.values - span_ms - told_ms.values
        lacks = lacking > CLAIMS_AGREE_MS
        self.unaccounted_ms += int(lacking[lacks].sum())
        self.lacking_count += int(lacks.sum())
        for number in np.flatnonzero(lacks)[: MOST_NAMED - len(self.lacking)].tolist():
            place = int(np.argmax(segment == number))
            self.lacking.append(
                Fault(
                    uri=told(dumps.column("archive_uri")[place]),
                    what=f"segment {told(dumps.column('base_filename')[place])!r}: of "
                    f"{of_claim.values[number]} ms claimed {span_ms[number]} ms are in its dump "
                    f"and {told_ms.values[number]} ms told as missing",
                )
            )

    def _add_errors(self, segments: pa.Table) -> None:
        self.segments += segments.num_rows
        values = segments.column("sync_error_ms").combine_chunks().fill_null(-1.0)
        error_ms = values.to_numpy(zero_copy_only=False)
        known = np.isfinite(error_ms) & (error_ms >= 0) & (error_ms < 1e12)
        self._unknown("places", ~known)
        error_us = np.ceil(np.round(error_ms[known] * 1e3, 3)).astype(np.int64)
        self.largest_error_us = max(self.largest_error_us, int(error_us.max(initial=0)))
        starts, ends = _count(segments, "file_start_ms"), _count(segments, "file_end_ms")
        length_ms = np.maximum(1, ends.values - starts.values)[known]
        steps = np.minimum(-(-error_us // _STEP_US), _STEPS - 1)
        np.add.at(self._error_ms, steps, length_ms)

    def _unknown(self, what: str, rows: Flags) -> None:
        if count := int(rows.sum()):
            self.not_known[what] += count


def total_sha256(files: Iterable[tuple[str, str]]) -> str:
    """Returns the digest over all dates. Args: files: the date and the digest of each, in order."""
    lines = (f"{call_date} {sha256}\n" for call_date, sha256 in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _lines(uri: pa.Array, sha256: pa.Array) -> pa.Array:
    """Returns the lines that `sha256sum` writes: a name with a line break or a backslash is
    escaped, and its line begins with a backslash.
    """
    uri, sha256 = uri.cast(pa.large_string()), sha256.cast(pa.large_string())
    is_plain = pc.invert(pc.match_substring_regex(uri, r"[\\\n\r]"))
    for letter, spelled in (("\\", r"\\"), ("\n", r"\n"), ("\r", r"\r")):
        uri = pc.replace_substring(uri, letter, spelled)
    begins = pc.if_else(is_plain, "", "\\").cast(pa.large_string())
    two_blanks, ends = (pa.scalar(text, pa.large_string()) for text in ("  ", "\n"))
    nothing = pa.scalar("", pa.large_string())
    return pc.binary_join_element_wise(begins, sha256, two_blanks, uri, ends, nothing)


def _with_stem(dumps: pa.Table) -> pa.Table:
    """Returns rows of dumps with the name of their segment as all archives have it."""
    names = dumps.column("base_filename").to_pylist()
    stems = [None if name is None else segment_stem(name) for name in names]
    return dumps.append_column("stem", pa.array(stems, pa.string()))


def _count(rows: pa.Table, name: str) -> Column:
    """Returns a column of counts, lengths or sizes; what is negative or beyond reason is not
    known.
    """
    found = column(rows, name)
    known = found.known & (found.values >= 0) & (found.values <= _MOST)
    return Column(values=np.where(known, found.values, 0), known=known)


def _flags(found: pa.Array) -> Flags:
    flags: Flags = found.to_numpy(zero_copy_only=False)
    return flags
