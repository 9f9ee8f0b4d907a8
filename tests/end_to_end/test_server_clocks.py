"""A server's clock that is set in mid-call, on the whole way to the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.command import press, query
from tests.support.simulation.calls import Person, simulate_call
from tests.support.simulation.sender import Sender

_STEP_S = -0.8


def _write(path: Path, *people: tuple[str, float, float], ahead_s: float = 0.0) -> Path:
    """Writes an archive of people who talk from one second of the call on for so many."""
    call = simulate_call(
        [
            Person(
                name=name,
                senders=[
                    Sender(
                        seed=number + 1,
                        ssrc=number + 1,
                        start_s=start_s,
                        seconds=seconds,
                        markers_s=(1.0,),
                        report_every_s=None,
                        server_steps=((12.0, _STEP_S),),
                        base_filename=f"{path.stem}_{name}",
                    )
                ],
            )
            for number, (name, start_s, seconds) in enumerate(people)
        ]
    )
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(call.archive)
    return path


def _by_participant(output: Path) -> dict[str, dict[str, Any]]:
    return {row["participant_id"]: row for row in query(output / "catalog", "segments")}


def test_step_of_the_servers_clock_is_counted_and_moves_nobody(tmp_path: Path) -> None:
    archive = _write(
        tmp_path / "raw" / "a.tar", ("stays", 0, 24), ("listens", 0.5, 23), ("came", 15, 6)
    )
    hashes = []
    for workers in (1, 2):
        output = tmp_path / f"out{workers}"
        press(output, archive, flags=("--codec-processes", workers))

        (call,) = query(output / "catalog", "calls")
        assert (call["server_clock_steps"], call["status"]) == (1, "ok")
        rows = _by_participant(output)
        assert len(query(output / "catalog", "segments")) == 3
        assert abs(rows["stays"]["call_end_ms"] - 24_030) <= 5
        assert abs(rows["came"]["call_start_ms"] - 15_030) <= 5
        assert query(output / "catalog", "failures") == []
        hashes.append(
            sorted(
                (row["filename"], row["sha256"]) for row in query(output / "catalog", "recordings")
            )
        )
    assert hashes[0] == hashes[1]


def test_late_archive_leaves_the_step_of_the_first_as_it_was(tmp_path: Path) -> None:
    people = ("stays", 0, 20), ("listens", 0.5, 19)
    _write(tmp_path / "raw" / "a.tar", *people)
    press(tmp_path / "out", tmp_path / "raw" / "*.tar")
    first = _by_participant(tmp_path / "out")
    _write(tmp_path / "raw" / "b.tar", ("one who is late", 30, 5))

    press(tmp_path / "out", tmp_path / "raw" / "*.tar")

    (call,) = query(tmp_path / "out" / "catalog", "calls")
    assert (call["server_clock_steps"], call["track_count"]) == (1, 3)
    rows = _by_participant(tmp_path / "out")
    for name, _, _ in people:
        for column in ("call_start_ms", "call_end_ms", "sync_error_ms"):
            assert rows[name][column] == first[name][column]
    # Whether the same server wrote the second archive nobody says.
    assert rows["one who is late"]["sync_error_ms"] > 800
