"""The size of a worker, held against what was measured."""

from __future__ import annotations

import re

import pytest

from pipelines import worker_size
from tests.support.command import ROOT
from transforms.codec.governor import JOB_BYTES

_MEASURED = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
_ROWS = {
    name: (int(launcher) * 10**6, int(codec) * 10**6)
    for name, launcher, codec in re.findall(
        r"^\| memory, ([^|:]*?)(?:: [^|]*)? \| (\d+) MB, (\d+) MB \|", _MEASURED, re.MULTILINE
    )
}
_HOURS = {
    "two packets": 0.0,
    "1,000 small archives": 0.0,
    "5 min x 20 participants": 5 / 60,
    "8 h x 20 participants": 8.0,
    "an archive of 5 GB": 2.0,
}


def test_every_measured_row_is_known() -> None:
    assert set(_ROWS) == set(_HOURS)


@pytest.mark.parametrize("row", _HOURS)
def test_a_process_is_reckoned_no_smaller_than_measured(row: str) -> None:
    launcher, codec = _ROWS[row]
    assert launcher <= worker_size.SDK_PROCESS_BYTES <= 2 * launcher
    assert codec <= worker_size.codec_process_bytes(_HOURS[row])


def test_a_codec_process_grows_with_its_longest_segment_as_measured() -> None:
    _, codec = _ROWS["8 h x 20 participants"]
    # Without the floor of short ones: reckoned from what 16 hours need more than 8.
    hour = (worker_size.codec_process_bytes(16) - worker_size.codec_process_bytes(12)) / 4
    reckoned = worker_size.codec_process_bytes(16) - 8 * hour
    assert codec <= reckoned <= 1.05 * codec
    assert worker_size.codec_process_bytes(0) == JOB_BYTES


def test_a_thread_is_reckoned_with_the_rows_of_a_long_call() -> None:
    more = _ROWS["8 h x 20 participants"][0] - _ROWS["two packets"][0]
    assert more <= worker_size.ROWS_BYTES <= 1.1 * more


def test_staging_is_reckoned_no_smaller_than_measured() -> None:
    found = re.search(r"written to staging, by the Opus packets \| ([\d.]+) \|", _MEASURED)
    assert found
    assert float(found[1]) <= worker_size.STAGED_RATIO <= float(found[1]) + 0.05


def test_a_machine_has_a_share_for_each_core_and_thread() -> None:
    one = worker_size.memory_bytes(1, 1, 10**9)
    assert worker_size.memory_bytes(2, 1, 10**9) - one == 10**9
    assert worker_size.memory_bytes(1, 2, 10**9) - one == worker_size.ROWS_BYTES
    assert worker_size.disk_bytes(4, 10**9) == 25 * 10**9 + 8 * 1_300_000_000
