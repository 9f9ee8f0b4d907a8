"""What a codec process reads: local files by itself, remote ones through its parent."""

from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import pytest

from tests.codec import codec_jobs
from tests.support.codec import LARGE_DATA, run_job
from transforms.codec.process import CodecProcess
from transforms.media.errors import StorageError
from transforms.storage import objects


class _Remote:
    """Opens names from a dictionary and counts what is read."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = {f"gs://bucket/{name}": data for name, data in objects.items()}
        self.opened: list[str] = []
        self.handles: list[BinaryIO] = []

    def __call__(self, name: str) -> BinaryIO:
        self.opened.append(name)
        if name not in self.objects:
            raise StorageError(f"{name}: No such object")
        self.handles.append(io.BytesIO(self.objects[name]))
        return self.handles[-1]


def test_local_file_is_read_by_the_child_itself(codec: CodecProcess, tmp_path: Path) -> None:
    path = tmp_path / "with space [1]"
    path.write_bytes(LARGE_DATA)

    assert run_job(codec, codec_jobs.read_whole, str(path)) == LARGE_DATA


def test_local_file_that_is_gone_is_a_storage_error(codec: CodecProcess, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="none: No such file or directory"):
        run_job(codec, codec_jobs.read_whole, str(tmp_path / "none"))


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, len(LARGE_DATA)])
def test_remote_file_is_read_to_its_end(codec: CodecProcess, size: int) -> None:
    remote = _Remote(x=LARGE_DATA[:size])

    assert (
        run_job(codec, codec_jobs.read_whole, "gs://bucket/x", open_remote=remote)
        == LARGE_DATA[:size]
    )


def test_remote_file_seeks_and_tells_like_a_local_one(codec: CodecProcess, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(LARGE_DATA)
    seeks = [
        (0, io.SEEK_SET, 4),
        (3_000_000, io.SEEK_SET, 10),
        (-20, io.SEEK_CUR, 10),
        (-7, io.SEEK_END, 100),
        (0, io.SEEK_END, 1),
        (10, io.SEEK_END, 1),
        (5, io.SEEK_SET, -1),
        (0, io.SEEK_CUR, 1),
    ]

    remote = run_job(
        codec, codec_jobs.read_pieces, "gs://bucket/x", seeks, open_remote=_Remote(x=LARGE_DATA)
    )

    assert remote == run_job(codec, codec_jobs.read_pieces, str(tmp_path / "x"), seeks)
    assert [at for at, _, _ in remote[:4]] == [0, 3_000_000, 2_999_990, len(LARGE_DATA) - 7]


def test_two_remote_files_are_read_in_turns(codec: CodecProcess) -> None:
    remote = _Remote(one=b"abcd", other=b"1234")

    found = run_job(
        codec, codec_jobs.read_two, "gs://bucket/one", "gs://bucket/other", open_remote=remote
    )

    assert found == b"ab12cd34"


def test_threads_of_a_job_may_read_and_tell_at_once(codec: CodecProcess) -> None:
    names = [f"gs://bucket/{number}" for number in range(4)]
    remote = _Remote(**{str(number): LARGE_DATA[number:] for number in range(4)})
    told: list[int] = []

    found = run_job(
        codec, codec_jobs.read_on_threads, names, open_remote=remote, on_progress=told.append
    )

    assert found == [hashlib.sha256(LARGE_DATA[number:]).hexdigest() for number in range(4)]
    assert sum(told) == sum(len(LARGE_DATA[number:]) for number in range(4))


def test_one_remote_file_opened_twice_has_two_positions(codec: CodecProcess) -> None:
    remote = _Remote(one=b"abcd")

    assert (
        run_job(
            codec, codec_jobs.read_two, "gs://bucket/one", "gs://bucket/one", open_remote=remote
        )
        == b"ababcdcd"
    )


def test_remote_handles_are_closed_after_the_job_also_a_failed_one(codec: CodecProcess) -> None:
    remote = _Remote(x=b"data")
    run_job(codec, codec_jobs.read_whole, "gs://bucket/x", open_remote=remote)
    with pytest.raises(StorageError):
        run_job(codec, codec_jobs.read_two, "gs://bucket/x", "gs://bucket/none", open_remote=remote)

    assert len(remote.handles) == 2
    assert all(handle.closed for handle in remote.handles)


def test_remote_file_that_is_gone_is_a_storage_error(codec: CodecProcess) -> None:
    with pytest.raises(StorageError, match="gs://bucket/none: No such object"):
        run_job(codec, codec_jobs.read_whole, "gs://bucket/none", open_remote=_Remote())

    assert run_job(codec, codec_jobs.give_back, "next") == "next"


def test_remote_read_that_fails_in_passing_is_tried_again(
    codec: CodecProcess, store: ModuleType
) -> None:
    store.put("fake://bucket/x", LARGE_DATA)
    store.TROUBLE["read"].extend([TimeoutError("timed out")])

    assert (
        run_job(codec, codec_jobs.read_whole, "fake://bucket/x", open_remote=objects.open_input)
        == LARGE_DATA
    )


@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "Permission denied"), ConnectionResetError("reset")],
    ids=lambda error: type(error).__name__,
)
def test_remote_read_that_keeps_failing_is_a_storage_error(
    codec: CodecProcess, store: ModuleType, error: Exception
) -> None:
    """It is neither a bug of ours nor the death of the child, and the child is free for the next
    job.
    """
    store.put("fake://bucket/x", LARGE_DATA)
    store.TROUBLE["read"].extend([error] * 50)
    caught: list[BaseException] = []

    def read() -> None:
        try:
            run_job(codec, codec_jobs.read_whole, "fake://bucket/x", open_remote=objects.open_input)
        except BaseException as raised:
            caught.append(raised)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(15)
    hangs = thread.is_alive()
    if hangs:
        codec.close()
        thread.join(5)

    assert not hangs
    assert [type(raised) for raised in caught] == [StorageError]
    assert run_job(codec, codec_jobs.give_back, "next") == "next"
