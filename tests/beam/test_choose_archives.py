"""The bounds of a night: how they are written, and which archives they leave to the next."""

from __future__ import annotations

from collections.abc import Sequence

import apache_beam as beam
import pytest
from apache_beam.testing.util import equal_to

from tests.support.beam import expect, make_pipeline
from tests.support.job_run import JobRun
from transforms.bounds import Bound, Bounds, parse_count, parse_duration, parse_size
from transforms.choose_archives import ChooseArchives, in_order
from transforms.elements import ArchiveRef, PutOffArchive
from transforms.media.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5h", 18_000), ("90m", 5_400), ("1h30m", 5_400), ("45s", 45), ("2d", 172_800), ("0s", 0),
        ("1H", 3_600), ("1d2h3m4s", 93_784),
    ],
)  # fmt: skip
def test_time_to_stop_after(text: str, seconds: int) -> None:
    assert parse_duration("--stop-after", text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "h", "5 hours", "-5h", "1.5h", "30m1h", "9" * 5_000 + "h"]
)
def test_time_that_is_none(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^--stop-after .*: expected a length of time such as 5h"
    ):
        parse_duration("--stop-after", text)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("1", 1), ("20GB", 20 * 10**9), ("20 gb", 20 * 10**9), ("20GiB", 20 << 30),
        ("20G", 20 << 30),
        ("1.5TB", 1_500 * 10**9), ("500MiB", 500 << 20), ("7kB", 7_000), ("12b", 12),
        ("0.5k", 512),
    ],
)  # fmt: skip
def test_size_as_users_write_it(text: str, size_bytes: int) -> None:
    assert parse_size("--max-bytes", text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "GB", "0", "0GB", "-1", "1e9", "20 gigabytes", "0.1", "9" * 5_000, "99999PB"]
)
def test_size_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--max-bytes .*: expected a number of bytes such as"):
        parse_size("--max-bytes", text)


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "many", "٣", "9" * 5_000])
def test_number_of_archives_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^--max-archives .*: expected a positive number"):
        parse_count("--max-archives", text)


def test_bound_is_told_as_one_may_write_it() -> None:
    bounds = Bounds(stop_after_seconds=5_400, max_archives=3, max_bytes=14_000)
    assert [bounds.given(bound) for bound in Bound] == ["90m", "3", "14000"]
    assert Bounds(stop_after_seconds=0).given(Bound.STOP_AFTER) == "0s"
    assert Bounds(stop_after_seconds=18_000).given(Bound.STOP_AFTER) == "5h"


# --- the step -------------------------------------------------------------------------------------


def _ref(name: str, modified: int, size_bytes: int = 10, is_waiting: bool = False) -> ArchiveRef:
    return ArchiveRef(
        uri=f"/raw/{name}", size_bytes=size_bytes, modified_unix_ns=modified, fingerprint=name,
        is_waiting=is_waiting,
    )  # fmt: skip


OLD, NEW, TWIN = _ref("z-old", 1), _ref("a-new", 3), _ref("b-new", 3)
WAITING, LONG_WAITING = _ref("w", 4, is_waiting=True), _ref("x", 2, is_waiting=True)
ORDERED = [LONG_WAITING, WAITING, OLD, NEW, TWIN]


def _expect(
    context: JobRun, todo: Sequence[ArchiveRef], put_off: Sequence[tuple[ArchiveRef, Bound]]
) -> None:
    with make_pipeline() as pipeline:
        archives = pipeline | beam.Create([TWIN, WAITING, NEW, OLD, LONG_WAITING])
        chosen = archives | ChooseArchives(*context)
        expect(
            todo=(chosen.todo, equal_to(todo)),
            put_off=(
                chosen.put_off,
                equal_to([PutOffArchive(ref=ref, by=bound) for ref, bound in put_off]),
            ),
        )


def test_what_waits_comes_first_then_the_oldest() -> None:
    assert in_order([TWIN, WAITING, NEW, OLD, LONG_WAITING]) == ORDERED


def test_run_without_bounds_takes_all(context: JobRun) -> None:
    _expect(context.changed(bounds=Bounds(stop_after_seconds=0)), ORDERED, [])


def test_number_of_archives_is_bounded(context: JobRun) -> None:
    bound = Bound.MAX_ARCHIVES
    _expect(
        context.changed(bounds=Bounds(max_archives=3)),
        ORDERED[:3],
        [(ref, bound) for ref in ORDERED[3:]],
    )
    _expect(context.changed(bounds=Bounds(max_archives=5)), ORDERED, [])


@pytest.mark.parametrize(("max_bytes", "taken"), [(30, 3), (39, 3), (40, 4), (50, 5), (1, 1)])
def test_bytes_are_bounded_and_one_archive_is_always_taken(
    context: JobRun, max_bytes: int, taken: int
) -> None:
    _expect(
        context.changed(bounds=Bounds(max_bytes=max_bytes, max_archives=99)),
        ORDERED[:taken],
        [(ref, Bound.MAX_BYTES) for ref in ORDERED[taken:]],
    )
