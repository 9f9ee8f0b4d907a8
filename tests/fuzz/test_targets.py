"""The fuzz targets under hypothesis: mutations of each target's seeds, the same on every run."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.seeds import seeds, write_corpus
from tests.fuzz.targets import TARGETS

_EXAMPLES = {"unpack": 60, "ingest": 120, "archive": 150}
_MOST_BYTES = 20_000


@functools.cache
def corpus(target: str) -> list[bytes]:
    return [data for data in seeds(target) if len(data) <= _MOST_BYTES]


Edit = tuple[int, int, bytes]
"""Where, how many bytes are replaced, by what."""
edits = st.lists(
    st.tuples(st.integers(0, _MOST_BYTES), st.integers(0, 40), st.binary(max_size=12)), max_size=5
)


def edited(data: bytes, changes: list[Edit]) -> bytes:
    for where, count, new in changes:
        at = where % (len(data) + 1)
        data = data[:at] + new + data[at + count :]
    return data


@pytest.mark.parametrize("target", list(TARGETS))
def test_seeds_pass(target: str) -> None:
    found = corpus(target)
    assert found
    for data in found:
        TARGETS[target](data)


@pytest.mark.parametrize("target", list(TARGETS))
def test_mutations_raise_nothing_but_recording_errors(target: str) -> None:
    @settings(
        max_examples=_EXAMPLES.get(target, 300), derandomize=True, deadline=None, database=None
    )
    @given(st.builds(edited, st.sampled_from(corpus(target)), edits) | st.binary(max_size=300))
    def holds(data: bytes) -> None:
        TARGETS[target](data)

    holds()


def test_zip_that_lost_its_directory_may_state_any_size() -> None:
    """Found by the fuzzer: a size of 2**63 led past all positions a file can have."""
    header = (
        b"PK\x03\x04"
        + bytes(14)
        + b"\xff" * 8
        + b"\x01\0"
        + b"\x14\0"
        + b"x"
        + b"\x01\0\x10\0"
        + b"\xff" * 16
    )
    TARGETS["archive"](header + b"rest")


def test_corpus_is_written(tmp_path: Path) -> None:
    assert write_corpus(tmp_path, ["red", "sdp"]) == {"red": 1, "sdp": 2}
    assert len(list((tmp_path / "sdp").iterdir())) == 2
