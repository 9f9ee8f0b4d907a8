"""How much crosses the shuffles of a job on an engine elsewhere: elements are ids, times and
references, never media, and do not grow with the length of a call.

Beam's in-process engine does the job as others would: with all breaks of fusion in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import execution

from pipelines import press
from pipelines.runners.local import make_local_pipeline
from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, tone
from tests.support.command import query
from transforms.context import JobSettings
from transforms.filters import Filters
from transforms.media.settings import PressSettings

MOST_BYTES = 5_000
"""Of a track, through all shuffles together."""
PEOPLE = ("alice", "bob", "carol", "dave")
_PACKETS = encode_opus(tone(300, 1), frame_ms=20)


def _speak(number: int, start_ms: int) -> Segment:
    return Segment(
        packets=_PACKETS,
        start_ms=start_ms,
        ssrc=number,
        base_filename=f"audio-0192f0c4-7b1e-7c3a-9d52-{number:012d}",
    )


def _write_call(path: Path, segments: int) -> None:
    """Writes an archive of a call of four people who each unmute so often."""
    people = [
        Participant(
            participant_id=f"{name}@a-longer-company-name.example.com",
            segments=[_speak(1_000 * who + n, 2_000 * n + 100 * who) for n in range(segments)],
        )
        for who, name in enumerate(PEOPLE, 1)
    ]
    ids = f"0192f0c4-7b1e-7c3a-9d52-{segments:012d}"
    path.write_bytes(make_call_archive(people, call_id=ids, call_session_id=ids))


@dataclass(frozen=True)
class Shuffled:
    """What a job put through its shuffles."""

    by_step: Counter[str]
    """Encoded bytes, by the shuffle."""
    tracks: int

    @property
    def bytes_per_track(self) -> float:
        return self.by_step.total() / self.tracks


def _shuffle(folder: Path, segments: Sequence[int]) -> Shuffled:
    """Runs a job over calls of so many segments a person."""
    raw = folder / "raw"
    raw.mkdir(parents=True)
    for number in segments:
        _write_call(raw / f"call_{number}.tar.gz", number)
    job = JobSettings(
        output_uri=str(folder / "pressed"),
        catalog_uri=str(folder / "pressed" / "catalog"),
        settings=PressSettings(),
        filters=Filters(),
        overwrite=False,
        codec_processes=2,
        staging_root=str(folder / "staging"),
    )
    found: Counter[str] = Counter()
    get_buffer, append = execution.BundleContextManager.get_buffer, execution.GroupingBuffer.append

    def name_buffer(self: Any, buffer_id: bytes, transform_id: str) -> Any:
        buffer = get_buffer(self, buffer_id, transform_id)
        kind, name = execution.split_buffer_id(buffer_id)
        if kind == "group":
            buffer.shuffle = name
        return buffer

    def count(self: Any, data: bytes) -> None:
        found[self.shuffle] += len(data)
        append(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution.BundleContextManager, "get_buffer", name_buffer)
        patch.setattr(execution.GroupingBuffer, "append", count)
        pipeline = make_local_pipeline(PipelineOptions([]))
        press.build(pipeline, [f"{raw}/*"], job)
        names = {
            key: step.unique_name
            for key, step in pipeline.to_runner_api().components.transforms.items()
        }
        pipeline.run().wait_until_finish()
    tracks = query(folder / "pressed" / "catalog", "tracks")
    assert {row["status"] for row in tracks} == {"ok"}
    return Shuffled(Counter({names.get(k, k): v for k, v in found.items()}), len(tracks))


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Shuffled:
    """Of four calls, whose people speak once to four times."""
    return _shuffle(tmp_path_factory.mktemp("night"), (1, 2, 3, 4))


@pytest.fixture(scope="module")
def restless(tmp_path_factory: pytest.TempPathFactory) -> Shuffled:
    """Of one call, whose people unmute forty times."""
    return _shuffle(tmp_path_factory.mktemp("restless"), (40,))


def test_all_shuffles_together_have_a_few_kb_of_a_track(night: Shuffled) -> None:
    assert night.tracks == 16
    assert len(night.by_step) >= 19  # else they were not all counted
    assert 1_000 < night.bytes_per_track <= MOST_BYTES, night.by_step.most_common()


@pytest.mark.parametrize("step", ["ExtractTracks/SpreadTracks", "MixCalls/GroupByCall"])
def test_elements_of_planned_calls_do_not_grow_with_what_was_said(
    step: str, night: Shuffled, restless: Shuffled
) -> None:
    def of_a_track(shuffled: Shuffled) -> float:
        found = [n for name, n in shuffled.by_step.items() if name.startswith(step)]
        return sum(found) / shuffled.tracks

    assert 0 < of_a_track(restless) <= 1.1 * of_a_track(night)


def test_parts_of_tracks_tell_of_each_packet_run_in_some_numbers(restless: Shuffled) -> None:
    """What each shows of its server's clock, until the call is planned: caps bound it."""
    (found,) = [n for name, n in restless.by_step.items() if name.startswith("PlanCalls/")]

    assert found / restless.tracks <= 1_000 + 40 * 90
