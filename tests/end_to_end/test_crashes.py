"""Codec processes that die in a run: the culprit is named after a second try alone, everything else
is pressed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, noise, tone
from tests.support.command import callpress, query
from tests.support.processes import children_of, is_running, wait_until

SABOTAGE = Path(__file__).parent / "sabotage"
MARKED_BYTES = 1213
"""A length that no packet of an encoder here has."""


def pad_packet(packet: bytes, size: int) -> bytes:
    """Returns an Opus packet of one frame with padding (RFC 6716 s3.2.5): longer, and the same to
    hear.
    """
    assert packet[0] & 3 == 0
    for length_bytes in range(1, 10):
        padding = size - len(packet) - 1 - length_bytes
        if -(-(padding - 254) // 254) + 1 <= length_bytes:
            lengths = [255] * (length_bytes - 1)
            return (
                bytes([packet[0] | 3, 0x41, *lengths, padding - 254 * len(lengths)])
                + packet[1:]
                + bytes(padding)
            )
    raise AssertionError(size)


def _write_calls(folder: Path) -> None:
    """Three calls; the packets of one hold one of a length of its own, and it alone is in
    stereo.
    """
    folder.mkdir()
    for number, name in enumerate(("first", "marked", "last")):
        packets = list(encode_opus(tone(300 + 100 * number, 2, channels=1 + (name == "marked"))))
        if name == "marked":
            packets[50] = pad_packet(packets[50], MARKED_BYTES)
        people = [Participant(participant_id=name, segments=[Segment(packets=packets)])]
        (folder / f"{name}.tar.gz").write_bytes(
            make_call_archive(people, call_id=name, call_session_id=name)
        )


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    _write_calls(tmp_path / "raw")
    return tmp_path / "raw"


@pytest.fixture
def crash(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_up(what: str, once: Path | None = None) -> None:
        monkeypatch.setenv("PYTHONPATH", str(SABOTAGE))
        monkeypatch.setenv("CALLPRESS_TEST_CRASH", what)
        if once is not None:
            monkeypatch.setenv("CALLPRESS_TEST_CRASH_ONCE", str(once))

    return set_up


@pytest.mark.slow
@pytest.mark.parametrize("what", [f"decode:{MARKED_BYTES}", "encode:2"], ids=["libopus", "lame"])
def test_native_crash_is_a_row_of_its_recording_and_the_rest_is_pressed(
    raw: Path, tmp_path: Path, crash: Callable[..., None], what: str
) -> None:
    crash(what)
    out = tmp_path / "out"

    done = callpress("run", "--input", raw / "*", "--output", out)

    assert done.status == 1
    assert "Traceback" not in done.out + done.err
    (failure,) = query(out / "catalog", "failures")
    assert (failure["stage"], failure["error_type"], failure["call_id"]) == (
        "MixCalls",
        "CodecProcessError",
        "marked",
    )
    assert (
        failure["message"]
        == "the codec process died with signal SIGSEGV, and again when tried alone"
    )
    assert failure["retryable"]
    calls = {row["call_id"]: row["status"] for row in query(out / "catalog", "calls")}
    assert calls == {"first": "ok", "marked": "partial", "last": "ok"}
    made = {(row["call_id"], row["recording_type"]) for row in query(out / "catalog", "recordings")}
    assert made == {(name, kind) for name in calls for kind in ("individual", "composite")} - {
        ("marked", "composite")
    }
    archives = {
        Path(row["archive_uri"]).name: (row["status"], row["error_type"])
        for row in query(out / "catalog", "archives")
    }
    assert archives["marked.tar.gz"] == ("partial", "CodecProcessError")


@pytest.mark.slow
def test_crash_that_does_not_come_again_leaves_no_trace(
    raw: Path, tmp_path: Path, crash: Callable[..., None]
) -> None:
    crash(f"decode:{MARKED_BYTES}", once=tmp_path / "crashed")
    out, log = tmp_path / "out", tmp_path / "log"

    done = callpress("run", "--input", raw / "*", "--output", out, "--log-file", log)

    assert (tmp_path / "crashed").exists()
    assert done.status == 0
    assert query(out / "catalog", "failures") == []
    assert {row["status"] for row in query(out / "catalog", "calls")} == {"ok"}
    assert (
        log.read_text().count(
            "died with signal SIGSEGV over mix_call; it is tried once more, alone"
        )
        == 1
    )


# --- processes of a run that is at work -----------------------------------------------------------


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A run in the middle of its mixing: some seconds of it are left."""
    packets = list(encode_opus(noise(20), bitrate_bps=64_000)) * 25
    people = [
        Participant(
            participant_id=f"p{n}",
            segments=[Segment(packets=packets, ssrc=n + 1, base_filename=f"d{n}")],
        )
        for n in range(3)
    ]
    (tmp_path / "long.tar").write_bytes(make_call_archive(people, kind="tar"))
    command = [sys.executable, "-m", "pipelines.cli", "run", "--input", str(tmp_path / "long.tar")]
    process = subprocess.Popen(
        [*command, "--output", str(tmp_path / "out"), "--log-file", str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(
        lambda: list(tmp_path.glob("out/.staging/*/*/work/*/mix")) or process.poll() is not None
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.slow
def test_codec_process_killed_from_outside_costs_nothing(
    at_work: subprocess.Popen[str], tmp_path: Path
) -> None:
    before = {pid: _cpu_ticks(pid) for pid in children_of(at_work.pid)}
    time.sleep(0.3)
    busy = max(before, key=lambda pid: _cpu_ticks(pid) - before[pid])

    os.kill(busy, signal.SIGKILL)

    out, err = at_work.communicate(timeout=120)
    assert at_work.returncode == 0, err
    assert "1 ok" in out
    assert (
        "died with signal SIGKILL over mix_call; it is tried once more, alone"
        in (tmp_path / "log").read_text()
    )
    assert len(query(tmp_path / "out" / "catalog", "recordings")) == 4


@pytest.mark.slow
def test_killed_launcher_takes_its_children_with_it(
    at_work: subprocess.Popen[str], tmp_path: Path
) -> None:
    children = children_of(at_work.pid)
    assert children

    at_work.kill()
    at_work.wait()

    wait_until(lambda: not any(map(is_running, children)), 5)
    assert not list((tmp_path / "out" / "recordings").rglob("*.mp3"))
    assert not list((tmp_path / "out" / "recordings").rglob(".*"))


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
