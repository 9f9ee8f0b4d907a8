"""How far a run is: figures from the workers, time left, one line on a terminal of any width, lines
where there is none.
"""

from __future__ import annotations

import io
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from fcntl import ioctl
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from pipelines import progress_display, time_left
from pipelines.progress_display import RunFigures, pause_after, spell_duration
from pipelines.time_left import Phase, TimeLeft, phase_of
from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, noise
from tests.support.command import SAMPLE, callpress, press
from transforms.engine import progress

HOUR = 3600 * 48_000
MIXING = {
    "archives_found": 20, "archives": 20, "bytes_found": 10**9, "bytes_done": 10**9,
    "tracks_found": 40, "tracks": 40,
    "calls_found": 10, "calls": 4, "samples_found": 100 * HOUR, "samples_extracted": 100 * HOUR,
    "samples_measured": 40 * HOUR,
    "media_samples": 140 * HOUR,
}  # fmt: skip


@contextmanager
def _listening(listener: Callable[[str, int], None]) -> Iterator[None]:
    stop = progress.listen(listener)
    try:
        yield
    finally:
        stop()


def _write_call(
    path: Path, people: int, seconds: int, *, first: int = 0, session: str = ""
) -> None:
    packets = encode_opus(noise(10)) * (seconds // 10)
    path.parent.mkdir(exist_ok=True)
    participants = [
        Participant(
            participant_id=f"p{n}",
            segments=[Segment(packets=packets, ssrc=n + 1, base_filename=f"d{n}")],
        )
        for n in range(first, first + people)
    ]
    call = session or path.stem
    path.write_bytes(
        make_call_archive(participants, call_id=call, call_session_id=call, kind="zip")
    )


# --- the figures ----------------------------------------------------------------------------------


def test_figures_of_a_run_add_up(tmp_path: Path) -> None:
    _write_call(tmp_path / "raw/a.zip", 2, 20)
    _write_call(tmp_path / "raw/b.zip", 1, 10)
    (tmp_path / "raw/bad.zip").write_bytes(b"nothing")
    size_bytes = sum(path.stat().st_size for path in (tmp_path / "raw").iterdir())
    counts: Counter[str] = Counter()

    with _listening(lambda what, count: counts.update({what: count})):
        callpress("run", "--input", tmp_path / "raw/*", "--output", tmp_path / "out")

    assert (
        counts["archives_found"],
        counts["archives"],
        counts["archives_skipped"],
        counts["failures"],
    ) == (3, 3, 0, 1)
    assert (counts["bytes_found"], counts["bytes_done"]) == (size_bytes, size_bytes)
    assert (counts["tracks_found"], counts["tracks"], counts["calls_found"], counts["calls"]) == (
        3,
        3,
        2,
        2,
    )
    media = 50 * 48_000
    assert (
        counts["samples_unpacked"]
        == counts["samples_found"]
        == counts["samples_extracted"]
        == counts["samples_measured"]
        == media
    )
    assert counts["media_samples"] == pytest.approx(media + 30 * 48_000, abs=5_000)

    counts.clear()
    with _listening(lambda what, count: counts.update({what: count})):
        callpress("run", "--input", tmp_path / "raw/*.zip", "--output", tmp_path / "out")
    assert (counts["archives_found"], counts["archives"], counts["archives_skipped"]) == (3, 1, 2)
    assert counts["bytes_found"] == counts["bytes_done"] == len(b"nothing")


def test_earlier_archive_of_a_call_is_work_too(tmp_path: Path) -> None:
    _write_call(tmp_path / "raw/early.zip", 2, 20, session="one")
    press(tmp_path / "out", tmp_path / "raw/early.zip")
    _write_call(tmp_path / "raw/late.zip", 1, 20, first=2, session="one")
    size_bytes = sum(path.stat().st_size for path in (tmp_path / "raw").iterdir())
    counts: Counter[str] = Counter()

    with _listening(lambda what, count: counts.update({what: count})):
        press(tmp_path / "out", tmp_path / "raw/late.zip")

    assert (
        counts["archives_found"],
        counts["archives"],
        counts["calls_found"],
        counts["calls"],
    ) == (1, 1, 1, 1)
    assert counts["bytes_found"] == counts["bytes_done"] == size_bytes
    assert counts["samples_found"] == counts["samples_measured"] == 60 * 48_000


def test_figures_rise_while_one_long_call_is_at_work(tmp_path: Path) -> None:
    _write_call(tmp_path / "raw/a.zip", 3, 60)
    size_bytes = (tmp_path / "raw/a.zip").stat().st_size
    steps: dict[str, list[int]] = {}

    with _listening(lambda what, count: steps.setdefault(what, []).append(count)):
        press(tmp_path / "out", tmp_path / "raw/a.zip")

    assert max(steps["bytes_done"]) < size_bytes / 4
    assert max(steps["samples_measured"]) <= 3 * 2 * 48_000
    assert max(steps["media_samples"][3:]) <= 2 * 48_000, "a block of the mix"


# --- time left ------------------------------------------------------------------------------------


def test_phases_are_told_by_the_figures() -> None:
    assert phase_of({}) == phase_of({"archives_found": 9}) == Phase.STARTING
    assert phase_of({"bytes_found": 1}) == Phase.UNPACKING
    assert phase_of({"bytes_found": 1, "calls_found": 2}) == Phase.EXTRACTING
    assert phase_of({"calls_found": 2, "samples_measured": 1}) == Phase.MIXING
    assert phase_of({"calls_found": 2, "calls": 1}) == Phase.MIXING
    assert phase_of({"calls_found": 2, "calls": 2}) == Phase.PUBLISHING
    assert phase_of({"calls_found": 2, "calls": 2, "telling": 1}) == Phase.TELLING
    assert phase_of({"telling": 1}) == Phase.TELLING  # of a night that is quiet, what is left


def _simulate(
    core_seconds_per_hour: Mapping[Phase, float], samples_per_byte: float, calls: int = 100
) -> list[tuple[float, TimeLeft]]:
    """Runs a run of calls of ten hours of media each on one core; returns what the estimate says
    each second of it.
    """
    left = TimeLeft(1, 0.0)
    size = int(10 * HOUR / samples_per_byte)
    counts = Counter({"archives_found": calls, "bytes_found": calls * size})
    now, said = 0.0, []
    for phase in (Phase.UNPACKING, Phase.EXTRACTING, Phase.MIXING):
        if phase == Phase.EXTRACTING:
            counts.update(
                {"calls_found": calls, "tracks_found": calls, "samples_found": 10 * HOUR * calls}
            )
        seconds = core_seconds_per_hour[phase] * 10
        figure, whole = {
            Phase.UNPACKING: ("bytes_done", size),
            Phase.EXTRACTING: ("samples_extracted", 10 * HOUR),
            Phase.MIXING: ("samples_measured", 10 * HOUR),
        }[phase]
        for call in range(calls):
            begun = now
            while now < begun + seconds:
                now += 1
                counts[figure] = int(whole * (call + min(1.0, (now - begun) / seconds)))
                left.update(counts, now)
                copy = TimeLeft(1, 0.0)
                copy.percent, copy.seconds, copy.phase = left.percent, left.seconds, left.phase
                said.append((now, copy))
            if phase == Phase.UNPACKING:
                counts.update({"bytes_unpacked": size, "samples_unpacked": 10 * HOUR})
    return said


def test_time_left_is_right_where_all_is_as_expected() -> None:
    said = _simulate(time_left._CORE_SECONDS_PER_HOUR, time_left._SAMPLES_PER_BYTE)
    end = said[-1][0]

    for now, left in said[10:]:
        assert left.seconds == pytest.approx(end - now, rel=0.05, abs=10)
        assert left.percent == pytest.approx(100 * now / end, abs=5)


@pytest.mark.parametrize("slower", [0.3, 3.0])
@pytest.mark.parametrize("samples_per_byte", [4.0, 30.0])
def test_time_left_is_right_from_the_mixes_on_whatever_was_expected(
    slower: float, samples_per_byte: float
) -> None:
    took = {
        Phase.UNPACKING: time_left._CORE_SECONDS_PER_HOUR[Phase.UNPACKING] * 20,  # a slow store
        Phase.EXTRACTING: time_left._CORE_SECONDS_PER_HOUR[Phase.EXTRACTING],
        Phase.MIXING: time_left._CORE_SECONDS_PER_HOUR[Phase.MIXING] * slower,
    }
    said = _simulate(took, samples_per_byte)
    end = said[-1][0]
    mixing = [(now, left) for now, left in said if left.phase == Phase.MIXING]

    assert all(left.seconds is not None and left.seconds >= 0 for _, left in said[10:])
    percents = [left.percent or 0 for _, left in said]
    assert percents == sorted(percents)
    assert percents[-1] == 99
    for now, left in mixing[len(mixing) // 20 :]:
        assert left.seconds == pytest.approx(end - now, rel=0.1, abs=10)


def test_media_in_archives_is_learnt_from_those_unpacked() -> None:
    said = _simulate(time_left._CORE_SECONDS_PER_HOUR, samples_per_byte=30.0)
    end = said[-1][0]
    unpacking = [(now, left) for now, left in said if left.phase == Phase.UNPACKING]

    for now, left in unpacking[len(unpacking) // 2 :]:
        assert left.seconds == pytest.approx(end - now, rel=0.2)


def test_time_left_waits_for_evidence_and_for_a_phase_with_a_measure() -> None:
    left = TimeLeft(2, 100.0)
    left.update({"archives_found": 5}, 103.0)
    assert (left.phase, left.percent, left.seconds) == (Phase.STARTING, None, None)
    left.update({"bytes_found": 10**9, "bytes_done": 10**6}, 104.0)
    assert (left.phase, left.percent, left.seconds) == (Phase.UNPACKING, None, None)
    left.update({"bytes_found": 10**9, "bytes_done": 10**7}, 110.0)
    assert left.seconds is not None
    assert left.percent is not None
    left.update({"calls_found": 1, "calls": 1}, 111.0)
    assert left.phase == Phase.PUBLISHING
    assert left.seconds is None


def test_work_that_stands_still_takes_longer_and_longer() -> None:
    left = TimeLeft(1, 0.0)
    for second in range(60):
        left.update({**MIXING, "samples_measured": 40 * HOUR + second * HOUR // 10}, float(second))
    before = left.seconds
    for second in range(60, 180):
        left.update({**MIXING, "samples_measured": 46 * HOUR}, float(second))

    assert before is not None
    assert left.seconds is not None
    assert left.seconds > 1.5 * before


# --- what is shown --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "5 s"), (0.1, "5 s"), (22, "20 s"), (57, "55 s"), (58, "1 min"), (61, "1 min"), (59 * 60,
    "59 min"),
     (3599, "1 h 0 min"), (3 * 3600 + 600, "3 h 10 min"), (100 * 3600, "100 h 0 min")],
)  # fmt: skip
def test_durations_are_round(seconds: float, text: str) -> None:
    assert spell_duration(seconds) == text


def test_lines_become_rarer() -> None:
    assert [pause_after(seconds) for seconds in (10, 600, 3600, 6000, 36_000)] == [
        30,
        30,
        180,
        300,
        300,
    ]


def _figures(counts: Mapping[str, int], *, before: Mapping[str, int] | None = None) -> RunFigures:
    """Figures two minutes into a run, whose last ten seconds made what is between two sets of
    figures.
    """
    watched = RunFigures(2, 0.0)
    for what, number in (before or counts).items():
        watched.count(what, number)
    watched.look(110.0)
    for what, number in counts.items():
        watched.count(what, number - (before or counts).get(what, 0))
    watched.look(120.0)
    return watched


def test_line_holds_all_figures() -> None:
    media_samples = 140 * HOUR - 10 * 150 * 48_000
    before = {**MIXING, "samples_measured": 39 * HOUR, "media_samples": media_samples}

    line = _figures({**MIXING, "failures": 3}, before=before).line()

    assert re.fullmatch(
        r"callpress: after 2 min: mixing, \d+ %, archives 20/20, tracks 40/40, calls 4/10, "
        r"failures 3, 150 media s/s, "
        r"(\d+ h )?\d+ min left",
        line,
    )


def test_line_tells_what_is_missing() -> None:
    line = _figures({**MIXING, "failures": 3, "missing_ms": 4_460}).line()

    assert "failures 3, missing 4.5 s, " in line


def test_line_while_unpacking_tells_bytes() -> None:
    counts = {
        "archives_found": 30,
        "archives_skipped": 10,
        "archives": 5,
        "bytes_found": 10**9,
        "bytes_done": 3 * 10**8,
    }

    line = _figures(counts, before={**counts, "bytes_done": 10**8}).line()

    assert re.fullmatch(
        r"callpress: after 2 min: unpacking, \d+ %, archives 15/30, 20.0 MB/s, \d+ min left", line
    )


def test_line_before_anything_is_known_is_short() -> None:
    assert _figures({}).line() == "callpress: after 2 min: starting"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
@pytest.mark.parametrize(
    "counts", [{}, {"bytes_found": 9}, MIXING, {**MIXING, "failures": 12_345, "calls_found": 10**6}]
)
def test_bar_is_one_line_at_any_width(width: int, counts: Mapping[str, int]) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    lines = console.render_lines(_figures(counts))

    assert len(lines) == 1
    assert sum(cell_len(segment.text) for segment in lines[0]) <= width


@pytest.mark.parametrize(
    ("width", "shown"),
    [(40, ["%", "left"]), (60, ["%", "calls 4/10", "failures 2", "left"]),
     (80, ["%", "calls 4/10", "failures 2", "media s/s", "left", "━"]),
     (120, ["%", "archives 20/20", "tracks 40/40", "calls 4/10", "failures 2", "media s/s", "left",
            "━"])],
)  # fmt: skip
def test_narrow_terminal_keeps_what_tells_most(width: int, shown: list[str]) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True)
    (line,) = console.render_lines(_figures({**MIXING, "failures": 2}))
    text = "".join(segment.text for segment in line)

    assert text.startswith("mixing")
    assert [part for part in shown if part not in text] == []


def test_without_a_terminal_a_line_comes_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_display, "FIRST_LINE_SECONDS", 0.0)
    monkeypatch.setattr(progress_display, "_LINE_SECONDS", (0.0, 0.0))
    monkeypatch.setattr(progress_display, "_LOOK_SECONDS", 0.02)
    monkeypatch.setattr(time_left, "_EVIDENCE_SECONDS", 0.0)
    _write_call(tmp_path / "raw/a.zip", 2, 120)

    done = press(tmp_path / "out", tmp_path / "raw/a.zip")

    lines = done.err.splitlines()
    assert all(line.startswith("callpress: after ") for line in lines)
    assert any(re.search(r"unpacking, .*archives 0/1", line) for line in lines)
    assert any(
        re.search(
            r"mixing, \d+ %, archives 1/1, tracks 2/2, calls 0/1, \d+ media s/s, \d+ s left", line
        )
        for line in lines
    )


def _on_a_terminal(tmp_path: Path, width: int, term: str) -> str:
    """Returns what a run writes to a terminal of that width and kind."""
    main, terminal = pty.openpty()
    ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    command = [
        sys.executable,
        "-m",
        "pipelines.cli",
        "run",
        "--input",
        str(SAMPLE),
        "--output",
        str(tmp_path / "out"),
    ]
    environment = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")
    }
    process = subprocess.Popen(
        command, stderr=terminal, stdout=subprocess.DEVNULL, env={**environment, "TERM": term}
    )
    os.close(terminal)
    seen = b""
    while True:
        ready, _, _ = select.select([main], [], [], 60)
        assert ready, "no progress for a minute"
        try:
            data = os.read(main, 65536)
        except OSError:  # the other side is closed
            break
        if not data:
            break
        seen += data
    os.close(main)
    assert process.wait(60) == 0
    return seen.decode()


@pytest.mark.parametrize("width", [60, 120])
def test_a_terminal_gets_one_line_that_is_drawn_anew(tmp_path: Path, width: int) -> None:
    seen = _on_a_terminal(tmp_path, width, "xterm")

    frames = [
        re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", frame).strip("\n") for frame in seen.split("\r")
    ]
    assert any("archives 1/1" in frame for frame in frames)
    assert any("media s/s" in frame for frame in frames)
    assert max(map(cell_len, frames)) <= width
    assert not any("\n" in frame for frame in frames)


def test_a_terminal_that_cannot_draw_gets_no_bar(tmp_path: Path) -> None:
    assert "\x1b" not in _on_a_terminal(tmp_path, 80, "dumb")
