"""Rows of `dumps`: what is claimed of each segment, what its dump holds, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transforms.catalog.rows.ids import track_columns, track_ids
from transforms.elements import Failure, Row, Stage, TrackPart, to_failure
from transforms.media.errors import MissingAudioError
from transforms.media.extract_track import load_parts
from transforms.media.rtp.dump_claims import SegmentClaim, Shortfall, shortfall
from transforms.media.rtp.fates import FATES, Fate
from transforms.media.settings import PressSettings
from transforms.media.track.staged_packets import StagedDump
from transforms.media.units import NS_PER_MS
from transforms.media.values import PartFiles, TrackKey, segment_stem
from transforms.media.wall_time import to_time
from transforms.storage import objects


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpAccount:
    """A segment of one archive, and what became of its dump in the end."""

    track: TrackKey
    part: TrackPart
    dump: StagedDump

    @property
    def shortfall(self) -> Shortfall:
        """What is missing of it."""
        dump = self.dump
        ends = None if dump.arrivals_unix_ns is None else dump.ends
        return shortfall(dump.claim, ends, dump.fates, dump.packet_ms, self.part.conventions)


def accounts_of(parts: Iterable[TrackPart]) -> list[DumpAccount]:
    """Returns the segments of parts of which nothing is made.

    Raises:
      StorageError: what was staged cannot be read back.
    """
    found = []
    for part in parts:
        assert part.track is not None, "a session without segments has no index"
        (index,) = load_parts([PartFiles(packets="", index=part.index_uri)], objects.open_input)
        found += [
            DumpAccount(track=part.track, part=part, dump=_refused(dump)) for dump in index.dumps
        ]
    return found


def dump_rows(accounts: Iterable[DumpAccount]) -> list[Row]:
    """Returns a row for each segment of each archive."""
    return [_dump_row(account) for account in accounts]


def _dump_row(account: DumpAccount) -> Row:
    dump = account.dump
    claim, arrivals = dump.claim, dump.arrivals_unix_ns
    row: Row = {
        **track_ids(account.track),
        "archive_uri": account.part.archive_uri,
        "base_filename": dump.base_filename,
        "member": dump.member,
        "claimed_start_time": _time(claim.first_unix_ms),
        "claimed_end_time": _time(claim.last_unix_ms),
        "claimed_ms": claim.span_ms,
        "found_start_time": None if arrivals is None else to_time(arrivals[0]),
        "found_end_time": None if arrivals is None else to_time(arrivals[1]),
        "found_ms": 0 if arrivals is None else round((arrivals[1] - arrivals[0]) / NS_PER_MS),
        "missing_ms": account.shortfall.missing_ms,
        "records": dump.records,
    }
    for fate in FATES:
        row[f"records_{fate}"] = None if dump.records is None else dump.fates.get(fate, 0)
    return row


def _time(unix_ms: int | None) -> object:
    return None if unix_ms is None else to_time(unix_ms * NS_PER_MS)


def _refused(dump: StagedDump) -> StagedDump:
    """Returns a segment's account where nothing is made of what was staged of it, for a reason that
    a failure tells.
    """
    fates = dict(dump.fates)
    staged = fates.pop(Fate.PLACED, 0)
    if staged:
        fates[Fate.REFUSED] = fates.get(Fate.REFUSED, 0) + staged
    return replace(dump, fates=fates, told=(*dump.told, Fate.REFUSED))


SUMS = ("claimed_ms", "found_ms", "missing_ms")
_NOTHING = dict.fromkeys(SUMS, 0)


def sums_of(rows: Iterable[Row]) -> Row:
    """Returns what is claimed, found and missing in some rows together; null where none says."""
    rows = list(rows)
    found: Row = {}
    for column in SUMS:
        known = [row[column] for row in rows if row.get(column) is not None]
        found[column] = sum(known) if known else None
    return found


def add_sums(rows: Mapping[str, list[Row]]) -> None:
    """Fills these columns of a call's `tracks` rows from its `dumps` rows, in place.

    A row of an older version has no such rows, and keeps what it has.
    """
    of_track: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows["dumps"]:
        of_track.setdefault(track_columns(row), []).append(row)
    for row in rows["tracks"]:
        if track_columns(row) in of_track:
            # Its dumps are of all its parts: they are counted with the first.
            row.update(sums_of(of_track[track_columns(row)] if not row.get("part") else [_NOTHING]))


# --- what is missing ------------------------------------------------------------------------------


def settle_between_archives(accounts: Sequence[DumpAccount]) -> list[DumpAccount]:
    """Returns accounts in which a segment that one archive lacks and another brings is not missing.

    Args:
      accounts: of tracks, from all their archives.
    """
    brought: dict[tuple[TrackKey, str, SegmentClaim], list[DumpAccount]] = {}
    for each in accounts:
        if each.dump.arrivals_unix_ns is not None and not each.shortfall.is_misfit:
            brought.setdefault(_segment_of(each), []).append(each)
    return [_settled(each, brought.get(_segment_of(each), ())) for each in accounts]


def _segment_of(account: DumpAccount) -> tuple[TrackKey, str, SegmentClaim]:
    """Returns what is one segment, whichever archive speaks of it: a name alone may come again."""
    return account.track, segment_stem(account.dump.base_filename), account.dump.claim


def _settled(account: DumpAccount, others: Sequence[DumpAccount]) -> DumpAccount:
    """Returns an account without what recordings of the same segment bring that reach up to its
    own.
    """
    dump = account.dump
    if dump.arrivals_unix_ns is None:
        whole = any(not (e.shortfall.head_ms or e.shortfall.tail_ms) for e in others)
        return replace(account, dump=replace(dump, claim=_NO_CLAIM)) if whole else account
    if account.shortfall.is_misfit:
        return account
    first_ns, last_ns = dump.arrivals_unix_ns
    ends = dump.ends
    for each in others:
        assert each.dump.arrivals_unix_ns is not None
        begin_ns, end_ns = each.dump.arrivals_unix_ns
        if begin_ns > last_ns + _REACH_NS or end_ns < first_ns - _REACH_NS:
            continue
        if not each.shortfall.head_ms:
            ends = replace(ends, head_samples=each.dump.ends.head_samples)
        if not each.shortfall.tail_ms:
            ends = replace(
                ends, tail_samples=each.dump.ends.tail_samples, tail_ns=each.dump.ends.tail_ns
            )
    return replace(account, dump=replace(dump, ends=ends))


def missing_failures(
    stage: Stage, accounts: Iterable[DumpAccount], settings: PressSettings
) -> list[Failure]:
    """Returns a failure for each segment of which audio is missing that no other failure tells of.

    Args:
      stage: the transform that asks.
      accounts: all of each track, settled between its archives.
      settings: from how much on it is told, per track and reason.
    """
    least_ms, least_packets = settings.max_missing_ms, settings.max_missing_packets
    found: dict[tuple[TrackKey, str], list[tuple[DumpAccount, float, int, str]]] = {}
    for account in accounts:
        for reason, ms, packets, what in _reasons(account):
            found.setdefault((account.track, reason), []).append((account, ms, packets, what))
    failures = []
    for (track, reason), entries in found.items():
        total_ms = sum(ms for _, ms, _, _ in entries)
        total_packets = sum(packets for _, _, packets, _ in entries)
        is_small = total_ms < least_ms and total_packets < least_packets
        if is_small and reason not in (_MISFIT, _UNKNOWN):
            continue
        for account, _, _, what in entries[:_MOST_TOLD]:
            member = account.dump.member or f"{account.dump.base_filename}.rtpdump"
            more = len(entries) - _MOST_TOLD
            tail = f"; {more} more segments of the track alike" if more > 0 else ""
            failures.append(
                to_failure(
                    stage,
                    MissingAudioError(f"{member}: {what}{tail}", member=member),
                    archive_uri=account.part.archive_uri,
                    archive_modified_unix_ns=account.part.archive_modified_unix_ns,
                    call=track.call,
                    participant_id=track.participant_id,
                    user_session_id=track.user_session_id,
                    output_type=track.output_type,
                )
            )
    return failures


_MISFIT = "misfit"
_UNKNOWN = "unknown"
"""Reasons of which nobody can tell how much they cost."""
_REACH_NS = 200 * NS_PER_MS
"""Two recordings of a segment that lie no further apart have no hole between them."""
_MOST_TOLD = 20
"""Segments of one track that are told one by one, per reason."""
_NO_CLAIM = SegmentClaim(first_unix_ms=None, last_unix_ms=None, rtp_samples=None)
_WHY = {
    Fate.FOREIGN: "are of payload types that nothing names as this track's",
    Fate.INVALID: "are no RTP or no Opus",
    Fate.CONFLICTING: "have numbers that were there already, and other content",
    Fate.TOO_LATE: "came for a time that other audio fills",
    Fate.OUTSIDE_LIMITS: "lie past a limit",
}


def _reasons(account: DumpAccount) -> Iterable[tuple[str, float, int, str]]:
    """Yields (reason, ms, packets, message) of what is missing and not told yet."""
    dump = account.dump
    short = account.shortfall
    claimed_s = (dump.claim.span_ms or 0) / 1_000
    if dump.arrivals_unix_ns is None and not dump.is_cut_told:
        if short.tail_ms:
            what = f"no RTP packets in it, the metadata claims {claimed_s:.3f} s"
            yield "cut", short.tail_ms, 0, what
        elif dump.claim.has_packets:
            yield _UNKNOWN, 0.0, 0, "no RTP packets in it, the metadata says that some came"
    elif not dump.is_cut_told:
        for ms, begins_or_ends, which in (
            (short.head_ms, "begins", "after the first packet"),
            (short.tail_ms, "ends", "before the last packet"),
        ):
            if ms:
                what = (
                    f"{begins_or_ends} {ms / 1_000:.3f} s {which} that the metadata claims, of "
                    f"{claimed_s:.3f} s"
                )
                yield "cut", ms, 0, what
    if short.is_misfit:
        what = (
            "its RTP time stamps are not those that the metadata claims: it may be another "
            "segment's, and was placed by the server's clock"
        )
        yield _MISFIT, 0.0, 0, what
    for fate, count in short.packets:
        if fate not in dump.told and fate in _WHY:
            ms = count * dump.packet_ms
            what = f"{count} packets ({ms / 1_000:.3f} s) {_WHY[fate]}, and are in no file"
            yield fate, ms, count, what
