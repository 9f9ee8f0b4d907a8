"""What comes at once in one track: two sounds are both kept, one sound that is there twice is taken
once, and each packet is accounted for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.builders import (
    CALL_START_UNIX_MS,
    Participant,
    Pcm,
    Segment,
    encode_opus,
    make_call_archive,
    make_segment_dump,
    noise,
    tone,
)
from tests.support.media import (
    best_lag,
    decode_with_ffmpeg,
    level_at,
    load_part,
    mix_parts,
    open_in,
    part_files,
    unpack,
)
from tests.support.positions import press
from tests.support.quality import speakers
from tests.support.simulation.calls import Person
from tests.support.simulation.sender import Sender
from transforms.media.extract_track import TrackStats, extract_track, lane_path
from transforms.media.job import JobHost
from transforms.media.values import Container, PartFiles

LOW_HZ, HIGH_HZ = 440, 1_250
LOOK_AHEAD = 312
Rows = Sequence[Segment]


def stage_archives(folder: Path, *archives: Rows) -> list[PartFiles]:
    """Stages one participant's segments of each archive; nothing may fail."""
    parts = []
    for number, segments in enumerate(archives):
        archive = make_call_archive([Participant(participant_id="alice", segments=segments)])
        unpacked = unpack(archive, folder / str(number))
        assert unpacked.findings == ()
        parts += [
            PartFiles(packets=f"{number}/{part.packets}", index=f"{number}/{part.index}")
            for part in part_files(unpacked)
        ]
    return parts


def stage_one_dump(folder: Path, *segments: Segment) -> list[PartFiles]:
    """Stages several sources whose packets lie in one dump, in order of arrival."""
    records = []
    for number, segment in enumerate(segments):
        dump, _ = make_segment_dump(segment)
        at = dump.index(b"\n") + 17
        while at < len(dump):
            size = int.from_bytes(dump[at : at + 2], "big")
            offset = int.from_bytes(dump[at + 4 : at + 8], "big") + segment.start_ms
            record = dump[at : at + 4] + offset.to_bytes(4, "big") + dump[at + 8 : at + size]
            records.append((offset, number, record))
            at += size
    head, _ = make_segment_dump(segments[0])
    dump = head[: head.index(b"\n") + 17] + b"".join(
        record for _, _, record in sorted(records, key=lambda r: r[:2])
    )
    listed = Segment(packets=segments[0].packets, with_dump=False, base_filename="a")
    archive = make_call_archive(
        [Participant(participant_id="alice", segments=[listed])],
        extra_members={"a.rtpdump": dump},
    )
    unpacked = unpack(archive, folder / "0")
    assert unpacked.findings == ()
    return [
        PartFiles(packets=f"0/{part.packets}", index=f"0/{part.index}")
        for part in part_files(unpacked)
    ]


def extract(folder: Path, parts: Sequence[PartFiles]) -> TrackStats:
    """Extracts the track, and checks that each staged packet is placed or left out by name."""
    stats = extract_track(
        JobHost(open_input=open_in(folder)), tuple(parts), folder / "out.mkv", Container.MKV, {}
    )
    staged: Counter[tuple[int, str]] = Counter()
    for number, part in enumerate(parts):
        for packet_run in load_part(folder, part).packet_runs:
            staged[number, packet_run.base_filename] += packet_run.packet_count
    assert staged == sums(stats.placed) + sums(stats.left_out)
    return stats


def sums(accounts: Iterable[object]) -> Counter[tuple[int, str]]:
    found: Counter[tuple[int, str]] = Counter()
    for each in accounts:
        found[each.part, each.base_filename] += each.packet_count  # type: ignore[attr-defined]
    return found


def left_out(stats: TrackStats) -> Mapping[str, int]:
    """Returns how many packets were left out, by reason."""
    found: Counter[str] = Counter()
    for each in stats.left_out:
        found[each.reason] += each.packet_count
    return dict(found)


def files_of(stats: TrackStats, folder: Path) -> list[Pcm]:
    """Returns what each file of the track decodes to."""
    found = []
    for each in (stats, *stats.beside):
        heard = decode_with_ffmpeg(lane_path(folder / "out.mkv", each.lane), 1)
        assert len(heard) == each.duration_samples
        found.append(heard)
    return found


def mix(folder: Path, parts: Sequence[PartFiles]) -> Pcm:
    mix_parts([parts], folder, folder / "out.mp3")
    return decode_with_ffmpeg(folder / "out.mp3", 1)


def levels(pcm: Pcm, first_s: float, stop_s: float) -> tuple[bool, bool]:
    """Returns whether each tone sounds at its level from one second to another."""
    part = pcm[round(first_s * 48_000) + 2_400 : round(stop_s * 48_000) - 2_400]
    found = level_at(part, LOW_HZ), level_at(part, HIGH_HZ)
    for level in found:
        assert level < 0.03 or level == pytest.approx(0.25, abs=0.06)
    return found[0] > 0.1, found[1] > 0.1


def low(seconds: float, **fields: object) -> Segment:
    packets = encode_opus(tone(LOW_HZ, seconds))
    return Segment(**{"packets": packets, "ssrc": 1, "base_filename": "low", **fields})  # type: ignore[arg-type]


def high(seconds: float, **fields: object) -> Segment:
    packets = encode_opus(tone(HIGH_HZ, seconds))
    return Segment(**{"packets": packets, "ssrc": 2, "base_filename": "high", **fields})  # type: ignore[arg-type]


# --- two sounds -----------------------------------------------------------------------------------


def test_two_tracks_at_once_are_both_kept(tmp_path: Path) -> None:
    parts = stage_archives(
        tmp_path, [low(6, track_id="one"), high(8, track_id="two", start_ms=2_000)]
    )
    stats = extract(tmp_path, parts)
    first, second = files_of(stats, tmp_path)
    assert (levels(first, 0, 6), len(first)) == ((True, False), 6 * 48_000 - LOOK_AHEAD)
    assert (levels(second, 0, 8), len(second)) == ((False, True), 8 * 48_000 - LOOK_AHEAD)
    (beside,) = stats.beside
    assert (beside.lane, beside.track_ids, beside.ssrcs) == (1, ("two",), (2,))
    assert beside.begin_unix_ns == (CALL_START_UNIX_MS + 2_000) * 1_000_000
    assert [s.file_start_sample for s in beside.segments] == [0]
    assert left_out(stats) == {}
    heard = mix(tmp_path, parts)
    assert len(heard) == 10 * 48_000 - LOOK_AHEAD
    assert [levels(heard, *span) for span in [(0, 2), (2, 6), (6, 10)]] == [
        (True, False),
        (True, True),
        (False, True),
    ]


def test_two_sources_at_once_in_one_dump_are_both_kept(tmp_path: Path) -> None:
    parts = stage_one_dump(tmp_path, low(10), high(9, start_ms=5_000))
    stats = extract(tmp_path, parts)
    first, second = files_of(stats, tmp_path)
    assert (levels(first, 0, 10), levels(second, 0, 9)) == ((True, False), (False, True))
    assert left_out(stats) == {}
    heard = mix(tmp_path, parts)
    assert [levels(heard, *span) for span in [(0, 5), (5, 10), (10, 14)]] == [
        (True, False),
        (True, True),
        (False, True),
    ]


@pytest.mark.parametrize("is_renumbered", [False, True])
def test_two_archives_of_one_time_with_other_payloads_are_both_kept(
    tmp_path: Path, is_renumbered: bool
) -> None:
    later = high(6, start_ms=3_000, ssrc=1, first_rtp_timestamp=5 if is_renumbered else 154_000)
    parts = stage_archives(tmp_path, [low(6)], [later])
    stats = extract(tmp_path, parts)
    first, second = files_of(stats, tmp_path)
    assert (levels(first, 0, 6), levels(second, 0, 6)) == ((True, False), (False, True))
    assert [s.part for s in stats.beside[0].segments] == [1]
    heard = mix(tmp_path, parts)
    assert [levels(heard, *span) for span in [(0, 3), (3, 6), (6, 9)]] == [
        (True, False),
        (True, True),
        (False, True),
    ]


def test_same_numbers_with_other_payloads_are_both_kept(tmp_path: Path) -> None:
    parts = stage_archives(tmp_path, [low(4)], [high(4, ssrc=1, base_filename="low")])
    stats = extract(tmp_path, parts)
    first, second = files_of(stats, tmp_path)
    assert (levels(first, 0, 4), levels(second, 0, 4)) == ((True, False), (False, True))
    assert levels(mix(tmp_path, parts), 0, 4) == (True, True)


def test_payloads_that_differ_for_a_while_are_kept_beside(tmp_path: Path) -> None:
    packets = encode_opus(noise(8), bitrate_bps=64_000)
    other = [*packets[:150], *encode_opus(tone(HIGH_HZ, 3)), *packets[300:]]
    parts = stage_archives(
        tmp_path, [Segment(packets=packets)], [Segment(packets=[*other, *packets[:100]])]
    )
    stats = extract(tmp_path, parts)
    first, second = files_of(stats, tmp_path)
    assert len(first) == 10 * 48_000 - LOOK_AHEAD
    assert level_at(second[2_400:-2_400], HIGH_HZ) == pytest.approx(0.25, abs=0.06)
    assert len(second) == 3 * 48_000 - LOOK_AHEAD
    assert stats.beside[0].begin_unix_ns == (CALL_START_UNIX_MS + 3_000) * 1_000_000
    assert left_out(stats) == {"equal_duplicate": 250}
    heard = mix(tmp_path, parts)
    assert len(heard) == 10 * 48_000 - LOOK_AHEAD
    assert level_at(heard[146_400:285_600], HIGH_HZ) == pytest.approx(0.25, abs=0.06)


def test_short_overlap_leaves_the_rest_in_one_file(tmp_path: Path) -> None:
    parts = stage_one_dump(tmp_path, low(4), high(4, start_ms=3_500))
    stats = extract(tmp_path, parts)
    first, second = files_of(stats, tmp_path)
    assert [levels(first, *span) for span in [(0, 4), (4, 7.5)]] == [(True, False), (False, True)]
    assert levels(second, 0, 0.5) == (False, True)
    assert len(second) == 24_000 - LOOK_AHEAD
    assert left_out(stats) == {}


def test_beyond_the_most_lanes_it_is_told_what_is_left_out(tmp_path: Path) -> None:
    segments = [
        high(2, ssrc=number, start_ms=10 * number, base_filename=f"s{number}", track_id=str(number))
        for number in range(10)
    ]
    for number, segment in enumerate(segments):
        sound = noise(2, seed=number)
        segments[number] = Segment(**{**vars(segment), "packets": encode_opus(sound)})
    parts = stage_archives(tmp_path, segments)
    stats = extract(tmp_path, parts)
    assert len(stats.beside) == 7
    assert left_out(stats) == {"too_many_at_once": 200}
    assert {each.base_filename: each.media_samples for each in stats.left_out} == {
        "s8": 96_000,
        "s9": 96_000,
    }


# --- one sound ------------------------------------------------------------------------------------


def test_equal_payloads_of_two_archives_are_placed_once(tmp_path: Path) -> None:
    sent = noise(9)
    packets = encode_opus(sent, bitrate_bps=64_000)
    parts = stage_archives(
        tmp_path,
        [Segment(packets=packets[:300])],
        [Segment(packets=packets[150:], start_ms=3_005, first_rtp_timestamp=154_000)],
    )
    stats = extract(tmp_path, parts)
    assert stats.beside == ()
    assert left_out(stats) == {"equal_duplicate": 150}
    (heard,) = files_of(stats, tmp_path)
    assert len(heard) == pytest.approx(9 * 48_000 - LOOK_AHEAD, abs=240)
    assert best_lag(heard, sent) == 0
    mixed = mix(tmp_path, parts)
    assert np.sqrt(np.mean(mixed[148_000:280_000] ** 2)) == pytest.approx(
        np.sqrt(np.mean(mixed[8_000:140_000] ** 2)), rel=0.05
    )


def test_each_of_two_archives_mends_the_losses_of_the_other(tmp_path: Path) -> None:
    sent = noise(6)
    packets = encode_opus(sent, bitrate_bps=64_000)
    whole = extract(tmp_path, stage_archives(tmp_path, [Segment(packets=packets)]))
    (expected,) = files_of(whole, tmp_path)
    once, again = {50, 51, 52, 120, 200}, {52, 80, 250, 251}
    parts = stage_archives(
        tmp_path,
        [Segment(packets=packets, lost=once - again, base_filename="a")],
        [Segment(packets=packets, lost=again, base_filename="b", first_sequence_number=7)],
    )
    stats = extract(tmp_path, parts)
    assert stats.beside == ()
    assert left_out(stats) == {"equal_duplicate": 292}
    assert [each.lent_count for each in stats.placed] == [0, 4]
    assert (stats.media_samples, stats.hole_samples) == (300 * 960, 0)
    (heard,) = files_of(stats, tmp_path)
    np.testing.assert_array_equal(heard, expected)


def test_what_both_archives_lost_stays_lost(tmp_path: Path) -> None:
    packets = encode_opus(noise(4), bitrate_bps=64_000)
    parts = stage_archives(
        tmp_path,
        [Segment(packets=packets, lost={50, 51, 52}, base_filename="a")],
        [Segment(packets=packets, lost={51}, base_filename="b")],
    )
    stats = extract(tmp_path, parts)
    assert [each.lent_count for each in stats.placed] == [0, 2]
    assert (stats.media_samples, stats.hole_samples, stats.dtx_samples) == (199 * 960, 960, 0)


def speech(seconds: float, first_s: float = 0.0, number: int = 0) -> Pcm:
    voice = list(speakers(20.0).values())[number]
    return voice[round(first_s * 48_000) : round((first_s + seconds) * 48_000)]


@pytest.mark.parametrize("bitrate_bps", [16_000, 32_000, 64_000])
def test_source_that_takes_over_with_the_same_sound_is_placed_once(
    tmp_path: Path, bitrate_bps: int
) -> None:
    parts = stage_one_dump(
        tmp_path,
        Segment(packets=encode_opus(speech(8)), ssrc=1),
        Segment(packets=encode_opus(speech(8, 5), bitrate_bps=bitrate_bps), ssrc=2, start_ms=5_000),
    )
    stats = extract(tmp_path, parts)
    assert stats.beside == ()
    assert left_out(stats) == {"hand_over": 150}
    (heard,) = files_of(stats, tmp_path)
    assert len(heard) == 13 * 48_000 - LOOK_AHEAD
    assert best_lag(heard, speech(13)) == pytest.approx(0, abs=12)


def test_source_that_takes_over_with_another_sound_is_kept_beside(tmp_path: Path) -> None:
    parts = stage_one_dump(
        tmp_path,
        Segment(packets=encode_opus(speech(8)), ssrc=1),
        Segment(packets=encode_opus(speech(8, 5, number=1)), ssrc=2, start_ms=5_000),
    )
    stats = extract(tmp_path, parts)
    assert len(stats.beside) == 1
    assert left_out(stats) == {}


def test_same_sound_of_two_tracks_is_kept_twice(tmp_path: Path) -> None:
    parts = stage_archives(
        tmp_path,
        [
            Segment(packets=encode_opus(speech(8)), ssrc=1, track_id="one"),
            Segment(
                packets=encode_opus(speech(8, 5), bitrate_bps=24_000),
                ssrc=2,
                track_id="two",
                start_ms=5_000,
            ),
        ],
    )
    stats = extract(tmp_path, parts)
    assert len(stats.beside) == 1


def test_packet_run_that_begins_a_packet_early_follows_at_once(tmp_path: Path) -> None:
    parts = stage_archives(tmp_path, [low(3), high(3, start_ms=2_970)])
    stats = extract(tmp_path, parts)
    assert stats.beside == ()
    assert left_out(stats) == {}
    assert [s.file_start_sample for s in stats.segments] == [0, 144_000]
    assert stats.media_samples == 6 * 48_000


def test_third_recording_mends_what_two_lost_and_is_else_left_out(tmp_path: Path) -> None:
    sent = noise(6)
    packets = encode_opus(sent, bitrate_bps=64_000)
    (expected,) = files_of(
        extract(tmp_path, stage_archives(tmp_path, [Segment(packets=packets)])), tmp_path
    )
    parts = stage_archives(
        tmp_path,
        [Segment(packets=packets[:200], lost={50, 51, 52}, base_filename="a")],
        [Segment(packets=packets, lost={51, 52, 220}, base_filename="b")],
        [Segment(packets=packets, lost={52}, base_filename="c")],
        [Segment(packets=packets, base_filename="d")],
    )
    stats = extract(tmp_path, parts)
    assert [(each.base_filename, each.lent_count) for each in stats.placed] == [
        ("a", 0),
        ("b", 1),
        ("c", 2),
        ("d", 1),
    ]
    (heard,) = files_of(stats, tmp_path)
    assert len(heard) == len(expected)
    np.testing.assert_array_equal(heard[: 199 * 960], expected[: 199 * 960])


def test_one_recording_in_many_segments_is_compared_in_linear_time(tmp_path: Path) -> None:
    packets = encode_opus(noise(60))
    pieces = [
        Segment(
            packets=packets[first : first + 30],
            lost={3},
            start_ms=20 * first,
            first_rtp_timestamp=10_000 + 960 * first,
            base_filename=f"s{first}",
        )
        for first in range(0, 3_000, 30)
    ]
    parts = stage_archives(tmp_path, [Segment(packets=packets, lost=range(15, 3_000, 30))], pieces)
    stats = extract(tmp_path, parts)
    assert stats.beside == ()
    assert left_out(stats) == {"equal_duplicate": 100 * 28}
    assert sum(each.lent_count for each in stats.placed) == 100
    assert stats.hole_samples == 0


def test_segment_behind_one_of_a_fast_clock_follows_at_once_and_is_whole() -> None:
    first = Sender(seconds=120, skew_ppm=500.0, markers_s=(1.0, 60.0), base_filename="a")
    again = replace(first, seconds=20, start_s=119.95, markers_s=(5.0,), ssrc=9, base_filename="b")
    pressed = press([[Person(name="a", session="a", senders=[first, again])]])
    stats = pressed.tracks["a"].stats
    assert (stats.beside, left_out(stats)) == ((), {})
    assert stats.media_samples == 140 * 48_000
