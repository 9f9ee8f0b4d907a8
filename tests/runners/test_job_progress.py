"""What is told of a job elsewhere while it goes on."""

from __future__ import annotations

import pytest

from pipelines.runners.job_progress import JobProgress, progress_line


def test_line_has_what_the_counters_tell() -> None:
    counters = {
        "archives_listed": 40,
        "archives_skipped": 12,
        "archives_unpacked": 3,
        "tracks_extracted": 7,
        "calls_pressed": 2,
        "tracks_failed": 1,
        "failures": 4,
        "media_samples": 48_000,
    }

    assert progress_line(125, counters) == (
        "callpress: after 2 min: archives 15/40, tracks 7, calls 2, failures 5"
    )


def test_engine_without_counters_is_told_to_be_at_work_and_no_more() -> None:
    assert progress_line(70, {}) == "callpress: after 1 min: the job is at work"


def test_lines_come_now_and_then_and_the_engine_is_asked_only_for_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: list[float] = []
    progress = JobProgress(0.0)

    def counters() -> dict[str, int]:
        asked.append(now)
        return {"calls_pressed": now}

    for now in range(600):
        progress.look(now, counters)

    assert asked == [10, 40, 70, 100, 130, 160, 190, 220, 250, 280, 310, 340, 370, 400, 430, 460,
                     490, 520, 550, 580]  # fmt: skip
    assert capsys.readouterr().err.splitlines()[:2] == [
        "callpress: after 10 s: calls 10",
        "callpress: after 40 s: calls 40",
    ]
