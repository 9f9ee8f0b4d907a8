#!/usr/bin/env python
"""Writes docs/clock.svg: a captured call's clock, as `callpress inspect --clock-output` draws it. A
test holds the drawing to the code.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from transforms.media.archive.read_members import ArchiveInput
from transforms.media.inspection.draw_track import draw_track
from transforms.media.inspection.track_clock import TrackTimes, TrackTimesObserver
from transforms.media.job import JobHost
from transforms.media.settings import LimitSettings
from transforms.media.unpack_archive import unpack_archive
from transforms.storage import objects

_ROOT = Path(__file__).resolve().parent.parent
_CAPTURE = _ROOT / "tests" / "data" / "captures" / "capture_dtx_stalls.tar.gz"
_PARTICIPANT = "bob"


def make_clock_drawing() -> str:
    """Returns the drawing."""
    found: list[TrackTimes] = []
    archive = ArchiveInput(name=str(_CAPTURE), size_bytes=_CAPTURE.stat().st_size)
    with tempfile.TemporaryDirectory() as folder:
        unpack_archive(
            JobHost(open_input=objects.open_input),
            archive,
            Path(folder),
            LimitSettings(),
            TrackTimesObserver(Path(folder), found.append),
        )
    (times,) = (times for times in found if times.track.participant_id == _PARTICIPANT)
    return draw_track(times, _CAPTURE.name)


if __name__ == "__main__":
    drawing = _ROOT / "docs" / "clock.svg"
    text = make_clock_drawing()
    if sys.argv[1:] == ["--check"]:
        sys.exit(
            0
            if drawing.exists() and drawing.read_text(encoding="utf-8") == text
            else "docs/clock.svg is not what the code draws: run scripts/make_clock_drawing.py"
        )
    drawing.write_text(text, encoding="utf-8")
