"""Calls captured from real browsers: packet counts, lengths, places and stalls as they are known to
be.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.support.media import (
    CAPTURES,
    SAMPLES,
    decode_with_ffmpeg,
    decode_with_pyav,
    load_part,
    mix_parts,
    open_in,
    pieces_of,
    rms,
    run_program,
    staged_packet_run,
    unpack,
)
from transforms.media.extract_track import extract_track
from transforms.media.job import JobHost
from transforms.media.track.staged_packets import PartIndex
from transforms.media.unpack_archive import UnpackedArchive
from transforms.media.values import Container, OutputType, PartFiles

LOOK_AHEAD = 312
ARCHIVES = {
    "weekly_sync": SAMPLES / "weekly_sync.tar.gz",
    "dtx_stalls": CAPTURES / "capture_dtx_stalls.tar.gz",
    "stereo_stalls": CAPTURES / "capture_stereo_stalls.tar.gz",
}


@dataclass(frozen=True)
class Known:
    """What is known of one captured track."""

    archive: str
    who: str
    packets: int
    media_ms: int
    """From the first packet's start to the last one's end on the sender's media clock."""
    probes: int = 0
    stalled_ms: int = 0
    """By the arrivals, as far as sender reports confirm it or the step is 60 ms or more."""
    doubtful_ms: int = 0
    """Of smaller steps before the first sender report: path or stall, nobody knows."""
    channels: int = 1
    packet_samples: int = 960
    shares_screen: bool = False


TRACKS = (
    Known("weekly_sync", "alice", 2_198, 43_960),
    Known("weekly_sync", "bob", 1_902, 38_040),
    Known("weekly_sync", "carol", 1_499, 29_980),
    Known("weekly_sync", "dave", 1_396, 27_920),
    Known("weekly_sync", "dave", 1_391, 27_820, shares_screen=True),
    Known("dtx_stalls", "alice", 1_342, 44_900, stalled_ms=510),
    Known("dtx_stalls", "bob", 1_009, 39_800, stalled_ms=361, doubtful_ms=40),
    Known("dtx_stalls", "carol", 470, 33_840, probes=46, stalled_ms=260, packet_samples=2_880),
    Known("dtx_stalls", "dave", 862, 24_880, stalled_ms=90, doubtful_ms=40),
    Known(
        "stereo_stalls",
        "alice",
        1_814,
        35_360,
        probes=46,
        stalled_ms=550,
        doubtful_ms=49,
        channels=2,
    ),
    Known("stereo_stalls", "bob", 573, 31_560, probes=47, stalled_ms=460, packet_samples=2_880),
    Known("stereo_stalls", "carol", 2_779, 27_790, stalled_ms=190, channels=2, packet_samples=480),
)
tracks = pytest.mark.parametrize(
    "known",
    [pytest.param(t, id=f"{t.archive}-{t.who}{'-screen' * t.shares_screen}") for t in TRACKS],
)


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[UnpackedArchive, Path]]:
    """All captures, unpacked once each into their own folders."""
    found = {}
    for name, path in ARCHIVES.items():
        folder = tmp_path_factory.mktemp(name)
        found[name] = (unpack(path.read_bytes(), folder), folder)
    return found


Unpacked = dict[str, tuple[UnpackedArchive, Path]]


def find(unpacked: Unpacked, known: Known) -> tuple[PartFiles, PartIndex, Path]:
    archive, folder = unpacked[known.archive]
    wanted = OutputType.SCREENSHARE_AUDIO_ONLY if known.shares_screen else OutputType.AUDIO_ONLY
    (part,) = [
        part
        for session in archive.sessions
        for part in session.parts
        if session.key.participant_id == known.who and part.track.output_type == wanted
    ]
    files = PartFiles(packets=part.packets_file, index=part.index_file)
    return files, load_part(folder, files), folder


@pytest.mark.parametrize(
    ("name", "members", "people"),
    [("weekly_sync", 14, 4), ("dtx_stalls", 12, 4), ("stereo_stalls", 9, 3)],
)
def test_capture_is_read_without_a_failure(
    unpacked: Unpacked, name: str, members: int, people: int
) -> None:
    archive, _ = unpacked[name]
    assert archive.findings == ()
    assert archive.member_count == members
    assert len(archive.sessions) == people
    expected = {(t.who, t.shares_screen) for t in TRACKS if t.archive == name}
    assert sum(len(session.parts) for session in archive.sessions) == len(expected)


@tracks
def test_packets_are_counted_as_known(unpacked: Unpacked, known: Known) -> None:
    _, index, _ = find(unpacked, known)
    assert (index.counts.expected, index.counts.received) == (known.packets, known.packets)
    assert (index.counts.lost, index.counts.duplicate, index.counts.invalid) == (0, 0, 0)
    assert (
        sum(packet_run.packet_count for packet_run in index.packet_runs)
        == known.packets - known.probes
    )
    assert (index.channels, index.codec) == (known.channels, "audio/opus")


@tracks
def test_media_time_is_as_known(unpacked: Unpacked, known: Known) -> None:
    files, index, folder = find(unpacked, known)
    (packet_run,) = index.packet_runs
    assert packet_run.media_stop_sample == known.media_ms * 48
    with open_in(folder)(files.packets) as file:
        packets = staged_packet_run(file, packet_run)
    assert {duration for _, duration, _, _ in packets} == {known.packet_samples}
    assert (np.diff([at for at, _, _, _ in packets]) > 0).all()


@tracks
def test_stalls_that_count_are_followed(unpacked: Unpacked, known: Known) -> None:
    """A step counts when sender reports confirm it, or from 60 ms. What stays in doubt is never put
    in with a later step, and is owned up to wherever it may count: before it and behind it.
    """
    _, index, _ = find(unpacked, known)
    pieces = pieces_of(index.packet_runs[0].clock)
    first, last = pieces[0], pieces[-1]
    grown_ns = (
        last.server_start_unix_ns
        - first.server_start_unix_ns
        - last.media_start_sample * 1_000_000_000 // 48_000
    )
    assert grown_ns / 1_000_000 == pytest.approx(known.stalled_ms, abs=3)
    assert (len(pieces) > 1) is (known.stalled_ms > 0)
    assert min(piece.sync_error_ns for piece in pieces) >= known.doubtful_ms * 1_000_000


def test_people_join_when_they_did(unpacked: Unpacked) -> None:
    """First packets arrive 2.487 s after the start of the call, and 2.65, 7.32 and 12.15 s after
    that one.
    """
    archive, _ = unpacked["weekly_sync"]
    arrivals = []
    for session in archive.sessions:
        assert session.call_start_unix_ns is not None
        (part,) = [
            part for part in session.parts if part.track.output_type == OutputType.AUDIO_ONLY
        ]
        arrivals.append((part.first_server_unix_ns - session.call_start_unix_ns) / 1e9 + 0.020)
    assert arrivals[0] == pytest.approx(2.487, abs=0.015)
    assert [at - arrivals[0] for at in arrivals[1:]] == pytest.approx([2.65, 7.32, 12.15], abs=0.03)


@tracks
@pytest.mark.parametrize("container", [Container.MKV, Container.OGG])
def test_individual_file_is_exact_in_length_and_sounds(
    unpacked: Unpacked, known: Known, container: Container, tmp_path: Path
) -> None:
    files, _, folder = find(unpacked, known)
    path = tmp_path / f"a.{container}"
    stats = extract_track(
        JobHost(open_input=open_in(folder)), (files,), path, container, {"title": known.who}
    )
    total = stats.duration_samples
    assert total / 48 == pytest.approx(known.media_ms + known.stalled_ms, abs=30)
    assert stats.media_samples + stats.hole_samples == total + LOOK_AHEAD
    heard = decode_with_pyav(path)
    assert heard.shape == (total, known.channels)
    assert len(decode_with_ffmpeg(path, known.channels)) == total
    assert rms(heard) > 0.005


def test_mix_of_the_sample_is_the_call(unpacked: Unpacked, tmp_path: Path) -> None:
    archive, folder = unpacked["weekly_sync"]
    parts = [
        PartFiles(packets=part.packets_file, index=part.index_file)
        for session in archive.sessions
        for part in session.parts
    ]
    path = tmp_path / "a.mp3"
    stats = mix_parts([[part] for part in parts], folder, path)
    first = min(part.first_server_unix_ns for session in archive.sessions for part in session.parts)
    # The first time of a part is one at the nominal rate.
    assert stats.start_unix_ns == pytest.approx(first, abs=100_000)
    # alice, bob, carol and dave leave within milliseconds of each other; alice's audio lasts 43.96
    # s.
    assert stats.file.duration_samples / 48_000 == pytest.approx(43.96, abs=0.1)
    assert len(decode_with_ffmpeg(path, 1)) == stats.file.duration_samples
    assert (
        len(run_program("mpg123", "-q", "-s", "-e", "s16", path)) == 2 * stats.file.duration_samples
    )
