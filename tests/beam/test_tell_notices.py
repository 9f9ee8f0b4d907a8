"""TellNotices: it ends no run, but one that has lost its lock."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import pytest

from tests.support.beam import Check, anything, expect, make_pipeline, nothing
from tests.support.job_run import JobRun
from transforms.composites.tell_notices import TellNotices
from transforms.locking.lock import LockLostError
from transforms.media.errors import StoreDownError
from transforms.notices import tell
from transforms.notices.result import in_result
from transforms.notices.tell import Told


def _tell(context: JobRun, check: Check, *, is_due: bool = True) -> None:
    """Tells, and looks at what the step gives."""
    with make_pipeline() as pipeline:
        due = pipeline | beam.Create([b""] if is_due else [])
        expect(told=(due | TellNotices(*context), check))


def test_nobody_is_told_before_it_is_due(context: JobRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tell, "tell_pending")

    _tell(context, nothing, is_due=False)


def test_what_cannot_be_told_is_a_line(context: JobRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> list[Told]:
        raise StoreDownError("fake://lake: \x1b[31m does not answer")

    def check(found: list[Any]) -> None:
        line = "fake://lake: \\x1b[31m does not answer"
        assert in_result(found) == (
            None,
            [f"nobody was told of what is new, the next run does that: {line}"],
        )

    monkeypatch.setattr(tell, "tell_pending", fail)

    _tell(context, check)


def test_run_that_loses_its_lock_while_it_tells_ends(
    context: JobRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(*_: Any) -> list[Told]:
        raise LockLostError("run run-1 lost the catalog's lock")

    monkeypatch.setattr(tell, "tell_pending", lose)

    with pytest.raises(LockLostError, match="run run-1 lost"):
        _tell(context, anything)
