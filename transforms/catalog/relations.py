"""What must hold between the tables of a catalog, looked at in one shard at a time.

A run about some tracks only (`--participant` and the like) writes their rows and leaves the call's
row as it was, or makes one that is `partial` without a failure; and it records no archive as done.
So where a call has rows that are newer than its row in `calls`, sums are not judged, and of newer
rows and of such calls no archives. Nor is anything judged by a column that is null, or not there:
earlier versions did not fill it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.catalog import conservation, spans
from transforms.catalog.problems import (
    BY_HAND,
    PRESS_AGAIN,
    PRESS_ARCHIVE,
    PRESS_CALL,
    RESTORE,
    Problem,
    call_of,
    describe,
)
from transforms.catalog.row_keys import groups
from transforms.catalog.schema import ADDED_TABLES, KEYS
from transforms.catalog.shards import (
    CALL,
    OF_TRACKS,
    SESSION,
    TRACK,
    Shard,
    number_together,
)
from transforms.catalog.sums import (
    Column,
    Flags,
    column,
    extreme_by,
    is_one_of,
    sum_by,
    text_hashes,
)
from transforms.elements import Row, Status
from transforms.media.units import Ints

_DAY_US = 86_400 * 1_000_000
_WITH_AUDIO = (str(Status.OK), str(Status.PARTIAL))
_MISSING = (str(Status.FAILED), str(Status.PARTIAL))


def check_shard(
    shard: Shard, known_archives: Ints | None, known_sessions: Ints | None
) -> Iterator[Problem]:
    """Yields what does not hold between the rows of a shard.

    Args:
      shard: all rows of some calls, archives and runs.
      known_archives: sorted hashes (`text_hashes`) of all archives of the catalog; None where they
        cannot all be read.
      known_sessions: the same of the call sessions in `calls`.
    """
    yield from _check_archives(shard)
    if known_sessions is not None:
        yield from _check_sessions_known(shard, known_sessions)
    yield from _check_runs(shard)
    calls = _Calls(shard)
    yield from calls.check_have_sessions()
    yield from calls.check_date()
    yield from calls.check_rows_have_calls()
    yield from calls.check_rows_have_tracks()
    if known_archives is not None:
        yield from calls.check_archives_known(known_archives)
    yield from calls.check_statuses()
    yield from calls.check_sums()
    for table, bad, what in (
        *spans.check(calls.shard.rows, calls.track_row),
        *conservation.check(calls.shard),
    ):
        yield from calls.tell(table, bad, what)


class _Calls:
    """The rows of the calls of a shard, and which belong together."""

    def __init__(self, shard: Shard) -> None:
        self._all = shard
        # Failures of archives belong to none; what was told may be all that is left of a call.
        self._rows = {
            table: rows.filter(rows.column("call_session_id").is_valid())
            for table, rows in shard.rows.items()
            if set(CALL) <= set(rows.schema.names) and table not in ADDED_TABLES
        }
        self.shard = replace(shard, rows={**shard.rows, **self._rows})
        """Without rows that belong to no call."""
        self._call = self._numbers(CALL, self._rows)
        """By table, the number of each row's call."""
        self._count = 1 + max(int(found.max(initial=-1)) for found in self._call.values())
        self._track = self._numbers(TRACK, {table: self._rows[table] for table in OF_TRACKS})
        track_count = 1 + max(int(found.max(initial=-1)) for found in self._track.values())
        places = np.full(track_count, -1, dtype=np.int64)
        with_audio = is_one_of(self._rows["tracks"], "status", _WITH_AUDIO)
        places[self._track["tracks"][with_audio]] = np.flatnonzero(with_audio)
        self.track_row = {table: places[found] for table, found in self._track.items()}
        """By table, the place in `tracks` of the track with audio that each row is of; -1 for
        none.
        """
        self._with_audio = with_audio
        calls = self._rows["calls"]
        self._calls_row = np.full(self._count, -1, dtype=np.int64)
        self._calls_row[self._call["calls"]] = np.arange(calls.num_rows)
        self._made = {table: column(rows, "created_at") for table, rows in self._rows.items()}
        self._calls_made = np.full(self._count, np.iinfo(np.int64).min, dtype=np.int64)
        self._calls_made[self._call["calls"]] = self._made["calls"].values
        """By a call's number, when its row in `calls` was made."""
        self._is_current = self._find_current()
        self._is_whole = self._find_whole()

    @staticmethod
    def _numbers(columns: tuple[str, ...], rows: dict[str, pa.Table]) -> dict[str, Ints]:
        return dict(zip(rows, number_together(list(rows.values()), columns), strict=True))

    def _find_current(self) -> Flags:
        """Returns for each row of `calls` whether none of its call's rows is newer."""
        newest = np.full(self._count, np.iinfo(np.int64).min, dtype=np.int64)
        for table, made in self._made.items():
            np.maximum.at(newest, self._call[table], made.values)
        flags: Flags = self._made["calls"].values >= newest[self._call["calls"]]
        return flags

    def _find_whole(self) -> Flags:
        """Returns for each call, by its number, whether a run about all of it has made its row in
        `calls`; without one, False.
        """
        is_mix = is_one_of(self._rows["recordings"], "recording_type", ("composite",))
        mixed = np.bincount(self._call["recordings"][is_mix], minlength=self._count) > 0
        whole = np.zeros(self._count, dtype=np.bool_)
        told = ~is_one_of(self._rows["calls"], "status", (str(Status.PARTIAL),))
        whole[self._call["calls"]] = told
        flags: Flags = (self._calls_row >= 0) & (whole | mixed)
        return flags

    # --- what is checked --------------------------------------------------------------------------

    def check_have_sessions(self) -> Iterator[Problem]:
        """Yields tables with rows that should be of a call, and name no session of one."""
        for table in (self._rows.keys() | ADDED_TABLES) - {"failures"}:
            if count := self._all.rows[table].column("call_session_id").null_count:
                what = f"{count} rows of {table} name no call session"
                yield Problem(uri=self._all.places[table], what=what, heal=RESTORE)

    def check_date(self) -> Iterator[Problem]:
        """Yields calls under another date than that on which they began."""
        bad, dates = _wrong_dates(self._rows["calls"], "timeline_start_time", self.shard)
        yield from self.tell(
            "calls", bad, lambda row: f"it began on {dates[row]}, by its row", heal=BY_HAND
        )

    def check_rows_have_calls(self) -> Iterator[Problem]:
        """Yields rows whose call is not in `calls` under this date."""
        for table in self._rows:
            lost = self._calls_row[self._call[table]] < 0
            yield from self.tell(table, lost, lambda _: "calls has no row of it under this date")

    def check_rows_have_tracks(self) -> Iterator[Problem]:
        """Yields files, segments and speech of tracks that `tracks` has not, or not with audio, and
        tracks with audio that no segment leads to.
        """
        individual = is_one_of(self._rows["recordings"], "recording_type", ("individual",))
        for table in ("recordings", "segments", "speech"):
            lost = self.track_row[table] < 0
            if table == "recordings":
                lost &= individual
            yield from self.tell(
                table, lost, lambda _: "tracks has no row of that track with audio"
            )
        mapped = np.zeros(self._rows["tracks"].num_rows, dtype=np.bool_)
        of_segments = self.track_row["segments"]
        mapped[of_segments[of_segments >= 0]] = True
        yield from self.tell(
            "tracks", self._with_audio & ~mapped, lambda _: "segments has no row of that track"
        )

    def check_archives_known(self, known_archives: Ints) -> Iterator[Problem]:
        """Yields calls of which an archive is not in `archives`."""
        for table in ("calls", "recordings", "tracks"):
            lists = self._rows[table].column("archive_uris").combine_chunks()
            of_row = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
            names = pc.list_flatten(lists)
            encoded = names.dictionary_encode()
            known = np.isin(text_hashes(encoded.dictionary.to_pylist()), known_archives)
            place = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False)
            lost = ~known[place] & names.is_valid().to_numpy(zero_copy_only=False)
            call = self._call[table][of_row]
            not_newer = self._made[table].values[of_row] <= self._calls_made[call]
            lost &= self._is_whole[call] & not_newer
            first_of_row = {int(of_row[each]): each for each in np.flatnonzero(lost)[::-1]}
            bad = np.zeros(self._rows[table].num_rows, dtype=np.bool_)
            bad[list(first_of_row)] = True

            def what(
                row: int, first: dict[int, int] = first_of_row, names: pa.Array = names
            ) -> str:
                return f"archives has no row of {names[first[row]].as_py()}"

            yield from self.tell(table, bad, what, heal=PRESS_ARCHIVE)

    def check_statuses(self) -> Iterator[Problem]:
        """Yields tracks and calls that failed, or lack something, without a row that says why."""
        told = np.bincount(self._call["failures"], minlength=self._count) > 0
        for table in ("tracks", "calls"):
            rows, call = self._rows[table], self._call[table]
            unsaid = is_one_of(rows, "status", _MISSING) & ~told[call]
            if table == "calls":
                unsaid &= self._is_whole[call]

            def what(row: int, rows: pa.Table = rows) -> str:
                return f"it is {rows.column('status')[row]}, and failures has no row of the call"

            yield from self.tell(table, unsaid, what)

    def check_sums(self) -> Iterator[Problem]:
        """Yields calls whose counts are not those of their rows."""
        tracks, audio = self._rows["tracks"], self._with_audio
        of_call = self._call["tracks"]
        length = column(tracks, "duration_ms")
        recordings = {name: column(self._rows["recordings"], name) for name in _ENDS.values()}
        of_file = self._call["recordings"]
        exact = {
            # Parts of one track are one.
            "track_count": self._distinct((*SESSION, "output_type"), audio),
            "participant_ms": sum_by(of_call[audio], length.values[audio], self._count),
        }
        at_least = {
            "participant_count": self._distinct((*CALL, "participant_id")),
            "session_count": self._distinct(SESSION),
        }
        for name, found in exact.items():
            everywhere = Column(values=found, known=np.ones(self._count, dtype=np.bool_))
            yield from self._compare(name, everywhere, "its tracks with audio give", np.not_equal)
        for name, found in at_least.items():
            everywhere = Column(values=found, known=np.ones(self._count, dtype=np.bool_))
            yield from self._compare(name, everywhere, "its tracks give", np.less)
        for name, of in _ENDS.items():
            ends = extreme_by(of_file, recordings[of], self._count, largest=name == "end_time")
            yield from self._compare(
                name, ends, "its recordings give (Unix time in us)", np.not_equal
            )

    def _distinct(self, columns: tuple[str, ...], which: Flags | None = None) -> Ints:
        """Returns how many values of some columns the tracks of each call have.

        Args:
          columns: of `tracks`.
          which: the rows that count; None for all.
        """
        rows, of_call = self._rows["tracks"], self._call["tracks"]
        if which is not None:
            rows, of_call = rows.filter(pa.array(which)), of_call[which]
        first, _ = groups(rows, columns)
        counts: Ints = np.bincount(of_call[first], minlength=self._count)
        return counts

    def _compare(
        self, name: str, found: Column, says: str, is_wrong: Callable[[Ints, Ints], Flags]
    ) -> Iterator[Problem]:
        """Yields the calls that state another value than their rows give."""
        call, stated = self._call["calls"], column(self._rows["calls"], name)
        judged = stated.known & found.known[call] & self._is_current
        bad = judged & is_wrong(stated.values, found.values[call])

        def what(row: int) -> str:
            return f"its {name} is {stated.values[row]}, {says} {found.values[call[row]]}"

        yield from self.tell("calls", bad, what)

    def tell(
        self, table: str, bad: Flags, what: Callable[[int], str], *, heal: str = PRESS_CALL
    ) -> Iterator[Problem]:
        """Yields a problem for each call that has wrong rows.

        Args:
          table: whose.
          bad: for each of its rows whether it is wrong.
          what: says of a row, by its place, what is wrong with it.
          heal: what makes it right.
        """
        wrong = np.flatnonzero(bad)
        if not len(wrong):
            return
        _, first, counts = np.unique(
            self._call[table][wrong], return_index=True, return_counts=True
        )
        for place, count in zip(wrong[first].tolist(), counts.tolist(), strict=True):
            # No others: a time may be one that Python does not know.
            names = {*KEYS.get(table, SESSION), *CALL} & set(self._rows[table].schema.names)
            row = self._rows[table].select(sorted(names)).slice(place, 1).to_pylist()[0]
            more = f"; {count} such rows of {table}" if count > 1 else ""
            yield Problem(
                uri=self.shard.places[table],
                what=f"{table} of {describe(_names(table, row))}: {what(place)}{more}",
                heal=heal,
                call=call_of(row) if heal == PRESS_CALL else None,
                call_date=self.shard.call_date,
            )


_ENDS = {"start_time": "start_time", "end_time": "end_time"}


def _names(table: str, row: Row) -> Row:
    """Returns the columns that tell what a row is about."""
    return {name: row.get(name) for name in KEYS.get(table, SESSION)}


def _wrong_dates(rows: pa.Table, name: str, shard: Shard) -> tuple[Flags, list[str]]:
    """Returns which rows have a time that is not on the shard's date, and the date of each."""
    found = column(rows, name)
    dates = (found.values // _DAY_US).astype("datetime64[D]").astype(str)
    return found.known & (dates != shard.call_date), dates.tolist()


def _check_archives(shard: Shard) -> Iterator[Problem]:
    rows, failures = shard.rows["archives"], shard.rows["failures"]
    uris = rows.column("archive_uri")
    own = failures.filter(pc.invert(failures.column("call_session_id").is_valid()))
    has_failure = pc.is_in(uris, value_set=own.column("archive_uri").combine_chunks())
    # A failure of a call may have been mended since with another archive of it.
    has_call = pc.greater(pc.fill_null(pc.list_value_length(rows.column("call_session_ids")), 0), 0)
    missing = is_one_of(rows, "status", _MISSING)
    untold = missing & ~_flags(has_failure) & ~_flags(has_call)
    unexplained = missing & _flags(rows.column("error_type").is_null())
    misdated, dates = _wrong_dates(rows, "modified_time", shard)
    attempts = column(rows, "attempts")
    tried = is_one_of(rows, "status", (str(Status.WAITING),)) & (attempts.values > 0)
    for bad, what, heal in (
        (tried, lambda row: f"it is waiting, and its attempts are {attempts.values[row]}",
         PRESS_AGAIN),
        (misdated, lambda row: f"it was modified on {dates[row]}, by its row", BY_HAND),
        (untold, lambda _: "nothing could be made of it, and failures has no row of it",
         PRESS_AGAIN),
        (unexplained, lambda row: f"it is {rows.column('status')[row]}, and its error_type is null",
         PRESS_AGAIN),
    ):  # fmt: skip
        for row in np.flatnonzero(bad).tolist():
            said = f"archives of archive_uri {uris[row].as_py()!r}: {what(row)}"
            yield Problem(uri=shard.places["archives"], what=said, heal=heal)


def _check_sessions_known(shard: Shard, known_sessions: Ints) -> Iterator[Problem]:
    """Yields archives that are said to be pressed whole though `calls`, under whatever date, has
    no row of a call session that was in them.
    """
    rows = shard.rows["archives"]
    rows = rows.filter(pc.fill_null(pc.equal(rows.column("status"), Status.OK), False))
    lists = rows.column("call_session_ids").combine_chunks()
    of_row = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False)
    names = pc.fill_null(pc.list_flatten(lists), "").to_pylist()
    places = np.flatnonzero(~np.isin(text_hashes(names), known_sessions))
    for row, first, count in zip(
        *np.unique(of_row[places], return_index=True, return_counts=True), strict=True
    ):
        name = names[places[first]]
        more = f", and of {count - 1} more" if count > 1 else ""
        said = (
            f"archives of archive_uri {rows.column('archive_uri')[row].as_py()!r}: it is ok, and "
            f"calls has no row of its call session {name!r}{more}"
        )
        yield Problem(uri=shard.places["archives"], what=said, heal=PRESS_AGAIN)


def _check_runs(shard: Shard) -> Iterator[Problem]:
    rows = shard.rows["runs"]
    misdated, dates = _wrong_dates(rows, "started_at", shard)
    counts = {name: column(rows, name) for name in _RUN_COLUMNS}
    listed, skipped = counts["archives_listed"], counts["archives_skipped"]
    begun, ended = counts["started_at"], counts["finished_at"]
    waiting = counts["archives_waiting"]
    left = skipped.values + waiting.values
    too_many = listed.known & skipped.known & (left > listed.values)
    backwards = begun.known & ended.known & (ended.values < begun.values)
    for bad, what in (
        (misdated, lambda row: f"it began on {dates[row]}, by its row"),
        (
            too_many,
            lambda row: (
                f"it skipped {skipped.values[row]} of {listed.values[row]} archives"
                + (f" and left {waiting.values[row]} to the next" if waiting.values[row] else "")
            ),
        ),
        (backwards, lambda _: "it ended before it began"),
    ):
        for row in np.flatnonzero(bad).tolist():
            said = f"runs of run_id {rows.column('run_id')[row].as_py()!r}: {what(row)}"
            yield Problem(uri=shard.places["runs"], what=said, heal=RESTORE)


_RUN_COLUMNS = (
    "archives_listed",
    "archives_skipped",
    "archives_waiting",
    "started_at",
    "finished_at",
)


def _flags(found: pa.Array | pa.ChunkedArray) -> Flags:
    flags: Flags = np.asarray(found)
    return flags
