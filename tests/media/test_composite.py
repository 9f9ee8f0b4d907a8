"""All tracks of a call -> one MP3: everyone at their moment, at unity gain, exact in length."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.builders import CALL_START_UNIX_MS, Participant, Pcm, Segment, encode_opus, noise, silence, tone
from tests.media.helpers import (
    best_lag,
    decode_with_ffmpeg,
    decode_with_pyav,
    level_at,
    loudest_hz,
    open_in,
    rms,
    run_program,
    stage_call,
)
from transforms.media.composite import MixedCallFacts, mix_call
from transforms.media.errors import TimelineError
from transforms.media.extract import PartFiles
from transforms.media.mix import CEILING
from transforms.media.model import Mp3Mode, Mp3Settings

LOOK_AHEAD = 312
CALL_START_NS = CALL_START_UNIX_MS * 1_000_000


def mix(folder: Path, participants: list[Participant], settings: Mp3Settings | None = None) -> MixedCallFacts:
    """Mixes a built call to `out.mp3` in a folder."""
    parts = stage_call(participants, folder)
    return mix_call(
        tuple((part,) for part in parts),
        folder / "out.mp3",
        settings or Mp3Settings(),
        {"title": "x"},
        open_input=open_in(folder),
        on_progress=lambda samples: None,
    )


def say(who: str, sent: Pcm, start_ms: int = 0, bitrate_bps: int = 64_000) -> Participant:
    packets = encode_opus(sent, bitrate_bps=bitrate_bps)
    return Participant(participant_id=who, segments=[Segment(packets=packets, start_ms=start_ms, ssrc=len(who))])


def test_everyone_is_heard_at_their_moment(tmp_path: Path) -> None:
    facts = mix(tmp_path, [say("alice", tone(440, 3), 1_000), say("bob", tone(1_000, 3), 2_500)])
    assert facts.start_unix_ns == CALL_START_NS + 1_000_000_000
    total = 72_000 + 144_000 - LOOK_AHEAD
    assert (facts.file.duration_samples, facts.file.channels) == (total, 1)
    path = tmp_path / "out.mp3"
    assert facts.file.size_bytes == path.stat().st_size
    assert facts.file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts.bitrate_bps == 128_000
    heard = decode_with_ffmpeg(path, 1)
    assert len(heard) == len(decode_with_pyav(path)) == total
    assert len(run_program("mpg123", "-q", "-s", "-e", "s16", path)) == 2 * total
    only_alice, both, only_bob = heard[2_000:70_000], heard[74_000:142_000], heard[146_000:214_000]
    for stretch, alice, bob in ((only_alice, 0.25, 0), (both, 0.25, 0.25), (only_bob, 0, 0.25)):
        assert level_at(stretch, 440) == pytest.approx(alice, abs=0.03)
        assert level_at(stretch, 1_000) == pytest.approx(bob, abs=0.03)


@pytest.mark.parametrize("start_ms", [0, 3, 1_007])
def test_offset_between_tracks_is_exact_to_the_sample(tmp_path: Path, start_ms: int) -> None:
    sent = noise(2)
    mix(tmp_path, [say("alice", silence(0.5)), say("bob", sent, start_ms, 128_000)])
    assert best_lag(decode_with_ffmpeg(tmp_path / "out.mp3", 1), sent, 100_000) == start_ms * 48


def test_rejoined_participant_is_placed_by_the_server_clock(tmp_path: Path) -> None:
    sent = noise(1)
    packets = encode_opus(sent, bitrate_bps=128_000)
    segments = [
        Segment(packets=encode_opus(tone(440, 1))),
        Segment(packets=packets, start_ms=2_345, ssrc=9, first_rtp_timestamp=4_294_900_000, sender_clock_ms=86_400_000),
    ]
    mix(tmp_path, [Participant(participant_id="alice", segments=segments)])
    assert best_lag(decode_with_ffmpeg(tmp_path / "out.mp3", 1), sent, 200_000) == 2_345 * 48


def test_loud_sum_stays_below_full_scale(tmp_path: Path) -> None:
    people = [say(name, tone(440, 2, amplitude=0.7)) for name in ("a", "bb", "ccc", "dddd")]
    mix(tmp_path, people, Mp3Settings(bitrate_kbps=320))
    heard = decode_with_ffmpeg(tmp_path / "out.mp3", 1)[10_000:-10_000]
    assert np.abs(heard).max() < 1
    assert np.abs(heard).max() == pytest.approx(CEILING, abs=0.03)
    assert loudest_hz(heard) == pytest.approx(440, abs=2)


@pytest.mark.parametrize(
    ("channels", "sent_channels", "expected"),
    [("auto", 1, 1), ("auto", 2, 2), (1, 2, 1), (2, 1, 2)],
    ids=["mono", "stereo", "folded", "doubled"],
)
def test_channels_are_the_widest_voice_s_or_as_asked(
    tmp_path: Path, channels: str | int, sent_channels: int, expected: int
) -> None:
    people = [say("alice", tone(440, 1, sent_channels)), say("bob", tone(1_000, 1))]
    facts = mix(tmp_path, people, Mp3Settings(channels=channels))
    assert facts.file.channels == expected
    heard = decode_with_pyav(tmp_path / "out.mp3")
    assert heard.shape[1] == expected
    for side in range(expected):
        assert level_at(heard[5_000:40_000, side:], 440) == pytest.approx(0.25, abs=0.03)
        assert level_at(heard[5_000:40_000, side:], 1_000) == pytest.approx(0.25, abs=0.03)


def test_vbr_mix_is_exact_in_length_too(tmp_path: Path) -> None:
    facts = mix(tmp_path, [say("alice", tone(440, 2.5))], Mp3Settings(mode=Mp3Mode.VBR))
    assert facts.file.duration_samples == 120_000 - LOOK_AHEAD
    assert len(decode_with_ffmpeg(tmp_path / "out.mp3", 1)) == 120_000 - LOOK_AHEAD


def test_progress_adds_up_to_the_mix(tmp_path: Path) -> None:
    parts = stage_call([say("alice", tone(440, 2.5))], tmp_path)
    told: list[int] = []
    mix_call(
        ((parts[0],),),
        tmp_path / "out.mp3",
        Mp3Settings(),
        {},
        open_input=open_in(tmp_path),
        on_progress=told.append,
    )
    assert told == [48_000, 48_000, 24_000 - LOOK_AHEAD]


def test_dtx_does_not_move_what_comes_after(tmp_path: Path) -> None:
    sent = np.concatenate([noise(1, seed=1), silence(5), noise(1, seed=2)])
    packets = encode_opus(sent, dtx=True, bitrate_bps=128_000)
    packets[60:280] = [b""] * 220
    mix(tmp_path, [Participant(participant_id="a", segments=[Segment(packets=packets)])])
    heard = decode_with_ffmpeg(tmp_path / "out.mp3", 1)
    assert len(heard) == 7 * 48_000 - LOOK_AHEAD
    assert best_lag(heard[280_000:], sent[280_000:]) == 0
    assert rms(heard[80_000:260_000]) < 1e-4


def test_same_call_gives_the_same_bytes(tmp_path: Path) -> None:
    people = [say("alice", noise(1)), say("bob", tone(440, 1), 300)]
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    assert mix(tmp_path / "1", people).file.sha256 == mix(tmp_path / "2", people).file.sha256


def test_call_without_packets_raises_timeline_error(tmp_path: Path) -> None:
    nothing: tuple[tuple[PartFiles, ...], ...] = ((), ())
    with pytest.raises(TimelineError, match=r"no packets to mix, expected at least one track with audio"):
        mix_call(
            nothing,
            tmp_path / "out.mp3",
            Mp3Settings(),
            {},
            open_input=open_in(tmp_path),
            on_progress=lambda samples: None,
        )
