"""`callpress inspect --clock`: how each track's clock was read, as values, text and drawings."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transforms.catalog.output_names import clock_drawing_name
from transforms.media.archive.read_members import ArchiveInput, ArchiveMembers
from transforms.media.errors import CallpressError, RecordingError, StorageError
from transforms.media.inspection.draw_track import draw_track
from transforms.media.inspection.track_clock import (
    PacketRunTimes,
    TrackTimes,
    TrackTimesObserver,
)
from transforms.media.inspection.words import (
    clock_text,
    counted,
    evidence_text,
    outcome_text,
)
from transforms.media.job import JobHost
from transforms.media.settings import LimitSettings
from transforms.media.units import NS_PER_MS, samples_to_ns
from transforms.media.unpack_archive import unpack_archive
from transforms.media.values import TrackKey
from transforms.media.wall_time import spell_time
from transforms.storage import objects, uris
from transforms.storage.inputs import Inputs


@dataclass(slots=True)
class ArchiveClocks:
    """What an archive tells of its clocks."""

    members: ArchiveMembers
    of_track: dict[TrackKey, dict[str, Any]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    """What a run over the archive would tell as wrong."""
    error: RecordingError | None = None
    """Why it could not be unpacked."""


class ClockInspector:
    """Reads the clocks of archives, and draws them if asked to."""

    def __init__(self, output: str | None) -> None:
        """Prepares the folder of the drawings. Args: output: it; None to draw nothing.

        Raises:
          UnwritableError, StorageError: nothing can be written there.
        """
        self._output = None if output is None else uris.absolute(output)
        self._drawn: set[str] = set()
        if self._output is not None:
            try:
                objects.prepare_folder(self._output)
            except StorageError as error:
                raise _unwritten(self._output, error) from None

    def read(self, archive: ArchiveInput, limits: LimitSettings, inputs: Inputs) -> ArchiveClocks:
        """Unpacks an archive as a run does, into a folder that is gone afterwards; memory holds a
        segment of it.

        Raises:
          UnwritableError, StorageError: a drawing cannot be written, or nothing be unpacked.
        """
        with _work_folder() as name:
            found = ArchiveClocks(ArchiveMembers())
            unwritten: list[CallpressError] = []

            def take(times: TrackTimes) -> None:
                try:
                    found.of_track[times.track] = self._take(times, archive.name)
                except StorageError as error:  # no fault of the archive
                    unwritten.append(_unwritten(self._output or "", error))

            folder = Path(name)
            observer = TrackTimesObserver(folder, take)
            host = JobHost(open_input=inputs.open)
            try:
                unpacked = unpack_archive(host, archive, folder, limits, observer)
            except RecordingError as error:
                found.error = error
            else:
                found.findings = [finding.error.message for finding in unpacked.findings]
            found.members = observer.members
            if unwritten:
                raise unwritten[0]
        return found

    def _take(self, times: TrackTimes, archive: str) -> dict[str, Any]:
        drawing = None
        if self._output is not None and times.packet_runs:
            drawing = self._place(self._output, times)
            text = draw_track(times, os.path.basename(archive.rstrip("/")))
            objects.write_bytes(drawing, text.encode("utf-8"))
        runs = [_packet_run(run) for run in times.packet_runs]
        return {"drawing": drawing, "packet_runs": runs}

    def _place(self, output: str, times: TrackTimes) -> str:
        """Returns where a drawing goes: not over another one of this command."""
        start_ms = times.first_unix_ns // NS_PER_MS
        for part in itertools.count():
            place = uris.join(output, clock_drawing_name(times.track, start_ms, part))
            if place not in self._drawn:
                break
        self._drawn.add(place)
        return place


def _work_folder() -> tempfile.TemporaryDirectory[str]:
    """Makes a folder to unpack into. Raises: StorageError."""
    try:
        return tempfile.TemporaryDirectory(prefix="callpress-")
    except OSError as error:
        raise StorageError(f"no folder to unpack into: {error.strerror}") from error


def _unwritten(place: str, error: StorageError) -> CallpressError:
    """Returns the error to end with where drawings cannot be written."""
    # Late: it knows the errors of all stores, whose libraries take a second to import.
    from pipelines.places import refusal

    return refusal("--clock-output", place, error)


def _packet_run(run: PacketRunTimes) -> dict[str, Any]:
    return {
        "base_filename": run.base_filename,
        "ssrc": run.ssrc,
        "packet_count": run.packet_count,
        "media_ms": _media_ms(run.media_stop_sample),
        "has_arrivals": run.has_arrivals,
        "reports": {
            "count": run.report_count,
            "span_ms": run.report_span_ns / NS_PER_MS,
            "from_metadata": run.are_reports_stated,
        },
        "pieces": [
            {
                "media_start_ms": _media_ms(piece.media_start_sample),
                "media_end_ms": _media_ms(run.stop_sample_of(number)),
                "server_start_time": spell_time(piece.server_start_unix_ns),
                "skew_ppm": round(piece.skew_ppm, 3),
                "is_fitted": piece.is_fitted,
                "sync_error_ms": round(piece.sync_error_ns / NS_PER_MS, 3),
            }
            for number, piece in enumerate(run.pieces)
        ],
        "steps": [
            {
                "media_ms": _media_ms(step.media_sample),
                "server_time": spell_time(step.server_unix_ns),
                "size_ms": round(step.size_ns / NS_PER_MS, 3),
                "evidence": str(step.evidence),
                "outcome": str(step.outcome),
                "moved_ms": round(step.moved_ns / NS_PER_MS, 3),
            }
            for step in run.steps
        ],
    }


def _media_ms(samples: int) -> float:
    return samples_to_ns(samples) / NS_PER_MS


def clock_lines(track: Mapping[str, Any]) -> Iterator[str]:
    """Yields what is told of one track's clock, line by line. Args: track: as `inspect` has it."""
    found = track["clock"]
    if found is None:
        yield "  not unpacked"
        return
    if not found["packet_runs"]:
        yield "  no packets"
    for number, run in enumerate(found["packet_runs"], 1):
        yield (
            f"  packet run {number} of {len(found['packet_runs'])}: {run['base_filename']}, "
            f"SSRC {run['ssrc']:#010x}, {counted(run['packet_count'], 'packet')}, "
            f"{clock_text(run['media_ms'] / 1e3, 3)} of media"
        )
        yield f"    {_reports(run)}"
        lines = [(piece["media_start_ms"], 1, _piece(piece)) for piece in run["pieces"]]
        lines += [
            (step["media_ms"], 0, f"step {place}: {_step(step)}")
            for place, step in enumerate(run["steps"], 1)
        ]
        for media_ms, _, words in sorted(lines):
            yield f"    {clock_text(media_ms / 1e3, 3):>12}  {words}"
    if found["drawing"] is not None:
        yield f"  drawn in {found['drawing']}"


def _reports(run: Mapping[str, Any]) -> str:
    reports = run["reports"]
    if not reports["count"]:
        text = "no sender reports"
    else:
        text = counted(reports["count"], "sender report")
        if reports["count"] > 1:
            text += f" over {clock_text(reports['span_ms'] / 1e3, 1)} of media"
        text += " (stated by the metadata)" if reports["from_metadata"] else ""
    if not run["has_arrivals"]:
        text += "; the dump has no arrivals that can be used"
    return text


def _piece(piece: Mapping[str, Any]) -> str:
    fitted = "fitted" if piece["is_fitted"] else "nominal"
    return (
        f"piece to {clock_text(piece['media_end_ms'] / 1e3, 3)}: begins "
        f"{piece['server_start_time'] or 'beyond the calendar'}, skew {piece['skew_ppm']:+.1f} ppm "
        f"{fitted}, sync_error_ms {piece['sync_error_ms']:,.1f}"
    )


def _step(step: Mapping[str, Any]) -> str:
    return (
        f"{step['size_ms']:+,.1f} ms at {step['server_time'] or 'a time beyond the calendar'}, "
        f"{evidence_text(step['evidence'])}: {outcome_text(step['outcome'], step['moved_ms'])}"
    )
