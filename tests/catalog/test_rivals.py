"""What a run that took over does about a rival that may be at work still."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.job_run import JobRun
from transforms.catalog import publish, rivals
from transforms.locking.lock import LockLostError
from transforms.storage import objects

OURS = b"ours" * 1000
THEIRS = b"them" * 1000


@pytest.fixture
def uri(context: JobRun) -> str:
    return f"{context.output_uri}/recordings/default/a/s/mix.mp3"


def _has_lock(_size_bytes: int) -> None:
    pass


def _has_none(_size_bytes: int) -> None:
    raise LockLostError("another has it")


def _publish(context: JobRun, uri: str, tmp_path: Path) -> pa.Table:
    """Publishes a recording; returns its row."""
    made = tmp_path / "made"
    made.write_bytes(OURS)
    publish.publish_media(*context, uri, made)
    sha256 = hashlib.sha256(OURS).hexdigest()
    return pa.table({"uri": [uri], "size_bytes": [len(OURS)], "sha256": [sha256], "status": ["ok"]})


@pytest.mark.parametrize("late", [THEIRS, b"short", None], ids=["same size", "shorter", "gone"])
def test_file_that_a_rival_laid_another_over_is_made_again(
    context: JobRun, uri: str, tmp_path: Path, late: bytes | None
) -> None:
    context = context.changed(took_over=True)
    rows = _publish(context, uri, tmp_path)
    if late is None:
        objects.delete(uri)
    else:
        objects.write_bytes(uri, late)

    rivals.make_again(context.run, _has_lock, rows)

    assert objects.read_bytes(uri) == OURS


def test_file_that_is_as_its_row_says_is_left_alone(
    context: JobRun, uri: str, tmp_path: Path
) -> None:
    context = context.changed(took_over=True)
    rows = _publish(context, uri, tmp_path)
    before = Path(uri).stat()

    rivals.make_again(context.run, _has_lock, rows)

    assert Path(uri).stat().st_ino == before.st_ino


def test_file_of_which_there_is_no_copy_is_left_alone(
    context: JobRun, uri: str, tmp_path: Path
) -> None:
    """As one that was taken up from a dead run, and was compared then."""
    rows = _publish(context, uri, tmp_path)
    objects.write_bytes(uri, THEIRS)

    rivals.make_again(context.changed(took_over=True).run, _has_lock, rows)

    assert objects.read_bytes(uri) == THEIRS


def test_run_that_took_nothing_over_keeps_no_copies(
    context: JobRun, uri: str, tmp_path: Path
) -> None:
    _publish(context, uri, tmp_path)

    assert not objects.list_below(context.staged("copies"))


def test_file_is_not_made_again_once_the_lock_is_lost(
    context: JobRun, uri: str, tmp_path: Path
) -> None:
    """Comparing many takes longer than a look at the lock holds good."""
    context = context.changed(took_over=True)
    rows = _publish(context, uri, tmp_path)
    objects.write_bytes(uri, THEIRS)

    with pytest.raises(LockLostError):
        rivals.make_again(context.run, _has_none, rows)

    assert objects.read_bytes(uri) == THEIRS
