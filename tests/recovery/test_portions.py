"""Portions of a run: which archives each has, and what later ones know of those before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.testing.util import equal_to

from tests.support.beam import expect, list_files, make_pipeline
from tests.support.job_run import JobRun
from transforms.bounds import Bound, Bounds, PortionSize
from transforms.choose_archives import ChooseArchives, ReadPortions
from transforms.context import RunIdentity
from transforms.elements import ArchiveRef, PutOffArchive
from transforms.engine import begun
from transforms.recovery import portions
from transforms.storage import objects


def _refs(*sizes: int) -> list[ArchiveRef]:
    return [
        ArchiveRef(
            uri=f"/raw/{number} é\n", size_bytes=size, modified_unix_ns=number, fingerprint="1",
            attempt=2, is_known_failure=True,
        )
        for number, size in enumerate(sizes)
    ]  # fmt: skip


class _Heard:
    """Notes what is told of portions."""

    def __init__(self) -> None:
        self.divided: list[tuple[RunIdentity, int]] = []

    def begin(self, run: RunIdentity) -> None:
        raise AssertionError(run)

    def hear(self, line: str) -> None:
        raise AssertionError(line)

    def divide(self, run: RunIdentity, portions: int) -> None:
        self.divided.append((run, portions))


@pytest.mark.parametrize(
    ("sizes", "size", "counts"),
    [
        ((), PortionSize(archives=3), [0]),
        ((1, 1, 1), PortionSize(archives=3), [3]),
        ((1, 1, 1, 1, 1, 1, 1), PortionSize(archives=3), [3, 3, 1]),
        ((4, 4, 4, 4), PortionSize(archives=3, size_bytes=8), [2, 2]),
        ((9, 1, 1, 9, 9), PortionSize(archives=3, size_bytes=5), [1, 2, 1, 1]),
        ((9, 9), PortionSize(archives=3), [2]),
        ((1,) * 9, PortionSize(archives=2, size_bytes=9, most_portions=3), [3, 3, 3]),
        ((4,) * 9, PortionSize(archives=5, size_bytes=8, most_portions=3), [3, 3, 3]),
        ((4,) * 4, PortionSize(archives=2, size_bytes=9, most_portions=3), [2, 2]),
    ],
)
def test_portion_is_full_with_so_many_archives_or_bytes(
    sizes: tuple[int, ...], size: PortionSize, counts: list[int]
) -> None:
    refs = _refs(*sizes)
    divided = portions.divide(refs, size)

    assert [len(portion) for portion in divided] == counts
    assert [ref for portion in divided for ref in portion] == refs


def test_later_portions_lie_in_staging_and_wait_meanwhile(context: JobRun) -> None:
    refs = _refs(1, 1, 1, 1, 1)
    context = context.changed(
        portion=PortionSize(archives=2), bounds=Bounds(max_archives=4), repeat_archives={"x"}
    )
    heard = _Heard()
    with begun.listening(heard), make_pipeline() as pipeline:
        chosen = pipeline | beam.Create(refs) | ChooseArchives(*context)
        left = [*((ref, None) for ref in refs[2:4]), (refs[4], Bound.MAX_ARCHIVES)]
        expect(
            todo=(chosen.todo, equal_to(refs[:2])),
            put_off=(
                chosen.put_off,
                equal_to([PutOffArchive(ref=ref, by=bound) for ref, bound in left]),
            ),
        )

    assert heard.divided == [(context.run, 2)]
    assert list(portions.read_list(context.run, 2)) == refs[2:4]
    assert not portions.is_last(*context)
    assert portions.is_last(context.job, replace(context.run, portion_number=2))
    with make_pipeline() as pipeline:
        read = pipeline | ReadPortions(*context, range(2, 3))
        expect(read=(read, equal_to(refs[2:4])))


def test_run_of_one_portion_writes_nothing(context: JobRun) -> None:
    refs = _refs(1, 1)
    context = context.changed(portion=PortionSize(archives=2))
    heard = _Heard()
    with begun.listening(heard), make_pipeline() as pipeline:
        chosen = pipeline | beam.Create(refs) | ChooseArchives(*context)
        expect(todo=(chosen.todo, equal_to(refs)), put_off=(chosen.put_off, equal_to([])))

    assert heard.divided == []
    assert list_files(context.staging_uri) == []
    assert portions.is_last(*context)


def _name(value: str) -> dict[str, Any]:
    return {"flag": "--call", "value": value, "nearest": []}


def test_what_came_of_all_portions_is_told_together(context: JobRun) -> None:
    first: portions.Found = {
        "counts": {"calls_pressed": 3, "archives_listed": 9}, "repress": {"archives": 4},
        "unmatched": [_name("default:a"), _name("default:b")], "failures": ["b", "d"],
    }  # fmt: skip
    second: portions.Found = {
        "counts": {"calls_pressed": 2}, "repress": None, "unmatched": [_name("default:b")],
        "failures": ["c"],
    }  # fmt: skip
    last: portions.Found = {
        "counts": {"calls_pressed": 1, "calls_ok": 1}, "repress": None,
        "unmatched": [_name("default:a"), _name("default:b")], "failures": ["a"],
    }  # fmt: skip
    portions.keep(context.run, first)
    portions.keep(replace(context.run, portion_number=2), second)

    found = portions.total(replace(context.run, portion_number=3), last, lambda failure: failure, 3)

    assert found == {
        "counts": {"calls_pressed": 6, "archives_listed": 9, "calls_ok": 1},
        "repress": {"archives": 4},
        "unmatched": [_name("default:b")],
        "failures": ["a", "b", "c"],
    }
    assert portions.total(context.run, last, lambda failure: failure, 3) is last


def test_staging_of_a_portion_goes_but_for_what_later_ones_need(context: JobRun) -> None:
    portions.write_lists(context.run, [_refs(1), _refs(1)])
    for name in ("packets/a", "rows/b", "completed/c", "anything/d/e"):
        objects.write_staged(context.staged(name), b"x")

    portions.sweep(context.run)

    assert list_files(context.staging_uri) == ["portions/archives-00002.jsonl"]
    assert [path.name for path in Path(context.staging_uri).iterdir()] == ["portions"]
