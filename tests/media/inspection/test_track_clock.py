"""What is seen of a track's clock while its archive is unpacked, and how it is drawn."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, noise
from tests.support.media import LIMITS, make_input
from tests.support.simulation.calls import Person, simulate_call
from tests.support.simulation.sender import Sender
from transforms.media.clock.model import StepEvidence
from transforms.media.clock.verdicts import Outcome
from transforms.media.inspection.draw_track import WIDTH, draw_track
from transforms.media.inspection.track_clock import TrackTimes, TrackTimesObserver
from transforms.media.job import JobHost
from transforms.media.unpack_archive import unpack_archive

MS = 1_000_000
SVG = "{http://www.w3.org/2000/svg}"


def observe(archive: bytes, folder: Path) -> dict[str, TrackTimes]:
    """Returns what the tracks of an archive show, by participant, in order."""
    found: list[TrackTimes] = []
    unpacked = unpack_archive(
        JobHost(open_input=lambda _: io.BytesIO(archive)),
        make_input(archive),
        folder,
        LIMITS,
        TrackTimesObserver(folder, found.append),
    )
    assert sum(len(session.parts) for session in unpacked.sessions) == len(found)
    assert list(folder.iterdir()) == []  # each track's files are gone
    return {times.track.participant_id: times for times in found}


def simulate(folder: Path, **senders: Sender | Sequence[Sender]) -> dict[str, TrackTimes]:
    people = [
        Person(name=name, senders=[sender] if isinstance(sender, Sender) else sender)
        for name, sender in senders.items()
    ]
    return observe(simulate_call(people).archive, folder)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter(f"{SVG}text")]


def test_a_stall_and_a_new_path_are_told_apart_by_reports(tmp_path: Path) -> None:
    found = simulate(
        tmp_path,
        ann=Sender(seconds=60, stalls=((20, 0.15),), paths=((40, 0.04),), jitter_ms=4),
    )
    (run,) = found["ann"].packet_runs
    assert run.packet_count == 3_000
    assert (run.report_count, run.are_reports_stated) == (12, False)
    assert run.report_span_ns == pytest.approx(55_000 * MS, abs=200 * MS)
    assert [(step.evidence, step.outcome) for step in run.steps] == [
        (StepEvidence.CONFIRMED, Outcome.SILENCE),
        (StepEvidence.DENIED, Outcome.PATH),
    ]
    assert [round(step.size_ns / MS) for step in run.steps] == pytest.approx([150, 40], abs=2)
    assert run.stop_sample_of(0) == run.pieces[1].media_start_sample == run.steps[0].media_sample
    assert run.stop_sample_of(1) == run.media_stop_sample
    # All that is drawn of the packets, where it was: the least lies on the floor.
    assert len(run.delays.media_ns) == 3_000
    assert run.delays.value_ns.min() == min(y for _, y in run.clock.plateaus[0].hull)
    svg = draw_track(found["ann"], "a.tar.gz")
    said = texts(svg)
    assert {"1C", "2D", "2 steps", "2 pieces"} <= set(said)
    assert any("of silence put in" in text for text in said)
    assert any("nothing moved: path" in text for text in said)


def test_arrivals_lie_with_their_packets_where_redundant_copies_were_added(
    tmp_path: Path,
) -> None:
    found = simulate(tmp_path, ann=Sender(seconds=30, red_copies=2, loss_ratio=0.1, seed=5))
    (run,) = found["ann"].packet_runs
    assert len(run.delays.media_ns) < run.packet_count  # copies have no arrival of their own
    # Without jitter each packet came as late as any other.
    assert np.ptp(run.delays.value_ns) <= MS


def test_reports_lie_on_the_media_time_that_copies_reach_back_to(tmp_path: Path) -> None:
    found = simulate(
        tmp_path,
        ann=Sender(seconds=30, red_copies=2, report_noise_ms=0),
        bob=Sender(seconds=30, report_noise_ms=0),
    )
    for times in found.values():
        (run,) = times.packet_runs
        assert run.report_count == 6
        assert np.ptp(run.walls.value_ns) <= MS


def test_a_dump_without_arrivals_is_drawn_by_its_reports(tmp_path: Path) -> None:
    found = simulate(tmp_path, ann=Sender(seconds=60, zero_offsets=True, stalls=((30, 0.2),)))
    (run,) = found["ann"].packet_runs
    assert not run.has_arrivals
    assert run.delays.media_ns.size == 0
    assert run.report_count == 12
    assert "the dump has no arrivals" in texts(draw_track(found["ann"], "a"))


def test_a_track_of_several_segments_is_one_drawing(tmp_path: Path) -> None:
    found = simulate(
        tmp_path,
        ann=[
            Sender(seconds=20, skew_ppm=100, base_filename="one"),
            Sender(seconds=20, skew_ppm=100, start_s=50, base_filename="two", ssrc=9),
        ],
        bob=[],
    )
    assert [run.base_filename for run in found["ann"].packet_runs] == ["one", "two"]
    root = ET.fromstring(draw_track(found["ann"], "a"))
    pauses = [e for e in root.iter(f"{SVG}rect") if e.get("class") == "pause"]
    # One in the legend, one in each panel; 30 of 70 s.
    assert len(pauses) == 3
    assert float(pauses[1].get("width", "")) == pytest.approx(30 / 70 * 1_100, abs=3)


def test_a_lone_packet_is_drawn(tmp_path: Path) -> None:
    found = simulate(tmp_path, ann=Sender(seconds=0.02))
    assert "1 piece" in texts(draw_track(found["ann"], "a"))


def test_points_stay_within_the_drawing_whatever_came(tmp_path: Path) -> None:
    found = simulate(
        tmp_path,
        ann=Sender(
            seconds=120,
            skew_ppm=400,
            wall_rate=1.01,
            crowds=((30, 1, 2, 1, 9.0),),
            stalls=((70, 4.0),),
            jitter_ms=30,
        ),
    )
    svg = draw_track(found["ann"], "a")
    root = ET.fromstring(svg)
    assert len(svg) < 150_000
    for element in root.iter(f"{SVG}text"):
        assert 0 <= float(element.get("x", "")) <= WIDTH
        assert 0 <= float(element.get("y", "")) <= float(root.get("height", ""))
    for element in root.iter(f"{SVG}path"):
        assert "nan" not in element.get("d", "")
        assert "inf" not in element.get("d", "")


def test_of_very_many_steps_those_that_moved_the_line_are_drawn(tmp_path: Path) -> None:
    (times,) = simulate(tmp_path, ann=Sender(seconds=30, stalls=((20, 0.1),))).values()
    (run,) = times.packet_runs
    (moved,) = run.steps
    still = replace(moved, outcome=Outcome.PATH, evidence=StepEvidence.DENIED, moved_ns=0)
    steps = [
        replace(still, server_unix_ns=still.server_unix_ns - number * MS, size_ns=-number * MS)
        for number in range(300, 1_300)
    ]
    many = replace(times, packet_runs=(replace(run, steps=(*steps, moved)),))
    svg = draw_track(many, "a")
    said = texts(svg)
    assert "1,001 steps, the 14 weightiest" in said
    assert "1001C" in said
    assert svg.count('class="no still"') == 2 * 39  # in both panels
    assert svg.count('class="yes"') == 2


def test_ids_are_text_in_a_drawing_and_nothing_else(tmp_path: Path) -> None:
    evil = '</text><script>alert("1")</script>&\x1b[2J\x00\u202e]]>'
    person = Participant(
        participant_id=evil,
        user_session_id=evil,
        segments=[Segment(packets=encode_opus(noise(1)), base_filename="a")],
    )
    archive = make_call_archive([person], call_id=evil)
    (times,) = observe(archive, tmp_path).values()
    svg = draw_track(times, f"{evil}\ud800.tar")
    root = ET.fromstring(svg)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} == {
        "svg", "title", "style", "rect", "text", "path", "clipPath", "g",
    }  # fmt: skip
    assert any('</text><script>alert("1")</script>&\\x1b[2J\\x00' in text for text in texts(svg))
    assert not {"\x1b", "\x00", "\u202e"} & set(svg)


def test_of_very_many_packet_runs_the_longest_are_drawn(tmp_path: Path) -> None:
    (times,) = simulate(tmp_path, ann=Sender(seconds=5)).values()
    (run,) = times.packet_runs
    longest = replace(run, media_stop_sample=run.media_stop_sample + 480)
    many = replace(times, packet_runs=(*[run] * 400, longest))
    svg = draw_track(many, "a")
    assert any("300 longest runs are drawn" in text for text in texts(svg))
    assert svg.count('class="least"') <= 2 * 300 + 3
