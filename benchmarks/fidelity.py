"""How well time and sound are kept: prints each figure beside what is to be reached; exits with 1
when one is missed.

    .venv/bin/python -m benchmarks.fidelity            # everything, an hour with the worlds
    .venv/bin/python -m benchmarks.fidelity speech     # rows whose name holds a word
    WORLDS=200 .venv/bin/python -m benchmarks.fidelity worlds    # fewer random calls than 2,000

Recordings are simulated, with the truth known to the sample (`tests/support`), or made of speech
that real browsers sent (`tests/support/quality.py`).
"""

from __future__ import annotations

import functools
import io
import math
import re
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks import worlds
from benchmarks.figures import Figure, Measure, at_least, at_most, none_of, print_table
from pipelines.cli import main as callpress
from tests.support import positions, quality
from tests.support.builders import Participant, Segment, encode_opus, silence
from tests.support.media import (
    decode_with_ffmpeg,
    decode_with_pyav,
    hear_parts,
    mix_parts,
    stage_call,
)
from transforms.media.settings import Mp3Settings
from transforms.media.units import SAMPLE_RATE_HZ

ROOT = Path(__file__).resolve().parent.parent
NS_PER_MS = 1_000_000


# --- time -----------------------------------------------------------------------------------------


def _errors(pressed: positions.Pressed, session: str) -> list[float]:
    """Returns how far each marker of a session is off in the mix, in ms; without end where it is
    not found.
    """
    return [
        abs(f.mix.error_ms) if f.mix.is_found else math.inf
        for f in positions.find_all(pressed, session)
    ]


def _worst_of_cases(least_ms: float, most_ms: float) -> Figure:
    cases = [
        (call, session)
        for call, session, limit in positions.all_cases()
        if least_ms < limit <= most_ms
    ]
    worst = max(
        (max(_errors(positions.pressed_call(call), session)), f"{call}, {session}")
        for call, session in cases
    )
    return at_most(worst[0], most_ms, "ms", f" in {len(cases)} sessions ({worst[1]})")


def position_lossless() -> Figure:
    return _worst_of_cases(0, positions.EXACT_MS)


def position_in_trouble() -> Figure:
    return _worst_of_cases(positions.EXACT_MS, positions.GOOD_MS)


def position_over_an_hour() -> Figure:
    pressed = positions.an_hour()
    worst = max((max(_errors(pressed, session)), session) for session in pressed.tracks)
    return at_most(
        worst[0], positions.GOOD_MS, "ms", f" in {len(pressed.tracks)} sessions ({worst[1]})"
    )


def stall_step() -> Figure:
    worst, count = 0.0, 0
    for session, case in positions.CALLS["stalls"].items():
        if case.limit_ms > positions.GOOD_MS:  # without reports a step below 60 ms cannot be known
            continue
        track = positions.pressed_call("stalls").tracks[session]
        (segment,) = track.segments
        for at_s, _ in segment.sender.stalls:
            (belongs,) = segment.server_unix_ns([round(at_s * SAMPLE_RATE_HZ)])
            off = min(abs(row.server_start_unix_ns - belongs) for row in track.stats.segments)
            worst, count = max(worst, off / NS_PER_MS), count + 1
    return at_most(worst, 20, "ms", f" in {count} steps")


def skew() -> Figure:
    worst, count = 0.0, 0
    for pressed in (positions.twenty_minutes(), positions.an_hour()):
        for track in pressed.tracks.values():
            (segment,) = track.segments
            sender = segment.sender
            if sender.zero_offsets or not isinstance(sender.skew_ppm, float):
                continue
            count += 1
            found = [row.clock_skew_ppm for row in track.stats.segments]
            off = max(math.inf if ppm is None else abs(ppm - sender.skew_ppm) for ppm in found)
            worst = max(worst, off)
    return at_most(worst, 2, "ppm", f" in {count} sessions")


def two_ways_to_call_time() -> Figure:
    worst, count = 0.0, 0
    pressed = [
        (positions.pressed_call(call), session) for call, session, _ in positions.all_cases()
    ]
    for call, session in [*pressed, (positions.an_hour(), "everything")]:
        for found in positions.find_all(call, session):
            assert found.file is not None
            worst, count = max(worst, abs(found.file.error_ms - found.mix.error_ms)), count + 1
    return at_most(worst, 10, "ms", f" in {count} places")


def error_bar() -> Figure:
    held: dict[tuple[str, str, int], bool] = {}
    calls = [(name, positions.pressed_call(name)) for name in positions.CALLS]
    for name, pressed in (
        *calls,
        ("hour", positions.an_hour()),
        ("minutes", positions.twenty_minutes()),
    ):
        for session in pressed.tracks:
            for found in positions.find_all(pressed, session):
                row = (name, session, found.row.file_start_sample)
                inside = abs(found.mix.error_ms) * NS_PER_MS <= found.row.sync_error_ns
                held[row] = held.get(row, True) and inside
    return at_least(sum(held.values()) / len(held), 0.99, f" of {len(held)} rows")


def speech_ends() -> Figure:
    audio, truth, position = [silence(1.3)], [], 1.3
    for clip in quality.sentences() * 2:
        audio += [clip, silence(1.3)]
        truth.append((position, position + len(clip) / SAMPLE_RATE_HZ))
        position += len(clip) / SAMPLE_RATE_HZ + 1.3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        segment = Segment(packets=encode_opus(np.concatenate(audio)))
        parts = stage_call([Participant(participant_id="a", segments=[segment])], folder)
        speech = hear_parts([parts], folder, None).tracks[0].speech
    found = np.stack([speech.file_start_sample, speech.file_stop_sample], axis=1) / SAMPLE_RATE_HZ
    off = (
        float(np.abs(found - np.array(truth)).max()) * 1000
        if found.shape == (len(truth), 2)
        else math.inf
    )
    return at_most(off, 100, "ms", f" at {2 * len(truth)} ends")


# --- files ----------------------------------------------------------------------------------------


def lengths() -> Figure:
    wrong = count = 0
    for pressed in map(positions.pressed_call, positions.CALLS):
        checks = [(len(pressed.mix), pressed.stats.file.duration_samples)]
        checks += [
            (len(track.mkv), track.stats.duration_samples)
            for track in pressed.tracks.values()
            if track.mkv is not None
        ]
        wrong += sum(decoded != stated for decoded, stated in checks)
        count += len(checks)
    with tempfile.TemporaryDirectory() as name, redirect_stdout(io.StringIO()):
        archives = [
            str(ROOT / "samples" / "*.tar.gz"),
            str(ROOT / "tests" / "data" / "captures" / "*.tar.gz"),
        ]
        assert (
            callpress(["run", "--input", archives[0], "--input", archives[1], "--output", name])
            == 0
        )
        for row in read_rows(Path(name), "recordings"):
            for decode in (
                decode_with_ffmpeg(row["uri"], row["channels"]),
                decode_with_pyav(row["uri"]),
            ):
                wrong += len(decode) != row["duration_samples"]
                count += 1
    return none_of(wrong, count, "decodes off by a sample or more")


def same_bytes() -> Figure:
    hashes = []
    with tempfile.TemporaryDirectory() as name, redirect_stdout(io.StringIO()):
        for workers in (1, 2, 4):
            output = Path(name, str(workers))
            pattern = str(ROOT / "tests" / "data" / "captures" / "*.tar.gz")
            arguments = [
                "--input",
                pattern,
                "--output",
                str(output),
                f"--codec-processes={workers}",
            ]
            assert callpress(["run", *arguments]) == 0
            hashes.append(
                {row["filename"]: row["sha256"] for row in read_rows(output, "recordings")}
            )
    differ = sum(len({found.get(file) for found in hashes}) > 1 for file in hashes[0])
    return none_of(differ, len(hashes[0]), "files differ between 1, 2 and 4 codec processes")


def clipped() -> Figure:
    voices = [voice / np.abs(voice).max() for voice in quality.speakers(8.0).values()] * 2
    people = [
        Participant(
            participant_id=f"p{number}", segments=[Segment(packets=encode_opus(voice), ssrc=number)]
        )
        for number, voice in enumerate(voices)
    ]
    over = total = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = stage_call(people, folder)
        for channels in (1, 2):
            mix_parts(
                [[part] for part in parts], folder, folder / "a.mp3", Mp3Settings(channels=channels)
            )
            heard = decode_with_ffmpeg(folder / "a.mp3", channels)
            over += int((np.abs(heard) >= 1.0).sum())
            total += heard.size
    return none_of(over, total, "samples")


def joins() -> Figure:
    """The largest step at a join by what the signal itself has, over loss, DTX, stalls and segments
    that meet or overlap.
    """
    voice = quality.speakers(8.0)["bob"]
    packets = encode_opus(voice)
    whole = quality.decode_segments(Segment(packets=packets))
    first = Segment(packets=packets[:150], base_filename="a")
    later = Segment(packets=packets[150:], start_ms=3_200, ssrc=9, base_filename="b")
    cases = [
        [Segment(packets=packets, lost={150})],
        [Segment(packets=packets, lost=range(150, 175))],
        [Segment(packets=[*packets[:150], *[b""] * 40, *packets[150:]])],
        [Segment(packets=packets, stalls_ms={150: 200})],
        *([first, replace(later, start_ms=at)] for at in (2_907, 2_993, 3_000, 3_200)),
    ]
    allowed = quality.clean_step(whole)
    worst = max(quality.largest_step(quality.decode_segments(*case)) / allowed for case in cases)
    return at_most(worst, 1, "of its own", f" in {len(cases)} joins")


def red_copies() -> Figure:
    packets = encode_opus(quality.speakers(8.0)["carol"])
    lost = range(10, len(packets) - 5, 9)
    segment = Segment(packets=packets, red_copies=1, lost=lost)
    heard, whole = (
        quality.decode_segments(segment),
        quality.decode_segments(replace(segment, lost=())),
    )
    return none_of(
        int((heard != whole).sum()), whole.size, f"samples differ, {len(lost)} packets lost"
    )


def loudness() -> Figure:
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for who, voice in quality.speakers(20.0).items():
            parts = stage_call(
                [Participant(participant_id=who, segments=[Segment(packets=encode_opus(voice))])],
                folder / who,
            )
            stats = mix_parts(
                [parts], folder / who, folder / f"{who}.mp3", Mp3Settings(bitrate_kbps=320)
            )
            command = [
                "ffmpeg",
                "-nostats",
                "-i",
                str(folder / f"{who}.mp3"),
                "-af",
                "ebur128",
                "-f",
                "null",
                "-",
            ]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
            assert stats.loudness_lufs is not None
            worst = max(
                worst,
                abs(stats.loudness_lufs - float(re.findall(r"I:\s+(-?[\d.]+) LUFS", said)[-1])),
            )
    return at_most(worst, 0.1, "LU", " from ffmpeg's ebur128")


# --- speech under loss ----------------------------------------------------------------------------


@functools.cache
def _pesq(*, fec: bool) -> tuple[float, float]:
    return quality.mean_scores(quality.pesq_under_loss(fec=fec))["all"]


def pesq_with_fec() -> Figure:
    return at_least(_pesq(fec=True)[0], 3.8, " PESQ-WB")


def pesq_without_fec() -> Figure:
    return at_least(_pesq(fec=False)[0], 2.9, " PESQ-WB")


def pesq_against_plain_libopus() -> Figure:
    below = max(plain - ours for ours, plain in (_pesq(fec=True), _pesq(fec=False)))
    return at_most(below, 0.05, "PESQ-WB below")


def read_rows(output: Path, table: str) -> list[dict[str, Any]]:
    files = sorted((output / "catalog" / table).rglob("*.parquet"))
    return [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]


FIGURES: dict[str, Measure] = {
    "position in the mix, lossless": position_lossless,
    "position in the mix, loss, jitter, skew, stalls": position_in_trouble,
    "position in the mix over an hour": position_over_an_hour,
    "step of a stall": stall_step,
    "skew, 22 minutes and an hour, 5 ms jitter": skew,
    "call time by MKV and rows against the MP3": two_ways_to_call_time,
    "segments rows whose sync_error_ms holds": error_bar,
    "ends of speech": speech_ends,
    "decoded length, MKV and MP3, ffmpeg and PyAV": lengths,
    "byte-identical files": same_bytes,
    "clipped samples, six at full level": clipped,
    "steps at joins": joins,
    "lost packets that RED carries": red_copies,
    "loudness": loudness,
    "speech, 5 % loss, in-band FEC": pesq_with_fec,
    "speech, 5 % loss, no FEC": pesq_without_fec,
    "speech against a plain libopus loop": pesq_against_plain_libopus,
    **worlds.FIGURES,
}


def main(words: list[str]) -> int:
    """Prints the table; returns 1 when a figure is missed."""
    return print_table(FIGURES, words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
