"""One track's parts -> one individual file: what is in it, and what is said of it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.support.builders import (
    CALL_START_UNIX_MS,
    Participant,
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
    decode_with_pyav,
    hear_parts,
    loudest_hz,
    open_in,
    part_files,
    rms,
    stage_call,
    unpack,
)
from transforms.media.errors import TimelineError
from transforms.media.extract_track import TrackStats, extract_track
from transforms.media.job import JobHost
from transforms.media.lane_file import LeftOutPauses
from transforms.media.rtp.streams import PacketCounts
from transforms.media.values import Container, FileTime, PartFiles

LOOK_AHEAD = 312
CALL_START_NS = CALL_START_UNIX_MS * 1_000_000


def extract(
    folder: Path,
    parts: Sequence[PartFiles],
    *,
    write: bool = True,
    container: Container = Container.MKV,
) -> TrackStats:
    """Extracts one track to `out` in a folder."""
    return extract_track(
        JobHost(open_input=open_in(folder)),
        tuple(parts),
        folder / f"out.{container}" if write else None,
        container,
        {"title": "x"},
    )


def extract_segments(folder: Path, *segments: Segment, write: bool = True) -> TrackStats:
    """Stages the segments of one participant and extracts their track."""
    return extract(
        folder,
        stage_call([Participant(participant_id="alice", segments=segments)], folder),
        write=write,
    )


def test_clean_track_is_copied_and_described(tmp_path: Path) -> None:
    sent = noise(3)
    stats = extract_segments(
        tmp_path, Segment(packets=encode_opus(sent, bitrate_bps=96_000), start_ms=1_500, ssrc=77)
    )
    path = tmp_path / "out.mkv"
    total = 144_000 - LOOK_AHEAD
    assert stats.file is not None
    assert stats.file.size_bytes == path.stat().st_size
    assert stats.file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (stats.file.duration_samples, stats.file.channels) == (total, 1)
    assert (stats.duration_samples, stats.media_samples) == (total, 144_000)
    assert (stats.dtx_samples, stats.hole_samples) == (0, 0)
    assert stats.counts == PacketCounts(expected=150, received=150)
    assert (stats.channels, stats.codec, stats.segment_count, stats.jitter_ms) == (
        1,
        "audio/opus",
        1,
        0,
    )
    assert stats.ssrcs == (77,)
    assert stats.track_ids == ("sess-alice:TRACK_TYPE_AUDIO",)
    assert stats.begin_unix_ns == CALL_START_NS + 1_500_000_000
    (segment,) = stats.segments
    assert segment.part == 0
    assert (segment.file_start_sample, segment.file_stop_sample) == (0, 144_000)
    assert segment.server_start_unix_ns == CALL_START_NS + 1_500_000_000
    assert segment.server_stop_unix_ns == CALL_START_NS + 4_500_000_000
    assert (segment.gap_before, segment.base_filename, segment.ssrc) == (
        "none",
        "p0_track_type_audio_0",
        77,
    )
    assert (segment.track_id, segment.clock_method) == (
        "sess-alice:TRACK_TYPE_AUDIO",
        "arrival_envelope",
    )
    heard = decode_with_ffmpeg(path, 1)
    assert len(heard) == total
    assert best_lag(heard, sent) == 0


@pytest.mark.parametrize(("packets", "duration_samples"), [(1, 168), (2, 168), (3, 48), (4, 168)])
@pytest.mark.parametrize("container", list(Container))
def test_track_shorter_than_the_look_ahead_is_a_file_of_some_length(
    tmp_path: Path, packets: int, duration_samples: int, container: Container
) -> None:
    """A decoder drops the first 6.5 ms: of a packet of 2.5 ms nothing would be left, and its row
    would have a length of less than nothing.
    """
    sent = encode_opus(tone(440, 0.0025 * packets), frame_ms=2.5)
    assert len(sent) == packets
    people = [Participant(participant_id="a", segments=[Segment(packets=sent, packet_samples=120)])]
    parts = stage_call(people, tmp_path)
    stats = extract(tmp_path, parts, container=container)
    assert stats.file is not None
    assert stats.duration_samples == stats.file.duration_samples == duration_samples
    assert len(decode_with_ffmpeg(tmp_path / f"out.{container}", 1)) == duration_samples
    assert extract(tmp_path, parts, write=False).duration_samples == duration_samples


def test_measuring_without_a_file_gives_the_same_facts(tmp_path: Path) -> None:
    packets = encode_opus(tone(440, 2))
    parts = stage_call(
        [Participant(participant_id="a", segments=[Segment(packets=packets, lost={3, 4})])],
        tmp_path,
    )
    written, measured = extract(tmp_path, parts), extract(tmp_path, parts, write=False)
    assert measured.file is None
    assert (written.duration_samples, written.segments, written.counts, written.hole_samples) == (
        measured.duration_samples,
        measured.segments,
        measured.counts,
        measured.hole_samples,
    )


def test_progress_is_the_length_of_the_file(tmp_path: Path) -> None:
    parts = stage_call(
        [Participant(participant_id="a", segments=[Segment(packets=encode_opus(tone(440, 1)))])],
        tmp_path,
    )
    told: list[int] = []
    extract_track(
        JobHost(open_input=open_in(tmp_path), tell_progress=told.append),
        tuple(parts),
        None,
        Container.MKV,
        {},
    )
    assert told == [48_000 - LOOK_AHEAD]


@pytest.mark.parametrize("container", list(Container))
@pytest.mark.parametrize("channels", [1, 2])
def test_file_may_begin_before_its_first_packet(
    tmp_path: Path, container: Container, channels: int
) -> None:
    sent = noise(2, channels)
    packets = encode_opus(sent, bitrate_bps=96_000 * channels)
    parts = stage_call(
        [Participant(participant_id="a", segments=[Segment(packets=packets, start_ms=3_001)])],
        tmp_path,
    )
    path = tmp_path / f"out.{container}"
    stats = extract_track(
        JobHost(open_input=open_in(tmp_path)), tuple(parts), path, container, {}, CALL_START_NS
    )
    lead = 144_000  # 3.001 s on a grid of 2.5 ms; the row says what lies between
    assert stats.begin_unix_ns == CALL_START_NS
    assert (stats.duration_samples, stats.hole_samples) == (lead + 96_000 - LOOK_AHEAD, lead)
    (segment,) = stats.segments
    assert (segment.file_start_sample, segment.gap_before) == (lead, "none")
    assert segment.server_start_unix_ns == CALL_START_NS + 3_001_000_000
    for heard in (decode_with_ffmpeg(path, channels), decode_with_pyav(path)):
        assert heard.shape == (stats.duration_samples, channels)
        assert not heard[: lead - LOOK_AHEAD].any()
        assert best_lag(heard[lead:], sent) == 0


def test_file_never_begins_after_its_first_packet(tmp_path: Path) -> None:
    parts = stage_call(
        [Participant(participant_id="a", segments=[Segment(packets=encode_opus(tone(440, 1)))])],
        tmp_path,
    )
    stats = extract_track(
        JobHost(open_input=open_in(tmp_path)),
        tuple(parts),
        None,
        Container.MKV,
        {},
        CALL_START_NS + 10**9,
    )
    assert (stats.begin_unix_ns, stats.hole_samples) == (CALL_START_NS, 0)


def test_step_where_packets_were_lost_is_a_loss(tmp_path: Path) -> None:
    packets = encode_opus(tone(440, 6))
    stats = extract_segments(
        tmp_path, Segment(packets=packets, lost={148, 149}, stalls_ms={150: 500})
    )
    assert [s.gap_before for s in stats.segments] == ["none", "lost"]


def test_mute_is_a_hole_between_segments_of_its_length(tmp_path: Path) -> None:
    first, second = encode_opus(tone(440, 1)), encode_opus(tone(880, 1))
    stats = extract_segments(
        tmp_path,
        Segment(packets=first, ssrc=1),
        Segment(packets=second, start_ms=4_000, ssrc=2, first_rtp_timestamp=4_000_000_000),
    )
    assert [(s.file_start_sample, s.file_stop_sample, s.gap_before) for s in stats.segments] == [
        (0, 48_000, "none"),
        (192_000, 240_000, "muted"),
    ]
    assert (stats.hole_samples, stats.dtx_samples, stats.duration_samples) == (
        144_000,
        0,
        240_000 - LOOK_AHEAD,
    )
    assert (stats.ssrcs, stats.segment_count) == ((1, 2), 2)
    heard = decode_with_ffmpeg(tmp_path / "out.mkv", 1)
    assert len(heard) == stats.duration_samples
    assert loudest_hz(heard[:47_000]) == pytest.approx(440, abs=2)
    assert rms(heard[60_000:190_000]) < 0.001
    assert loudest_hz(heard[193_000:]) == pytest.approx(880, abs=2)


def test_dtx_loss_and_stall_are_counted_apart(tmp_path: Path) -> None:
    packets = encode_opus(tone(440, 6))
    packets[50:60] = [b""] * 10
    stats = extract_segments(
        tmp_path, Segment(packets=packets, lost=range(100, 110), stalls_ms={150: 500})
    )
    assert stats.dtx_samples == 9_600
    assert stats.hole_samples == 9_600 + 9_600 + 24_000
    assert stats.media_samples == 280 * 960
    assert stats.duration_samples == 300 * 960 + 24_000 - LOOK_AHEAD
    assert stats.counts == PacketCounts(expected=290, received=280, lost=10)
    assert [(s.file_start_sample, s.gap_before) for s in stats.segments] == [
        (0, "none"),
        (168_000, "stalled"),
    ]
    assert len(decode_with_pyav(tmp_path / "out.mkv")) == stats.duration_samples


def test_new_source_within_a_segment_is_a_gap_of_unknown_cause(tmp_path: Path) -> None:
    segments = [
        Segment(packets=encode_opus(tone(440, 1)), ssrc=1, base_filename="a"),
        Segment(packets=encode_opus(tone(440, 1)), ssrc=2, start_ms=3_000, base_filename="b"),
    ]
    one, _ = make_segment_dump(segments[0])
    two, _ = make_segment_dump(segments[1])
    # Joined with the second dump's offsets moved on by its later start.
    head, at, later = two.index(b"\n") + 17, 0, bytearray()
    body = two[head:]
    while at < len(body):
        size = int.from_bytes(body[at : at + 2], "big")
        offset = int.from_bytes(body[at + 4 : at + 8], "big") + 3_000
        later += body[at : at + 4] + offset.to_bytes(4, "big") + body[at + 8 : at + size]
        at += size
    archive = make_call_archive(
        [
            Participant(
                participant_id="a",
                segments=[Segment(packets=segments[0].packets, with_dump=False, base_filename="a")],
            )
        ],
        extra_members={"a.rtpdump": one + bytes(later)},
    )
    unpacked = unpack(archive, tmp_path)
    assert unpacked.findings == ()
    stats = extract(tmp_path, part_files(unpacked))
    assert [(s.ssrc, s.file_start_sample, s.gap_before) for s in stats.segments] == [
        (1, 0, "none"),
        (2, 144_000, "unknown"),
    ]


def test_parts_of_two_archives_make_one_file(tmp_path: Path) -> None:
    parts = []
    for number, (start_ms, hertz) in enumerate([(0, 440), (2_000, 880)]):
        archive = make_call_archive(
            [
                Participant(
                    participant_id="a",
                    segments=[Segment(packets=encode_opus(tone(hertz, 1)), start_ms=start_ms)],
                )
            ]
        )
        folder = tmp_path / str(number)
        (part,) = part_files(unpack(archive, folder))
        parts.append(PartFiles(packets=f"{number}/{part.packets}", index=f"{number}/{part.index}"))
    stats = extract(tmp_path, parts[::-1])
    assert [(s.file_start_sample, s.gap_before) for s in stats.segments] == [
        (0, "none"),
        (96_000, "not_recorded"),
    ]
    assert [s.part for s in stats.segments] == [1, 0]
    assert stats.counts == PacketCounts(expected=100, received=100)
    assert stats.segment_count == 2
    assert loudest_hz(decode_with_pyav(tmp_path / "out.mkv")[:47_000]) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("container", list(Container))
def test_stereo_and_container_are_kept(tmp_path: Path, channels: int, container: Container) -> None:
    packets = encode_opus(tone(440, 1, channels), bitrate_bps=64_000)
    parts = stage_call(
        [Participant(participant_id="a", segments=[Segment(packets=packets)])], tmp_path
    )
    stats = extract(tmp_path, parts, container=container)
    assert stats.channels == channels
    assert decode_with_pyav(tmp_path / f"out.{container}").shape == (48_000 - LOOK_AHEAD, channels)


def test_red_is_named_and_what_it_brought_back_counted(tmp_path: Path) -> None:
    stats = extract_segments(
        tmp_path, Segment(packets=encode_opus(tone(440, 2)), red_copies=1, lost={20, 40, 41})
    )
    assert stats.codec == "audio/red"
    assert stats.counts == PacketCounts(expected=100, received=97, lost=3, recovered_red=2)
    assert stats.media_samples == 99 * 960
    assert stats.hole_samples == 960


@pytest.mark.parametrize(
    ("bandwidth", "expected_hz"),
    [(1101, 4_000), (1102, 6_000), (1103, 8_000), (1104, 12_000), (1105, 20_000)],
)
def test_audio_bandwidth_is_what_the_encoder_was_told(
    tmp_path: Path, bandwidth: int, expected_hz: int
) -> None:
    packets = encode_opus(noise(0.5), bandwidth=bandwidth)
    stats = extract_segments(tmp_path, Segment(packets=packets), write=False)
    assert stats.audio_bandwidth_hz == expected_hz


def test_audio_bandwidth_is_the_widest_of_all_parts(tmp_path: Path) -> None:
    parts = []
    for number, bandwidth in enumerate((1101, 1103, 1102)):
        folder = tmp_path / str(number)
        folder.mkdir()
        packets = encode_opus(noise(0.5), bandwidth=bandwidth)
        segment = Segment(packets=packets, start_ms=1_000 * number, base_filename=f"s{number}")
        (part,) = stage_call([Participant(participant_id="a", segments=[segment])], folder)
        parts.append(PartFiles(packets=f"{number}/{part.packets}", index=f"{number}/{part.index}"))
    assert extract(tmp_path, parts, write=False).audio_bandwidth_hz == 8_000


@pytest.mark.parametrize(("red_copies", "expected_hz"), [(0, 4_000), (1, 20_000)])
def test_audio_bandwidth_counts_what_red_brought_back(
    tmp_path: Path, red_copies: int, expected_hz: int
) -> None:
    packets = encode_opus(noise(1), bandwidth=1101)
    packets[20] = encode_opus(noise(0.02), bandwidth=1105)[0]
    stats = extract_segments(
        tmp_path, Segment(packets=packets, lost={20}, red_copies=red_copies), write=False
    )
    assert stats.counts.recovered_red == red_copies
    assert stats.audio_bandwidth_hz == expected_hz


def test_same_parts_give_the_same_bytes(tmp_path: Path) -> None:
    parts = stage_call(
        [Participant(participant_id="a", segments=[Segment(packets=encode_opus(tone(440, 1)))])],
        tmp_path,
    )
    first, second = extract(tmp_path, parts), extract(tmp_path, parts)
    assert first == second


def test_archive_under_two_names_is_taken_and_counted_once(tmp_path: Path) -> None:
    parts = stage_call(
        [Participant(participant_id="a", segments=[Segment(packets=encode_opus(tone(440, 1)))])],
        tmp_path,
    )
    once, twice = extract(tmp_path, parts), extract(tmp_path, parts * 2)
    assert twice.file == once.file
    assert len(twice.segments) == 1
    assert twice.counts == once.counts


def test_track_without_packets_raises_timeline_error(tmp_path: Path) -> None:
    with pytest.raises(TimelineError, match=r"no packets to place, expected at least one"):
        extract(tmp_path, [])


# --- a file that would be longer than it may be ---------------------------------------------------

MINUTE_MS = 60_000


def spread_out() -> list[Participant]:
    """Returns one who speaks for a second each at 0, 20 and 30.5 minutes, and 30 s on."""
    with_pause = encode_opus(tone(1_760, 32))
    with_pause[50:1_550] = [b""] * 1_500
    segments = [
        Segment(packets=encode_opus(tone(440, 1)), start_ms=5_000, ssrc=1),
        Segment(packets=encode_opus(tone(880, 1)), start_ms=20 * MINUTE_MS, ssrc=2),
        Segment(packets=with_pause, start_ms=30 * MINUTE_MS + 30_000, ssrc=3),
    ]
    return [Participant(participant_id="alice", segments=segments)]


@pytest.mark.parametrize(
    ("allowed_seconds", "longest_seconds", "lengths_s"),
    [(1_000, 600, [1, 1, 1, 1, 32]), (20, 10, [1, 1, 1, 1, 1, 1, 1])],
    ids=["pauses over 10 min", "pauses over 10 s"],
)
@pytest.mark.parametrize("begin_unix_ns", [None, CALL_START_NS], ids=["track", "mix"])
def test_long_pauses_are_left_out_of_a_file_that_may_not_be_so_long(
    tmp_path: Path,
    allowed_seconds: int,
    longest_seconds: int,
    lengths_s: list[int],
    begin_unix_ns: int | None,
) -> None:
    """Every packet stays, a second of each pause, and the segments say when all was said."""
    parts = stage_call(spread_out(), tmp_path)
    path = tmp_path / "out.mkv"
    stats = extract_track(
        JobHost(open_input=open_in(tmp_path)),
        tuple(parts),
        path,
        Container.MKV,
        {},
        begin_unix_ns,
        allowed_seconds * 48_000,
    )
    lead_s = 0 if begin_unix_ns is None else 5
    said_s = [(5, 1), (1_200, 1), (1_830, 1), (1_861, 1)]
    assert stats.pauses_left_out == LeftOutPauses(
        longest_pause_samples=longest_seconds * 48_000,
        pause_count=2 if longest_seconds == 600 else 3,
        samples=(1_862 - 5 + lead_s) * 48_000 - stats.duration_samples - LOOK_AHEAD,
    )
    assert stats.media_samples == 4 * 48_000
    assert stats.duration_samples + LOOK_AHEAD == (lead_s + sum(lengths_s)) * 48_000
    assert stats.begin_unix_ns == CALL_START_NS + (5 - lead_s) * 10**9
    segments = stats.segments
    assert [s.gap_before for s in segments] == ["none", *["left_out"] * (len(segments) - 1)]
    assert len(segments) == (3 if longest_seconds == 600 else 4)
    heard = decode_with_ffmpeg(path, 1)
    assert len(heard) == stats.duration_samples
    for segment, (start_s, _), hz in zip(segments, said_s, (440, 880, 1_760, 1_760), strict=False):
        assert segment.server_start_unix_ns == pytest.approx(
            CALL_START_NS + start_s * 10**9, abs=5_000_000
        )
        first = segment.file_start_sample
        assert loudest_hz(heard[first + 2_000 : first + 46_000]) == pytest.approx(hz, abs=2)
        assert segment.sync_error_ns < 10**9
    for before, after in itertools.pairwise(segments):
        assert after.file_start_sample - before.file_stop_sample == 48_000
        between = heard[before.file_stop_sample + 3_000 : after.file_start_sample - 1_000]
        assert rms(between) < 1e-3


def test_file_that_may_be_as_long_as_it_is_has_all_its_pauses(tmp_path: Path) -> None:
    parts = stage_call(spread_out(), tmp_path)
    made = []
    for allowed in (None, (1_862 - 5) * 48_000):
        path = tmp_path / "out.mkv"
        stats = extract_track(
            JobHost(open_input=open_in(tmp_path)),
            tuple(parts),
            path,
            Container.MKV,
            {},
            None,
            allowed,
        )
        assert stats.pauses_left_out is None
        made.append((stats, path.read_bytes()))
    assert made[0] == made[1]


def test_pauses_left_out_move_speech_in_the_file_and_nothing_in_the_call(tmp_path: Path) -> None:
    buzz = np.sum([tone(150 * k, 3, amplitude=0.2 / k) for k in range(1, 16)], axis=0)
    said = (buzz * (1 + 2 * tone(5, 3))).astype(np.float32)
    segments = [
        Segment(packets=encode_opus(said), start_ms=start_s * 1_000, ssrc=1 + start_s)
        for start_s in (0, 700, 1_400)
    ]
    parts = stage_call([Participant(participant_id="a", segments=segments)], tmp_path)
    whole = hear_parts([parts], tmp_path, tmp_path / "a.mp3")
    times = (FileTime(longest_pause_samples=600 * 48_000),)
    short = hear_parts([parts], tmp_path, tmp_path / "a.mp3", file_times=times)
    assert short.mix == whole.mix
    (one,), (other,) = whole.tracks, short.tracks
    assert (one.loudness_lufs, one.peak_dbfs) == (other.loudness_lufs, other.peak_dbfs)
    assert one.speech.server_start_unix_ns.tolist() == other.speech.server_start_unix_ns.tolist()
    moved = one.speech.file_start_sample - other.speech.file_start_sample
    assert moved.tolist() == [0, 696 * 48_000, 2 * 696 * 48_000]
