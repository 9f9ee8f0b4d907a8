"""All tracks of a call -> one MP3: everyone at their moment, at unity gain, exact in length."""

from __future__ import annotations

import hashlib
import time
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest

from tests.support.builders import (
    CALL_START_UNIX_MS,
    Participant,
    Pcm,
    Segment,
    encode_opus,
    make_call_archive,
    noise,
    silence,
    tone,
)
from tests.support.media import (
    best_lag,
    decode_with_ffmpeg,
    decode_with_pyav,
    hear_parts,
    level_at,
    loudest_hz,
    mix_parts,
    open_in,
    part_files,
    rms,
    run_program,
    stage_call,
    unpack,
)
from transforms.media import mix_call as mix_call_module
from transforms.media.errors import RtpError, StorageError
from transforms.media.job import JobHost
from transforms.media.mix_call import MixStats, TrackToMix, mix_call
from transforms.media.opus.packet import carries_fec
from transforms.media.settings import CompositeSettings, Mp3Mode, Mp3Settings
from transforms.media.sound.decode import Repairs
from transforms.media.sound.limiter import CEILING

LOOK_AHEAD = 312
CALL_START_NS = CALL_START_UNIX_MS * 1_000_000


def mix(
    folder: Path, participants: list[Participant], settings: Mp3Settings | None = None
) -> MixStats:
    """Mixes a built call to `out.mp3` in a folder."""
    return mix_parts(
        [[part] for part in stage_call(participants, folder)], folder, folder / "out.mp3", settings
    )


def say(who: str, sent: Pcm, start_ms: int = 0, bitrate_bps: int = 64_000) -> Participant:
    packets = encode_opus(sent, bitrate_bps=bitrate_bps)
    return Participant(
        participant_id=who, segments=[Segment(packets=packets, start_ms=start_ms, ssrc=len(who))]
    )


def test_everyone_is_heard_at_their_moment(tmp_path: Path) -> None:
    stats = mix(tmp_path, [say("alice", tone(440, 3), 1_000), say("bob", tone(1_000, 3), 2_500)])
    assert stats.start_unix_ns == CALL_START_NS + 1_000_000_000
    total = 72_000 + 144_000 - LOOK_AHEAD
    assert (stats.file.duration_samples, stats.file.channels) == (total, 1)
    path = tmp_path / "out.mp3"
    assert stats.file.size_bytes == path.stat().st_size
    assert stats.file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert stats.bitrate_bps == 128_000
    heard = decode_with_ffmpeg(path, 1)
    assert len(heard) == len(decode_with_pyav(path)) == total
    assert len(run_program("mpg123", "-q", "-s", "-e", "s16", path)) == 2 * total
    only_alice, both, only_bob = heard[2_000:70_000], heard[74_000:142_000], heard[146_000:214_000]
    for span, alice, bob in ((only_alice, 0.25, 0), (both, 0.25, 0.25), (only_bob, 0, 0.25)):
        assert level_at(span, 440) == pytest.approx(alice, abs=0.03)
        assert level_at(span, 1_000) == pytest.approx(bob, abs=0.03)


@pytest.mark.parametrize("start_ms", [0, 3, 1_007])
def test_offset_between_tracks_is_exact_to_the_sample(tmp_path: Path, start_ms: int) -> None:
    sent = noise(2)
    mix(tmp_path, [say("alice", silence(0.5)), say("bob", sent, start_ms, 128_000)])
    assert best_lag(decode_with_ffmpeg(tmp_path / "out.mp3", 1), sent, 100_000) == start_ms * 48


@pytest.mark.parametrize("clock_rate_hz", [16_000, 44_100, 144_000])
def test_sender_of_another_rate_is_heard_at_its_moment_and_moves_no_beginning(
    tmp_path: Path, clock_rate_hz: int
) -> None:
    sent = noise(10)
    segment = Segment(
        packets=encode_opus(sent, bitrate_bps=128_000),
        start_ms=2_345,
        clock_rate_hz=clock_rate_hz,
        ssrc=3,
    )
    people = [
        say("alice", silence(13)),
        Participant(participant_id="bob", segments=[segment]),
    ]
    unpacked = unpack(make_call_archive(people), tmp_path)
    (finding,) = unpacked.findings
    assert isinstance(finding.error, RtpError)
    assert f"count {clock_rate_hz} ticks in a second" in finding.error.message
    stats = mix_parts([[part] for part in part_files(unpacked)], tmp_path, tmp_path / "out.mp3")
    assert stats.start_unix_ns == CALL_START_NS
    heard = decode_with_ffmpeg(tmp_path / "out.mp3", 1)
    for begin in (0, 240_000, 400_000):  # all of it, not only where it begins
        lag = best_lag(heard[begin:], sent[begin : begin + 48_000], 200_000)
        assert lag == 2_345 * 48


def test_rejoined_participant_is_placed_by_the_server_clock(tmp_path: Path) -> None:
    sent = noise(1)
    packets = encode_opus(sent, bitrate_bps=128_000)
    segments = [
        Segment(packets=encode_opus(tone(440, 1))),
        Segment(
            packets=packets,
            start_ms=2_345,
            ssrc=9,
            first_rtp_timestamp=4_294_900_000,
            sender_clock_ms=86_400_000,
        ),
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
    stats = mix(tmp_path, people, Mp3Settings(channels=channels))
    assert stats.file.channels == expected
    heard = decode_with_pyav(tmp_path / "out.mp3")
    assert heard.shape[1] == expected
    for side in range(expected):
        assert level_at(heard[5_000:40_000, side:], 440) == pytest.approx(0.25, abs=0.03)
        assert level_at(heard[5_000:40_000, side:], 1_000) == pytest.approx(0.25, abs=0.03)


def test_vbr_mix_is_exact_in_length_too(tmp_path: Path) -> None:
    stats = mix(tmp_path, [say("alice", tone(440, 2.5))], Mp3Settings(mode=Mp3Mode.VBR))
    assert stats.file.duration_samples == 120_000 - LOOK_AHEAD
    assert len(decode_with_ffmpeg(tmp_path / "out.mp3", 1)) == 120_000 - LOOK_AHEAD


@pytest.mark.parametrize(
    ("target", "makes_mix", "passes"),
    [("off", True, 1), (-16.0, True, 2), ("off", False, 2)],
    ids=["mix", "loudness", "no-mix"],
)
def test_progress_adds_up_to_what_is_heard(
    tmp_path: Path, target: Any, makes_mix: bool, passes: int
) -> None:
    """A mix is told of once, or twice for a loudness; without one both tracks are."""
    parts = stage_call([say("alice", tone(440, 2.5)), say("bob", tone(880, 2.5))], tmp_path)
    told: list[int] = []
    mix_call(
        JobHost(open_input=open_in(tmp_path), tell_progress=told.append),
        tuple(TrackToMix(parts=(part,), is_mixed=True) for part in parts),
        tmp_path / "out.mp3" if makes_mix else None,
        Mp3Settings(),
        CompositeSettings(target_lufs=target),
        {},
    )
    assert sum(told) == passes * (120_000 - LOOK_AHEAD)
    assert max(told) < 2 * 48_000


def test_threads_make_the_same_mix(tmp_path: Path) -> None:
    parts = stage_call(
        [say(f"user{n}", voice(6, 100 + 20 * n), 300 * n) for n in range(5)], tmp_path
    )
    made = []
    for threads in (1, 2, 3):
        stats = mix_call(
            JobHost(open_input=open_in(tmp_path), cores=partial(min, threads)),
            tuple(TrackToMix(parts=(part,), is_mixed=True) for part in parts),
            tmp_path / f"{threads}.mp3",
            Mp3Settings(),
            CompositeSettings(),
            {},
            uses_free_cores=True,
        )
        assert stats.mix is not None
        made.append((stats.mix, [(track.loudness_lufs, track.peak_dbfs) for track in stats.tracks]))
    assert made[0] == made[1] == made[2]


def test_cores_that_come_and_go_change_nothing_of_the_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mix_call_module, "_ASKING_SECONDS", 0.0)
    parts = stage_call(
        [say(f"user{n}", voice(6, 100 + 20 * n), 300 * n) for n in range(5)], tmp_path
    )
    asked: list[int] = []

    def cores(most: int) -> int:
        asked.append(most)
        return (1, 5, 2)[len(asked) % 3]

    made = [
        mix_call(
            JobHost(open_input=open_in(tmp_path), cores=cores),
            tuple(TrackToMix(parts=(part,), is_mixed=True) for part in parts),
            tmp_path / f"{uses_free_cores}.mp3",
            Mp3Settings(),
            CompositeSettings(),
            {},
            uses_free_cores,
        ).mix
        for uses_free_cores in (False, True)
    ]

    assert made[0] == made[1] is not None
    assert len(asked) >= 6
    assert set(asked) == {5}  # no more than it has tracks


def test_what_fails_on_a_thread_fails_the_call(tmp_path: Path) -> None:
    parts = stage_call([say("alice", tone(440, 3)), say("bob", tone(880, 3))], tmp_path)

    def open_input(name: str) -> BinaryIO:
        if name == parts[1].packets:
            raise StorageError("gone")
        return open_in(tmp_path)(name)

    with pytest.raises(StorageError, match="gone"):
        mix_call(
            JobHost(open_input=open_input, cores=lambda most: most),
            tuple(TrackToMix(parts=(part,), is_mixed=True) for part in parts),
            tmp_path / "out.mp3",
            Mp3Settings(),
            CompositeSettings(),
            {},
            uses_free_cores=True,
        )


def test_dtx_does_not_move_what_comes_after(tmp_path: Path) -> None:
    sent = np.concatenate([noise(1, seed=1), silence(5), noise(1, seed=2)])
    packets = encode_opus(sent, dtx=True, bitrate_bps=128_000)
    packets[60:280] = [b""] * 220
    mix(tmp_path, [Participant(participant_id="a", segments=[Segment(packets=packets)])])
    heard = decode_with_ffmpeg(tmp_path / "out.mp3", 1)
    assert len(heard) == 7 * 48_000 - LOOK_AHEAD
    assert best_lag(heard[280_000:], sent[280_000:]) == 0
    assert rms(heard[80_000:260_000]) < 1e-4


@pytest.mark.parametrize("target", ["off", -16.0])
def test_what_is_not_there_changes_nothing_by_not_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Any
) -> None:
    """Bytes, figures and progress are those of a mix whose every block is made."""
    loud, soft = tone(440, 2.3, amplitude=0.9), noise(1.7)
    people = [
        Participant(
            participant_id=name,
            segments=[
                Segment(packets=encode_opus(sound), start_ms=start_ms, ssrc=ssrc + number)
                for number, start_ms in enumerate(starts_ms)
            ],
        )
        for name, sound, ssrc, starts_ms in (
            ("alice", loud, 10, (0, 40_123, 90_000)),
            ("bob", soft, 20, (1_000, 60_077)),
        )
    ]
    parts = stage_call(people, tmp_path)
    made = []
    for quiet_blocks in (2, 1_000_000):
        monkeypatch.setattr("transforms.media.sound.mix._QUIET_BLOCKS", quiet_blocks)
        told: list[int] = []
        stats = mix_call(
            JobHost(open_input=open_in(tmp_path), tell_progress=told.append),
            tuple(TrackToMix(parts=(part,), is_mixed=True) for part in parts),
            tmp_path / "a.mp3",
            Mp3Settings(),
            CompositeSettings(target_lufs=target),
            {},
        )
        tracks = [(track.loudness_lufs, track.peak_dbfs) for track in stats.tracks]
        made.append((stats.mix, tracks, sum(told)))
    assert made[0] == made[1]
    assert made[0][0] is not None


def test_three_hours_of_silence_cost_next_to_nothing(tmp_path: Path) -> None:
    """One packet, three hours of nothing, one packet: 24 CPU seconds when all of it was made."""
    packet = encode_opus(noise(0.02))
    segments = [
        Segment(packets=packet),
        Segment(packets=packet, start_ms=3 * 3_600_000, ssrc=9),
    ]
    parts = stage_call([Participant(participant_id="alice", segments=segments)], tmp_path)
    started = time.process_time()
    stats = mix_parts([parts], tmp_path, tmp_path / "out.mp3")
    assert time.process_time() - started < 2
    assert stats.file.duration_samples == 3 * 3_600 * 48_000 + 960 - LOOK_AHEAD


@pytest.mark.parametrize(("allowed_ms", "is_made"), [(3_000, True), (2_999, False), (0, False)])
def test_mix_that_is_too_long_is_not_written_and_its_tracks_are_measured(
    tmp_path: Path, allowed_ms: int, is_made: bool
) -> None:
    parts = stage_call([say("alice", tone(440, 1)), say("bob", tone(880, 2), 1_000)], tmp_path)
    stats = mix_call(
        JobHost(open_input=open_in(tmp_path)),
        tuple(TrackToMix(parts=(part,), is_mixed=True) for part in parts),
        tmp_path / "out.mp3",
        Mp3Settings(),
        CompositeSettings(),
        {},
        allowed_samples=allowed_ms * 48,
    )
    assert (stats.mix is not None) == (tmp_path / "out.mp3").exists() == is_made
    assert stats.too_long_samples == (None if is_made else 3 * 48_000)
    assert [track.peak_dbfs for track in stats.tracks] == [pytest.approx(-12, abs=1)] * 2


def test_same_call_gives_the_same_bytes(tmp_path: Path) -> None:
    people = [say("alice", noise(1)), say("bob", tone(440, 1), 300)]
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    assert mix(tmp_path / "1", people).file.sha256 == mix(tmp_path / "2", people).file.sha256


# --- what is heard --------------------------------------------------------------------------------


def voice(seconds: float, amplitude: float = 0.2) -> Pcm:
    """Returns a buzz that is louder and softer five times a second, which the codec takes for a
    voice.
    """
    buzz = np.sum([tone(150 * k, seconds, amplitude=amplitude / k) for k in range(1, 16)], axis=0)
    return (buzz * (1 + 2 * tone(5, seconds))).astype(np.float32)


def test_levels_of_tracks_and_mix_are_those_of_their_audio(tmp_path: Path) -> None:
    sine = tone(1_000, 6, amplitude=10 ** (-23 / 20))
    parts = stage_call(
        [say("alice", sine), say("bob", sine * 0.5, 6_000), say("carol", silence(2))], tmp_path
    )
    stats = hear_parts([[part] for part in parts], tmp_path, tmp_path / "out.mp3")
    alice, bob, carol = stats.tracks
    # One channel of a sine at -23 dBFS has -26 LUFS (its mean square is 3 dB below its peak).
    assert alice.loudness_lufs == pytest.approx(-26, abs=0.2)
    assert alice.peak_dbfs == pytest.approx(-23, abs=0.5)
    assert bob.loudness_lufs == pytest.approx(-32, abs=0.2)
    assert carol.loudness_lufs is None
    assert stats.mix is not None
    # Half the time at -26, half at -32: the mean of the energies.
    assert stats.mix.loudness_lufs == pytest.approx(-26 + 10 * np.log10((1 + 0.25) / 2), abs=0.3)
    assert stats.mix.peak_dbfs == pytest.approx(-23, abs=0.5)


def test_speech_is_told_in_file_time_and_on_the_servers_clock(tmp_path: Path) -> None:
    sent = np.concatenate([silence(1.5), voice(2), silence(1), voice(1.2), silence(0.8)])
    segments = [
        Segment(packets=encode_opus(sent), start_ms=2_000),
        Segment(packets=encode_opus(sent), start_ms=20_000, ssrc=9),
    ]
    parts = stage_call([Participant(participant_id="a", segments=segments)], tmp_path)
    (track,) = hear_parts([parts], tmp_path, None).tracks
    truth_s = np.array([(1.5, 3.5), (4.5, 5.7), (19.5, 21.5), (22.5, 23.7)])
    file_s = (
        np.stack([track.speech.file_start_sample, track.speech.file_stop_sample], axis=1) / 48_000
    )
    assert file_s == pytest.approx(truth_s, abs=0.1)
    server_s = (
        np.stack([track.speech.server_start_unix_ns, track.speech.server_stop_unix_ns], axis=1)
        - CALL_START_NS
    ) / 1e9
    assert server_s == pytest.approx(file_s + 2, abs=0.003)
    assert track.speech.level_dbfs == pytest.approx([20 * np.log10(rms(voice(2)))] * 4, abs=1)


def test_repairs_are_counted_per_track(tmp_path: Path) -> None:
    packets = encode_opus(voice(4), fec=True, expected_loss_percent=30, bitrate_bps=32_000)
    lost = next(k for k in range(80, 120) if carries_fec(packets[k])) - 1
    one = Participant(participant_id="a", segments=[Segment(packets=packets, lost={lost})])
    two = Participant(
        participant_id="b",
        segments=[Segment(packets=encode_opus(tone(440, 4)), lost=range(50, 80), ssrc=2)],
    )
    parts = stage_call([one, two], tmp_path)
    stats = hear_parts([[part] for part in parts], tmp_path, tmp_path / "out.mp3")
    assert stats.tracks[0].repairs == Repairs(fec_packets=1, fec_samples=960)
    assert stats.tracks[1].repairs == Repairs(concealed_samples=4_800)


def test_measuring_without_a_mix_gives_the_same(tmp_path: Path) -> None:
    parts = stage_call([say("alice", voice(3)), say("bob", noise(2), 1_000)], tmp_path)
    mixed = hear_parts([[part] for part in parts], tmp_path, tmp_path / "out.mp3")
    alone = hear_parts([[part] for part in parts], tmp_path, None)
    assert alone.mix is None
    for one, other in zip(mixed.tracks, alone.tracks, strict=True):
        assert (one.loudness_lufs, one.peak_dbfs, one.repairs) == (
            other.loudness_lufs,
            other.peak_dbfs,
            other.repairs,
        )
        assert np.array_equal(one.speech.file_start_sample, other.speech.file_start_sample)


def test_track_left_out_of_the_mix_is_measured_all_the_same_and_keeps_its_start(
    tmp_path: Path,
) -> None:
    parts = stage_call([say("alice", tone(440, 2), 1_000), say("bob", tone(1_000, 2))], tmp_path)
    heard = [TrackToMix(parts=(part,), is_mixed=part is parts[0]) for part in parts]
    stats = mix_call(
        JobHost(open_input=open_in(tmp_path)),
        tuple(heard),
        tmp_path / "a.mp3",
        Mp3Settings(),
        CompositeSettings(),
        {},
    )
    assert stats.mix is not None
    assert stats.mix.start_unix_ns == CALL_START_NS
    assert stats.mix.file.duration_samples == 3 * 48_000 - LOOK_AHEAD
    sound = decode_with_ffmpeg(tmp_path / "a.mp3", 1)
    assert level_at(sound[50_000:140_000], 440) == pytest.approx(0.25, abs=0.03)
    assert level_at(sound[50_000:90_000], 1_000) < 0.001
    assert stats.tracks[1].loudness_lufs is not None


def test_mix_of_a_lone_packet_shorter_than_the_look_ahead_has_some_length(tmp_path: Path) -> None:
    sent = encode_opus(tone(440, 0.0025), frame_ms=2.5)
    made = mix(
        tmp_path,
        [Participant(participant_id="a", segments=[Segment(packets=sent, packet_samples=120)])],
    )
    assert made.file.duration_samples == len(decode_with_ffmpeg(tmp_path / "out.mp3", 1)) == 168
    assert made.peak_dbfs is None


def test_call_of_sent_silence_has_no_peak(tmp_path: Path) -> None:
    """What a decoder makes of a packet that holds silence is not quite zero."""
    stats = hear_parts(
        [stage_call([say("alice", silence(2))], tmp_path)], tmp_path, tmp_path / "a.mp3"
    )
    (track,) = stats.tracks
    assert (track.peak_dbfs, track.loudness_lufs) == (None, None)
    assert stats.mix is not None
    assert (stats.mix.peak_dbfs, stats.mix.loudness_lufs) == (None, None)


def test_call_of_which_nothing_is_mixed_has_no_mix(tmp_path: Path) -> None:
    parts = stage_call([say("alice", tone(440, 1))], tmp_path)
    stats = hear_parts([parts], tmp_path, tmp_path / "a.mp3", is_mixed=False)
    assert stats.mix is None
    assert not (tmp_path / "a.mp3").exists()


@pytest.mark.parametrize("target_lufs", [-30.0, -23.0, -20])
def test_mix_is_brought_to_the_loudness_asked_for(tmp_path: Path, target_lufs: float) -> None:
    parts = stage_call([say("alice", voice(5, 0.05)), say("bob", voice(4, 0.1), 6_000)], tmp_path)
    tracks = [[part] for part in parts]
    plain = hear_parts(tracks, tmp_path, tmp_path / "plain.mp3")
    stats = hear_parts(
        tracks, tmp_path, tmp_path / "out.mp3", composite=CompositeSettings(target_lufs=target_lufs)
    )
    assert stats.mix is not None
    assert stats.mix.loudness_lufs == pytest.approx(target_lufs, abs=0.2)
    assert stats.mix.peak_dbfs is not None
    assert stats.mix.peak_dbfs <= -0.99
    assert [track.loudness_lufs for track in stats.tracks] == [
        track.loudness_lufs for track in plain.tracks
    ]
    assert len(decode_with_ffmpeg(tmp_path / "out.mp3", 1)) == stats.mix.file.duration_samples


def test_faint_call_is_not_blown_up_into_noise(tmp_path: Path) -> None:
    parts = stage_call([say("alice", noise(5, amplitude=0.001))], tmp_path)
    plain = hear_parts([parts], tmp_path, tmp_path / "plain.mp3").mix
    stats = hear_parts(
        [parts], tmp_path, tmp_path / "out.mp3", composite=CompositeSettings(target_lufs=-16.0)
    ).mix
    assert plain is not None
    assert plain.loudness_lufs is not None
    assert stats is not None
    assert stats.loudness_lufs == pytest.approx(plain.loudness_lufs + 20, abs=0.1)


def test_stereo_track_is_measured_in_stereo_also_for_a_mono_mix(tmp_path: Path) -> None:
    sent = np.concatenate([tone(440, 3), tone(1_000, 3)], axis=1)
    parts = stage_call([say("alice", sent)], tmp_path)
    stereo = hear_parts([parts], tmp_path, tmp_path / "2.mp3", Mp3Settings(channels=2))
    mono = hear_parts([parts], tmp_path, tmp_path / "1.mp3", Mp3Settings(channels=1))
    assert mono.tracks[0].loudness_lufs == stereo.tracks[0].loudness_lufs
    sound = decode_with_ffmpeg(tmp_path / "1.mp3", 1)[5_000:100_000]
    assert level_at(sound, 440) == pytest.approx(0.125, abs=0.02)
    assert level_at(sound, 1_000) == pytest.approx(0.125, abs=0.02)


def test_mix_is_the_same_where_no_figures_are_wanted(tmp_path: Path) -> None:
    people = [say("alice", tone(440, 2), 1_000), say("bob", noise(2), 2_500)]
    tracks = tuple(
        TrackToMix(parts=(part_files,), is_mixed=True)
        for part_files in stage_call(people, tmp_path)
    )
    found = {}
    for measures in (True, False):
        path = tmp_path / f"{measures}.mp3"
        found[measures] = mix_call(
            JobHost(open_input=open_in(tmp_path)),
            tracks,
            path,
            Mp3Settings(),
            CompositeSettings(),
            {},
            measures=measures,
        )
    assert len(found[True].tracks) == 2
    assert found[False].tracks == ()
    with_figures, without = found[True].mix, found[False].mix
    assert with_figures is not None
    assert without is not None
    assert with_figures.file == without.file
    assert with_figures.loudness_lufs is not None
    assert without.loudness_lufs is None
