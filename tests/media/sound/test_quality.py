"""How a call sounds: PESQ under loss, RED bit for bit, nothing clipped, no clicks where audio ends
and begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from tests.support.builders import (
    APPLICATION_AUDIO,
    CALL_START_UNIX_MS,
    Participant,
    Pcm,
    Segment,
    encode_opus,
    make_call_archive,
    make_rtpdump,
    make_segment_dump,
    tone,
)
from tests.support.media import decode_with_ffmpeg, mix_parts, open_in, rms, run_program, stage_call
from tests.support.quality import (
    CONCEALED_SAMPLES,
    FADE_SAMPLES,
    LossScore,
    clean_step,
    decode_archive,
    decode_plainly,
    decode_segments,
    full_scale_samples,
    largest_step,
    mean_scores,
    pesq_under_loss,
    pesq_wide_band,
    random_losses,
    runs_of,
    speakers,
)
from transforms.media.extract_track import TrackStats, extract_track
from transforms.media.job import JobHost
from transforms.media.settings import Mp3Mode, Mp3Settings
from transforms.media.values import Container, PartFiles

LOOK_AHEAD = 312
TAIL_SAMPLES = 960
"""Before silence by design one packet of 20 ms is concealed and faded out."""


# --- PESQ -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scores() -> dict[bool, tuple[LossScore, ...]]:
    """Ten seconds of three voices (ITU-T P.862 asks for 8 to 12) through four patterns of 5 % loss
    each, by whether the sender adds FEC.
    """
    return {fec: pesq_under_loss(fec=fec, seconds=10) for fec in (False, True)}


@pytest.mark.slow
@pytest.mark.parametrize(("fec", "least"), [(False, 2.9), (True, 3.8)], ids=["concealed", "fec"])
def test_speech_with_5_percent_loss_stays_as_good_as_libopus_makes_it(
    scores: dict[bool, tuple[LossScore, ...]], fec: bool, least: float
) -> None:
    ours, plain = mean_scores(scores[fec])["all"]
    assert len(scores[fec]) == 12
    assert (
        sum(score.packets_lost for score in scores[fec])
        / sum(score.packets for score in scores[fec])
        > 0.04
    )
    assert ours >= least
    assert ours >= plain - 0.05


@pytest.mark.slow
def test_no_voice_and_no_pattern_of_loss_is_worse_than_the_plain_loop(
    scores: dict[bool, tuple[LossScore, ...]],
) -> None:
    for score in (*scores[False], *scores[True]):
        assert score.ours >= score.plain - 0.05, score


def test_pesq_tells_good_from_bad() -> None:
    """The measure itself: the best there is for the same, clearly less with every tenth packet
    replaced by silence.
    """
    speech = speakers()["alice"][:240_000]
    holed = speech.copy()
    for start in range(0, len(holed), 9_600):
        holed[start : start + 960] = 0
    assert pesq_wide_band(speech, speech) == pytest.approx(4.64, abs=0.01)
    assert pesq_wide_band(speech, holed) < 2


# --- RED ------------------------------------------------------------------------------------------


def extract(folder: Path, parts: Sequence[PartFiles]) -> TrackStats:
    """Writes a track to `a.mkv` in a folder."""
    return extract_track(
        JobHost(open_input=open_in(folder)), tuple(parts), folder / "a.mkv", Container.MKV, {}
    )


def demux(path: Path) -> list[bytes]:
    """Returns a file's packets as PyAV reads them."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


@dataclass(frozen=True)
class Red:
    """How a sender repeats itself, and which packets are lost."""

    copies: int
    distance: int
    burst: int
    """How many in a row may be lost so that every one has a copy that arrives."""


REDS = {"one-copy": Red(1, 1, 1), "distance-2": Red(1, 2, 2), "two-copies": Red(2, 1, 2)}


@pytest.mark.parametrize("frame_ms", [10, 20, 60])
@pytest.mark.parametrize("red", REDS.values(), ids=REDS)
def test_lost_packet_with_a_copy_is_bit_exact_in_file_and_mix(
    tmp_path: Path, red: Red, frame_ms: float
) -> None:
    speech = speakers()["bob"][:288_000]
    packets = encode_opus(speech, frame_ms=frame_ms)
    # Every few packets a burst as long as the copies bridge; the first packets and the last ones
    # all arrive.
    lost = {start + more for start in range(5, len(packets) - 8, 7) for more in range(red.burst)}
    segment = Segment(
        packets=packets,
        packet_samples=round(frame_ms * 48),
        red_copies=red.copies,
        red_distance=red.distance,
        lost=lost,
    )
    stats = extract(
        tmp_path, stage_call([Participant(participant_id="a", segments=[segment])], tmp_path)
    )
    assert stats.counts.recovered_red == stats.counts.lost == len(lost)
    assert stats.hole_samples == 0
    assert demux(tmp_path / "a.mkv") == packets
    whole = decode_segments(replace(segment, lost=()))
    assert np.array_equal(decode_segments(segment), whole)
    assert np.array_equal(
        whole[FADE_SAMPLES:],
        decode_plainly(packets, packet_samples=round(frame_ms * 48))[FADE_SAMPLES:],
    )


@pytest.mark.parametrize("percent", [5, 20])
def test_every_copy_that_arrived_is_in_the_file_under_random_loss(
    tmp_path: Path, percent: int
) -> None:
    packets = encode_opus(speakers()["carol"][:288_000])
    lost = random_losses(len(packets), percent, seed=percent)
    gone = {
        number for number in lost if number + 1 in lost
    }  # their only copy is lost with the next packet
    assert gone
    segment = Segment(packets=packets, red_copies=1, lost=lost)
    stats = extract(
        tmp_path, stage_call([Participant(participant_id="a", segments=[segment])], tmp_path)
    )
    assert stats.counts.recovered_red == len(lost) - len(gone)
    assert stats.hole_samples == 960 * len(gone)
    # A filler has a frame of 20 ms for each that is gone.
    found = [
        packet
        for packet in demux(tmp_path / "a.mkv")
        for _ in range(packet[1] if len(packet) == 2 else 1)
    ]
    assert len(found) == len(packets)
    for number, (packet, sent) in enumerate(zip(found, packets, strict=True)):
        assert (packet == sent) is (number not in gone)
    # Up to the first that is gone the mix is that of a clean line, however many were lost before.
    until = min(gone) * 960 - LOOK_AHEAD
    assert np.array_equal(
        decode_segments(segment)[:until], decode_segments(Segment(packets=packets))[:until]
    )


# --- full scale -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def six_loud(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PartFiles]]:
    """Six people who talk at the same time, each with peaks at full scale, three of them in
    stereo.
    """
    folder = tmp_path_factory.mktemp("six")
    voices = list(speakers().values())
    people = []
    for number in range(6):
        voice = voices[number % 3][number * 24_000 : number * 24_000 + 192_000]
        voice = voice / np.abs(voice).max() * np.float32(0.999)
        if number % 2:  # a little later and less loud on the right
            voice = np.concatenate([voice, np.roll(voice, 7, axis=0) * np.float32(0.8)], axis=1)
        segment = Segment(packets=encode_opus(voice, bitrate_bps=64_000), ssrc=number + 1)
        people.append(Participant(participant_id="abcdef"[number], segments=[segment]))
    return folder, stage_call(people, folder)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "settings",
    [
        Mp3Settings(bitrate_kbps=64),
        Mp3Settings(bitrate_kbps=128),
        Mp3Settings(mode=Mp3Mode.VBR, vbr_quality=2),
        Mp3Settings(mode=Mp3Mode.VBR, vbr_quality=7),
    ],
    ids=["cbr-64", "cbr-128", "vbr-2", "vbr-7"],
)
def test_six_people_at_full_level_clip_nothing(
    six_loud: tuple[Path, list[PartFiles]], tmp_path: Path, settings: Mp3Settings, channels: int
) -> None:
    folder, parts = six_loud
    path = tmp_path / "a.mp3"
    mix_parts([[part] for part in parts], folder, path, replace(settings, channels=channels))
    heard = decode_with_ffmpeg(path, channels)
    assert heard.shape == (192_000 - LOOK_AHEAD, channels)
    assert 0.8 < np.abs(heard).max() < 1.0  # as loud as it may be, no louder
    whole = run_program("ffmpeg", "-v", "error", "-i", path, "-f", "s16le", "-")
    assert full_scale_samples(np.frombuffer(whole, dtype="<i2")) == 0


# --- joins ----------------------------------------------------------------------------------------

JOIN = 150
"""Packet at which something happens to the first voice."""


def segments_with_ssrc_change(first: Segment, second: Segment) -> bytes:
    """Returns the archive of one segment in which another source takes over."""
    (one, _), (two, _) = make_segment_dump(first), make_segment_dump(second)
    records = []
    for dump, later_ms in ((one, 0), (two, second.start_ms)):
        at = dump.index(b"\n") + 17
        while at < len(dump):
            size, rtp_bytes, offset = (
                int.from_bytes(dump[at + a : at + b], "big") for a, b in ((0, 2), (2, 4), (4, 8))
            )
            records.append((offset + later_ms, dump[at + 8 : at + size], not rtp_bytes))
            at += size
    listed = replace(first, with_dump=False, base_filename="a")
    dump = make_rtpdump(CALL_START_UNIX_MS * 1_000, records)
    return make_call_archive(
        [Participant(participant_id="a", segments=[listed])], extra_members={"a.rtpdump": dump}
    )


@dataclass(frozen=True)
class Voices:
    """Two streams of one participant, and both as libopus decodes them whole."""

    one: list[bytes]
    two: list[bytes]
    whole: tuple[Pcm, Pcm]


def then(voices: Voices, later_ms: int) -> list[Segment]:
    """The second stream begins that much later than the first one ends."""
    return [
        Segment(packets=voices.one[:JOIN], ssrc=1),
        Segment(
            packets=voices.two,
            start_ms=JOIN * 20 + later_ms,
            ssrc=2,
            first_rtp_timestamp=4_294_950_000,
        ),
    ]


def withheld(packets: Sequence[bytes], count: int) -> list[bytes]:
    return [
        b"" if JOIN <= number < JOIN + count else packet for number, packet in enumerate(packets)
    ]


JOINS: dict[str, Callable[[Voices], Pcm]] = {
    "loss": lambda v: decode_segments(Segment(packets=v.one, lost={JOIN})),
    "burst": lambda v: decode_segments(Segment(packets=v.one, lost=range(JOIN, JOIN + 5))),
    "long-burst": lambda v: decode_segments(Segment(packets=v.one, lost=range(JOIN, JOIN + 15))),
    "outage": lambda v: decode_segments(Segment(packets=v.one, lost=range(JOIN, JOIN + 50))),
    "every-other-lost": lambda v: decode_segments(
        Segment(packets=v.one, lost=range(JOIN, JOIN + 20, 2))
    ),
    "dtx": lambda v: decode_segments(Segment(packets=withheld(v.one, 30))),
    "dtx-of-one": lambda v: decode_segments(Segment(packets=withheld(v.one, 1))),
    "stall": lambda v: decode_segments(Segment(packets=v.one, stalls_ms={JOIN: 300})),
    "stall-with-loss": lambda v: decode_segments(
        Segment(packets=v.one, stalls_ms={JOIN: 300}, lost={JOIN - 1, JOIN})
    ),
    "clock-falls-back": lambda v: decode_segments(Segment(packets=v.one, stalls_ms={JOIN: -150})),
    "segment-later": lambda v: decode_segments(*then(v, 200)),
    "segment-a-little-later": lambda v: decode_segments(*then(v, 3)),
    "segment-at-once": lambda v: decode_segments(*then(v, 0)),
    "segment-overlaps": lambda v: decode_segments(*then(v, -93)),
    "segment-overlaps-a-little": lambda v: decode_segments(*then(v, -7)),
    "ssrc-later": lambda v: decode_archive(segments_with_ssrc_change(*then(v, 200)))["a"],
    "ssrc-at-once": lambda v: decode_archive(segments_with_ssrc_change(*then(v, 0)))["a"],
}


@pytest.fixture(scope="module")
def tones() -> Voices:
    """Tones: any sample left out or cut off steps many times further than they do."""
    one, two = (
        encode_opus(tone(hertz, 6), application=APPLICATION_AUDIO, bitrate_bps=96_000, complexity=1)
        for hertz in (443.7, 611)
    )
    return Voices(one, two, (decode_plainly(one), decode_plainly(two)))


@pytest.fixture(scope="module")
def sentences() -> Voices:
    """Speech with the join in its loudest vowel, of the kind calls carry: hybrid frames of 32
    kbit/s.
    """
    speech = [speakers()[who] for who in ("alice", "bob")]
    loud = [int(np.abs(wave[JOIN * 960 : -192_000]).argmax()) // 960 * 960 for wave in speech]
    one, two = (
        encode_opus(wave[start : start + 288_000]) for wave, start in zip(speech, loud, strict=True)
    )
    return Voices(one, two, (decode_plainly(one), decode_plainly(two)))


@pytest.mark.parametrize("join", JOINS.values(), ids=JOINS)
@pytest.mark.parametrize("kind", ["tones", "sentences"])
def test_no_join_clicks(
    request: pytest.FixtureRequest, kind: str, join: Callable[[Voices], Pcm]
) -> None:
    voices: Voices = request.getfixturevalue(kind)
    step, allowed = largest_step(join(voices)), clean_step(*voices.whole)
    assert step <= allowed


def silent_parts(pcm: Pcm) -> list[tuple[int, int]]:
    """Returns where there is digital silence for 10 ms or more."""
    silent: npt.NDArray[np.intp] = np.flatnonzero(~pcm.any(axis=1))
    return [(start, stop) for start, stop in runs_of(silent.tolist()) if stop - start >= 480]


@pytest.mark.parametrize(
    ("name", "concealed", "hole", "rise"),
    [
        ("outage", CONCEALED_SAMPLES, 50 * 960, -LOOK_AHEAD),
        ("dtx", TAIL_SAMPLES, 30 * 960, -LOOK_AHEAD),
        ("stall", TAIL_SAMPLES, 300 * 48, -LOOK_AHEAD),
        ("segment-later", TAIL_SAMPLES, 200 * 48, 0),
    ],
)
def test_sound_fades_out_and_in_where_it_ends_and_begins(
    tones: Voices, name: str, concealed: int, hole: int, rise: int
) -> None:
    pcm = JOINS[name](tones)
    end = JOIN * 960 - LOOK_AHEAD
    # Up to the hole it is what it would be without one.
    assert np.array_equal(pcm[FADE_SAMPLES:end], tones.whole[0][FADE_SAMPLES:end])
    ((silent_from, silent_to),) = silent_parts(pcm)
    assert silent_from == pytest.approx(
        end + concealed, abs=2
    )  # the last samples of a fade may round to nothing
    # What a new run begins with is dropped with the look-ahead; within a run it is heard.
    assert silent_to == pytest.approx(JOIN * 960 + hole + rise, abs=2)
    last = pcm[silent_from - FADE_SAMPLES : silent_from]
    first = pcm[silent_to : silent_to + FADE_SAMPLES]
    for edge in (last[::-1], first):
        quarters = [rms(edge[at : at + 60]) for at in range(0, FADE_SAMPLES, 60)]
        assert quarters == sorted(quarters)
        assert quarters[0] < 0.02
    assert rms(pcm[silent_to + FADE_SAMPLES : silent_to + 4_800]) == pytest.approx(
        0.25 / np.sqrt(2), rel=0.1
    )
