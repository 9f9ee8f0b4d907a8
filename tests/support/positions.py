"""Simulated calls on their whole way, and where their sound ends up.

Tests assert it, benchmarks print it. Each call is archived, unpacked and mixed, its MP3 decoded,
and each marker in it found; most also in the MKV, by what its `segments` rows say. Participants of
one call each have troubles of their own, so that one mix serves many cases.
"""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tests.support.builders import Pcm
from tests.support.media import (
    LIMITS,
    as_witness,
    decode_with_pyav,
    make_input,
    mix_parts,
    open_in,
)
from tests.support.simulation.calls import Person, simulate_call
from tests.support.simulation.markers import MarkerMatch, locate, measure
from tests.support.simulation.sender import CALL_START_NS, Sender
from tests.support.simulation.sending import Marker, Simulated
from transforms.media.clock.server_clocks import CallPart, find_server_clocks
from transforms.media.extract_track import TrackStats, extract_track
from transforms.media.job import JobHost
from transforms.media.lane_file import FileSegment
from transforms.media.mix_call import MixStats
from transforms.media.settings import Mp3Settings
from transforms.media.units import SAMPLE_RATE_HZ
from transforms.media.unpack_archive import unpack_archive
from transforms.media.values import Container, PartFiles

MS = 1_000_000
ENOUGH = 0.7
"""Of a marker's packets: with fewer there may be too little left to find it by."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """One participant session: the truth, and what became of it."""

    segments: tuple[Simulated, ...]
    stats: TrackStats
    mkv: Pcm | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Pressed:
    """A call that went the whole way."""

    mix: Pcm
    stats: MixStats
    tracks: Mapping[str, Track]
    """By session."""


def _opener(archive: bytes) -> Callable[[str], BinaryIO]:
    """Returns what opens an archive in memory, whatever its name."""
    return lambda _: io.BytesIO(archive)


def press(
    archives: Sequence[Sequence[Person]], *, with_mkv: bool | Collection[str] = True
) -> Pressed:
    """Simulates a call, presses it and decodes what came of it; nothing may fail. Args: with_mkv:
    of all sessions, or these.
    """
    truth: dict[str, tuple[Simulated, ...]] = {}
    parts: dict[str, tuple[PartFiles, ...]] = {}
    watched: list[CallPart] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, people in enumerate(archives):
            call = simulate_call(people)
            (folder / str(number)).mkdir()
            unpacked = unpack_archive(
                JobHost(open_input=_opener(call.archive)),
                make_input(call.archive),
                folder / str(number),
                LIMITS,
            )
            assert unpacked.findings == ()
            for session in unpacked.sessions:
                for part in session.parts:
                    files = PartFiles(
                        packets=f"{number}/{part.packets_file}", index=f"{number}/{part.index_file}"
                    )
                    parts[session.key.user_session_id] = (
                        *parts.get(session.key.user_session_id, ()),
                        files,
                    )
                    watched.append(as_witness(str(number), part))
            for session_id, segments in call.people.items():
                truth[session_id] = (*truth.get(session_id, ()), *segments)
        clocks = find_server_clocks(watched)
        parts = {
            session_id: tuple(
                replace(files, server_clock=clocks[files.index.split("/")[0]]) for files in mine
            )
            for session_id, mine in parts.items()
        }
        mp3 = folder / "mix.mp3"
        stats = mix_parts(list(parts.values()), folder, mp3, Mp3Settings(lame_level=9))
        mix = decode_with_pyav(mp3)
        tracks = {}
        for session_id, mine in parts.items():
            wants_mkv = with_mkv if isinstance(with_mkv, bool) else session_id in with_mkv
            mkv = folder / "track.mkv" if wants_mkv else None
            extracted = extract_track(
                JobHost(open_input=open_in(folder)), mine, mkv, Container.MKV, {}
            )
            tracks[session_id] = Track(
                segments=truth[session_id],
                stats=extracted,
                mkv=decode_with_pyav(mkv) if mkv else None,
            )
    return Pressed(mix=mix, stats=stats, tracks=tracks)


def row_of(track: Track, marker: Marker) -> FileSegment:
    """Returns the row that says where a marker is: the one nearest to its true time."""
    rows = track.stats.segments
    return min(
        rows,
        key=lambda row: max(
            row.server_start_unix_ns - marker.unix_ns, marker.unix_ns - row.server_stop_unix_ns, 0
        ),
    )


def in_file(track: Track, marker: Marker, row: FileSegment) -> MarkerMatch:
    """Returns where a marker is in the MKV, measured from where the row puts its true time."""
    assert track.mkv is not None
    samples_per_ns = (row.file_stop_sample - row.file_start_sample) / (
        row.server_stop_unix_ns - row.server_start_unix_ns
    )
    expected = row.file_start_sample + (marker.unix_ns - row.server_start_unix_ns) * samples_per_ns
    return locate(track.mkv, expected, marker.waveform)


@dataclass(frozen=True, kw_only=True)
class Found:
    """A marker of which enough arrived, away from every stall."""

    marker: Marker
    row: FileSegment
    mix: MarkerMatch
    file: MarkerMatch | None


def find_all(pressed: Pressed, session: str) -> list[Found]:
    """Returns every marker of a session that can be asked for."""
    track = pressed.tracks[session]
    found = []
    for segment in track.segments:
        for marker in segment.markers:
            at_s = marker.media_sample / SAMPLE_RATE_HZ
            near = any(stall - 0.7 < at_s < stall + 0.5 for stall, _ in segment.sender.stalls)
            if near or marker.arrived_ratio < ENOUGH:
                continue
            row = row_of(track, marker)
            (mix,) = measure(pressed.mix, pressed.stats.start_unix_ns, [marker])
            found.append(
                Found(
                    marker=marker,
                    row=row,
                    mix=mix,
                    file=in_file(track, marker, row) if track.mkv is not None else None,
                )
            )
    return found


@dataclass(frozen=True, kw_only=True)
class Case:
    """One participant's troubles, and how well everything is placed all the same."""

    senders: tuple[Sender, ...]
    limit_ms: float
    least: int = 8
    """Markers that must be there to be asked for."""


MINUTE = Sender(seconds=66, markers_s=tuple(1.0 + 6 * k for k in range(10)))
"""A session of one minute and a bit; each case moves its markers on a little, so that they do not
meet in the mix.
"""
WRAP = 1 << 32
MINUTE_TICKS = 60 * SAMPLE_RATE_HZ
EXACT_MS, GOOD_MS = 2.0, 5.0
NTP_OF_1900_S = -(CALL_START_NS // 1_000_000_000 + 2_208_988_800 - 5.0)


def exact(**changes: Any) -> Case:
    """A case without jitter or skew, or with the loss of what is not near the markers."""
    return Case(senders=(replace(MINUTE, **changes),), limit_ms=EXACT_MS)


def good(**changes: Any) -> Case:
    """A case with jitter of 5 ms."""
    return Case(senders=(replace(MINUTE, **{"jitter_ms": 5.0, **changes}),), limit_ms=GOOD_MS)


CALLS: dict[str, dict[str, Case]] = {
    "numbers": {
        "sequence_wrap": exact(first_sequence_number=65_000),
        "timestamp_wrap": exact(first_rtp_timestamp=WRAP - 960 * 1_000),
        "both_wrap_on_one_packet": exact(
            first_sequence_number=65_536 - 1_000, first_rtp_timestamp=WRAP - 960 * 1_000
        ),
        "wrap_before_first_report": exact(
            first_rtp_timestamp=WRAP - 960 * 10, stalls=((30.0, 0.04),)
        ),
        "report_of_timestamp_0": exact(first_rtp_timestamp=WRAP - 62_400, stalls=((4.0, 0.04),)),
        "sequence_jumps_ahead": exact(sequence_jumps=((30.0, 20_000),)),
        "sequence_jumps_back": exact(sequence_jumps=((30.0, -500),)),
        "sequence_jumps_by_half": exact(sequence_jumps=((30.0, 32_768),)),
        "sequence_jumps_twice_reordered": good(
            sequence_jumps=((30.0, -250), (40.0, 300)), reorder_every=40
        ),
        "frames_of_2.5_ms": good(packet_ms=2.5, skew_ppm=100.0),
        "frames_of_60_ms": good(packet_ms=60, skew_ppm=100.0),
        "frames_of_120_ms": good(packet_ms=120, skew_ppm=-100.0),
    },
    "order": {
        "reordered_by_50": exact(reorder_every=60),
        "reordered_around_stalls": good(reorder_every=60, stalls=((15.0, 0.03), (31.0, 0.08))),
        "twice_at_once": exact(twice_ratio=0.2),
        "twice_3_s_late": exact(twice_late_s=3.0),
        "first_packet_late": exact(first_late=(1, 0.5)),
        "first_packet_30_s_late": exact(first_late=(1, 30.0), stalls=((15.0, 0.1),)),
        "first_20_packets_10_s_late": exact(first_late=(20, 10.0)),
        "first_2_s_together": good(first_together_s=2.0),
        "first_2_s_together_without_reports": good(first_together_s=2.0, report_every_s=None),
        "first_half_second_together": exact(first_together_s=0.5),
        "first_2_s_together_with_dtx": exact(first_together_s=2.0, dtx=((0.3, 1.6),)),
    },
    "loss": {
        "1_percent": exact(loss_ratio=0.01),
        "5_percent": good(loss_ratio=0.05),
        "20_percent": Case(
            senders=(replace(MINUTE, loss_ratio=0.2, jitter_ms=5, skew_ppm=100.0),),
            limit_ms=GOOD_MS,
            least=4,
        ),
        "bursts": exact(lost=tuple((5 + 6.0 * k, 0.1 + 0.05 * k) for k in range(9))),
        "outages": exact(lost=((10.0, 2.0), (20.0, 5.0), (40.0, 8.0))),
        "red": exact(red_copies=2, loss_ratio=0.1),
        "red_and_wrap": exact(red_copies=3, loss_ratio=0.1, first_rtp_timestamp=WRAP - 960 * 1_000),
        "red_and_jump_back": exact(
            red_copies=2, loss_ratio=0.1, jumps=((30.0, -5 * SAMPLE_RATE_HZ),)
        ),
        "foreign": exact(foreign=True),
        "foreign_and_loss": exact(foreign=True, loss_ratio=0.05),
        "foreign_and_dtx": exact(foreign=True, dtx=((10.0, 5.0), (30.0, 10.0))),
    },
    "origins": {
        "source_changes": exact(ssrc_changes=((30.0, 77),)),
        "source_changes_without_reports": exact(ssrc_changes=((30.0, 77),), reports_until_s=29.0),
        "sources_change_with_loss": good(ssrc_changes=((30.0, 77), (33.0, 78)), loss_ratio=0.03),
        "source_comes_back": good(
            ssrc_changes=((20.0, 7), (21.5, MINUTE.ssrc), (40.0, 7), (42.0, 9))
        ),
        "5_min_ahead": exact(jumps=((30.0, 5 * MINUTE_TICKS),)),
        "10_min_back": exact(jumps=((30.0, -10 * MINUTE_TICKS),)),
        "3_s_back": exact(jumps=((30.0, -3 * SAMPLE_RATE_HZ),)),
        "20_ms_back": exact(jumps=((30.0, -960),)),
        "half_the_numbers": exact(jumps=((30.0, 1 << 31),)),
        "1_s_ahead": exact(jumps=((30.0, SAMPLE_RATE_HZ),)),
        "50_ms_ahead": exact(jumps=((30.0, 2_400),)),
    },
    "jumps": {
        "ahead_with_loss": exact(
            jumps=((30.0, 5 * MINUTE_TICKS),), loss_ratio=0.03, lost=((29.9, 0.3),)
        ),
        "back_with_loss": exact(
            jumps=((30.0, -5 * MINUTE_TICKS),), loss_ratio=0.03, lost=((29.5, 0.5),)
        ),
        "back_in_an_outage": exact(jumps=((30.0, -5 * SAMPLE_RATE_HZ),), lost=((29.5, 10.0),)),
        "ahead_in_an_outage": exact(jumps=((30.0, 5 * SAMPLE_RATE_HZ),), lost=((29.5, 3.0),)),
        "ahead_reordered": exact(
            jumps=((30.0, 5 * MINUTE_TICKS),), reorder_every=30, reorder_by=20
        ),
        "back_reordered": exact(jumps=((30.0, -5 * MINUTE_TICKS),), reorder_every=30),
        "ahead_in_dtx": exact(jumps=((30.0, 5 * MINUTE_TICKS),), dtx=((26.0, 6.0),)),
        "back_in_silence": exact(
            jumps=((30.0, -4 * SAMPLE_RATE_HZ),), dtx=((26.0, 6.0),), dtx_refresh_s=None
        ),
        "ahead_in_silence": exact(
            jumps=((30.0, 4 * SAMPLE_RATE_HZ),), dtx=((26.0, 6.0),), dtx_refresh_s=None
        ),
        "half_with_all_of_it": good(
            jumps=((30.0, 1 << 31),), dtx=((26.0, 6.0),), loss_ratio=0.03, reorder_every=70
        ),
        "numbers_and_timestamps": exact(
            jumps=((30.0, 5 * MINUTE_TICKS),), sequence_jumps=((30.0, -300),)
        ),
        "three_within_3_s": good(
            jumps=((30.0, 5 * MINUTE_TICKS), (31.0, -7 * MINUTE_TICKS), (32.5, 3 * MINUTE_TICKS))
        ),
    },
    "clocks": {
        "40_ms_jitter_500_ppm": good(skew_ppm=500.0, jitter_ms=40),
        "40_ms_jitter_dtx_500_ppm": good(
            skew_ppm=-500.0, jitter_ms=40, dtx=tuple((4 + 6.0 * k, 2.0) for k in range(10))
        ),
        "wall_clock_7_s_wrong": good(wall_error_s=7.0, stalls=((30.0, 0.05),)),
        "wall_clock_40_s_wrong": good(wall_error_s=-40.0, stalls=((30.0, 0.05),)),
        "ntp_of_1900": good(wall_error_s=NTP_OF_1900_S, stalls=((30.0, 0.05),)),
        "no_reports": good(report_every_s=None, skew_ppm=100.0),
        "reports_of_absurd_rate": good(wall_rate=1.5, stalls=((30.0, 0.1),)),
        "few_packets": replace(good(dtx=((4.5, 53.0),), markers_s=(0.5, 60.0)), least=2),
    },
    "stalls": {
        "20_ms": good(stalls=((30.0, 0.02),)),
        "20_to_500_ms_skewed": good(
            stalls=((15.0, 0.02), (25.0, 0.05), (35.0, 0.1), (45.0, 0.2), (55.0, 0.5)),
            skew_ppm=150.0,
        ),
        "500_ms_three_times": good(stalls=((15.0, 0.5), (30.0, 0.5), (45.0, 0.5))),
        "20_ms_without_reports": Case(
            senders=(replace(MINUTE, jitter_ms=5, stalls=((30.0, 0.02),), report_every_s=None),),
            limit_ms=21.5,
        ),
        "100_ms_without_reports": good(stalls=((30.0, 0.1),), report_every_s=None),
        "mute_of_10_s": good(dtx=((20.0, 10.0),), dtx_refresh_s=None),
        "mute_of_10_s_that_stops_the_clock": good(stalls=((20.0, 10.0),)),
        "mute_that_stops_the_clock_without_reports": good(
            stalls=((20.0, 10.0),), report_every_s=None
        ),
        "mute_of_3_s_that_stops_the_clock_skewed": good(stalls=((20.0, 3.2),), skew_ppm=200.0),
        "mute_at_the_start": good(stalls=((0.7, 10.0),)),
        "stall_in_a_crowd": good(stalls=((30.0, 0.2),), crowds=((20.0, 3.0, 15.0, 3.0, 0.8),)),
        "stall_in_a_crowd_without_reports": good(
            stalls=((30.0, 0.2),), crowds=((20.0, 3.0, 15.0, 3.0, 0.8),), report_every_s=None
        ),
    },
    "paths": {
        "40_ms_longer": good(paths=((30.0, 0.04),)),
        "25_ms_shorter": good(paths=((30.0, -0.025),)),
        "150_ms_longer": good(paths=((30.0, 0.15),)),
        "crowded": good(crowds=((20.0, 3.0, 5.0, 3.0, 0.8),)),
        "crowded_without_reports": good(crowds=((20.0, 3.0, 5.0, 3.0, 0.8),), report_every_s=None),
        "crowded_to_the_end": good(crowds=((50.0, 3.0, 50.0, 3.0, 0.8),)),
        "crowded_to_the_end_without_reports": good(
            crowds=((50.0, 3.0, 50.0, 3.0, 0.8),), report_every_s=None
        ),
        "crowded_at_first": good(crowds=((-3.0, 3.0, 6.0, 2.0, 0.4),)),
        "crowded_at_first_without_reports": good(
            crowds=((-3.0, 3.0, 6.0, 2.0, 0.4),), report_every_s=None
        ),
        "crowded_often": good(
            crowds=tuple((10 + 9.0 * k, 1.0, 2.0, 1.0, 0.3) for k in range(6)), skew_ppm=200.0
        ),
    },
    "no_arrivals": {
        # What the network did to the one arrival that is known stays in all of it: the rows own up
        # to it.
        "reports": Case(senders=(replace(MINUTE, zero_offsets=True),), limit_ms=GOOD_MS),
        "skewed": Case(
            senders=(replace(MINUTE, zero_offsets=True, skew_ppm=300.0),), limit_ms=GOOD_MS
        ),
        "no_reports": Case(
            senders=(replace(MINUTE, zero_offsets=True, report_every_s=None, skew_ppm=300.0),),
            limit_ms=GOOD_MS,
        ),
        "nothing_at_all": Case(
            senders=(
                replace(
                    MINUTE,
                    zero_offsets=True,
                    report_every_s=None,
                    skew_ppm=300.0,
                    with_last_rtp=False,
                ),
            ),
            limit_ms=25,
        ),
        "stall": Case(
            senders=(replace(MINUTE, zero_offsets=True, stalls=((30.0, 0.5),)),),
            limit_ms=GOOD_MS,
            least=7,
        ),
        "mute_that_stops_the_clock": Case(
            senders=(replace(MINUTE, zero_offsets=True, stalls=((30.0, 10.0),)),),
            limit_ms=GOOD_MS,
            least=7,
        ),
        "dtx": Case(
            senders=(replace(MINUTE, zero_offsets=True, dtx=((20.0, 8.0),), dtx_refresh_s=None),),
            limit_ms=GOOD_MS,
        ),
        "jump": Case(
            senders=(replace(MINUTE, zero_offsets=True, jumps=((30.0, 5 * MINUTE_TICKS),)),),
            limit_ms=GOOD_MS,
        ),
        "jump_without_reports": Case(
            senders=(
                replace(
                    MINUTE,
                    zero_offsets=True,
                    jumps=((30.0, -5 * MINUTE_TICKS),),
                    report_every_s=None,
                ),
            ),
            limit_ms=GOOD_MS,
        ),
        "source_changes": Case(
            senders=(replace(MINUTE, zero_offsets=True, ssrc_changes=((30.0, 7),)),),
            limit_ms=GOOD_MS,
        ),
        "absurd_reports": Case(
            senders=(replace(MINUTE, zero_offsets=True, wall_rate=1.5),), limit_ms=GOOD_MS
        ),
    },
}


@functools.cache
def pressed_call(name: str) -> Pressed:
    """Returns one of `CALLS`, pressed once for all its cases."""
    people = []
    for number, (session, case) in enumerate(CALLS[name].items()):
        senders = [
            replace(
                sender,
                seed=100 * number + place + 1,
                markers_s=tuple(at + 0.41 * number for at in sender.markers_s),
            )
            for place, sender in enumerate(case.senders)
        ]
        people.append(Person(name=session, session=session, senders=senders))
    return press([people])


def check(pressed: Pressed, session: str, limit_ms: float, *, least: int = 3) -> None:
    """Checks that every marker is where it belongs, in the mix and in the file, and that the rows'
    own bounds hold.
    """
    track = pressed.tracks[session]
    found = find_all(pressed, session)
    assert len(found) >= least
    for one in found:
        where = f"at {(one.marker.unix_ns - CALL_START_NS) / 1e9:.2f} s of the call"
        assert one.mix.is_found, f"nothing {where}"
        assert abs(one.mix.error_ms) <= limit_ms, f"{one.mix.error_ms:+.2f} ms off {where}"
        assert abs(one.mix.error_ms) <= one.row.sync_error_ns / MS, (
            f"{one.mix.error_ms:+.2f} ms off {where}"
        )
        assert one.mix.gain < 1.3, f"{one.mix.gain:.2f} times as loud {where}"
        if one.file is not None:
            assert one.file.is_found, f"nothing in the file {where}"
            assert abs(one.file.error_ms - one.mix.error_ms) <= 10.0
    if track.mkv is not None:
        assert len(track.mkv) == track.stats.duration_samples
    assert len(pressed.mix) == pressed.stats.file.duration_samples


@functools.cache
def forty_segments() -> Pressed:
    rng = np.random.default_rng(5)
    gaps_s = [0.05, 600.0, *rng.uniform(0.05, 8, 38).tolist()]
    start_s, senders = 0.0, []
    for number, gap_s in enumerate(gaps_s):
        seconds = float(rng.uniform(4, 12))
        senders.append(
            Sender(
                seconds=seconds,
                start_s=start_s,
                seed=500 + number,
                markers_s=(0.5, seconds - 1),
                skew_ppm=80.0,
                jitter_ms=5,
                ssrc=1_000 + number,
                first_rtp_timestamp=int(rng.integers(WRAP)),
                first_sequence_number=int(rng.integers(1 << 16)),
                base_filename=f"audio_{number}",
            )
        )
        start_s += seconds + gap_s
    rng.shuffle(senders)
    return press([[Person(name="a", session="a", senders=senders, metadata_files=2)]])


def sparse(sender: Sender) -> Sender:
    """Returns a sender that is silent by DTX but for the seconds around its markers: an hour of it
    costs little.

    A refresh comes every 2 s only: each is a piece of its own for the mix.
    """
    edges = [
        0.0,
        *(edge for at in sender.markers_s for edge in (at - 1.5, at + 1.5)),
        sender.seconds,
    ]
    pauses = [
        (begin, stop - begin)
        for begin, stop in zip(edges[::2], edges[1::2], strict=True)
        if stop > begin
    ]
    return replace(sender, dtx=tuple(pauses), dtx_refresh_s=2.0)


@functools.cache
def twenty_minutes() -> Pressed:
    base = Sender(seconds=1_320, markers_s=tuple(5.0 + 60 * k for k in range(22)), jitter_ms=5)
    senders = {
        "plus_150_ppm": replace(base, skew_ppm=150.0),
        "minus_150_ppm": replace(base, skew_ppm=-150.0),
        "no_arrivals_skewed": replace(base, skew_ppm=300.0, zero_offsets=True),
        "no_arrivals_no_reports": replace(
            base, skew_ppm=-300.0, zero_offsets=True, report_every_s=None
        ),
        "no_arrivals_wall_clock_off": replace(
            base, skew_ppm=-300.0, zero_offsets=True, wall_rate=1.0003
        ),
    }
    people = [
        Person(
            name=name,
            session=name,
            senders=[
                sparse(
                    replace(
                        sender, seed=k + 1, markers_s=tuple(at + 3.5 * k for at in sender.markers_s)
                    )
                )
            ],
        )
        for k, (name, sender) in enumerate(senders.items())
    ]
    return press([people], with_mkv=False)


HOUR = Sender(seconds=3_600, markers_s=tuple(5.0 + 80 * k for k in range(44)), jitter_ms=5)
HOURS = {
    "everything": replace(
        HOUR,
        skew_ppm=300.0,
        stalls=((700.0, 0.2), (1_500.0, 0.05), (2_500.0, 0.5)),
        jumps=((1_000.0, 7 * MINUTE_TICKS),),
        ssrc_changes=((3_000.0, 99),),
        loss_ratio=0.02,
    ),
    "plus_500_ppm": replace(HOUR, skew_ppm=500.0),
    "minus_500_ppm": replace(HOUR, skew_ppm=-500.0),
    "another_headset": replace(HOUR, skew_ppm=((0.0, 20.0), (1_700.0, -60.0))),
    "another_headset_without_reports": replace(
        HOUR, skew_ppm=((0.0, 20.0), (1_700.0, -60.0)), report_every_s=None
    ),
    "warming_up": replace(
        HOUR, skew_ppm=((0.0, 30.0), (300.0, 28.0), (600.0, 26.5), (900.0, 25.5), (1_500.0, 25.0))
    ),
}


@functools.cache
def an_hour() -> Pressed:
    people = [
        Person(
            name=name,
            session=name,
            senders=[
                sparse(
                    replace(
                        sender, seed=k + 1, markers_s=tuple(at + 3.5 * k for at in sender.markers_s)
                    )
                )
            ],
        )
        for k, (name, sender) in enumerate(HOURS.items())
    ]
    return press([people], with_mkv={"everything"})


def all_cases() -> list[tuple[str, str, float]]:
    """Returns (call, session, limit in ms) of each of `CALLS`."""
    return [
        (call, session, case.limit_ms)
        for call, cases in CALLS.items()
        for session, case in cases.items()
    ]
