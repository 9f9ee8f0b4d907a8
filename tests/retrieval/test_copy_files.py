"""Copies: whole under their names or not there, what their rows say or told, and nobody's file is
lost for it.
"""

from __future__ import annotations

import errno
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.shelf import EVERYBODY, Shelf
from transforms.elements import Row
from transforms.retrieval.copy_files import Became, Copy, copy_all


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    """Of a mix and two files, which are there."""
    shelf = Shelf(tmp_path)
    found = shelf.add("a", EVERYBODY, "ann", "bob")
    for row in found:
        shelf.put(row)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "copies"
    made.mkdir()
    return made


def _named(rows: list[Row]) -> list[tuple[str, Row]]:
    return [(str(number), row) for number, row in enumerate(rows)]


def _copy(folder: Path, rows: list[Row]) -> list[Copy]:
    return list(copy_all(folder, _named(rows)))


def _states(copies: list[Copy]) -> list[Became]:
    return [copy.became for copy in copies]


def _identities(folder: Path) -> dict[Path, tuple[int, int]]:
    """Returns what changes of a file where it is written anew; when it was read is not in it."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_files_are_copied_and_left_alone_the_next_time(folder: Path, rows: list[Row]) -> None:
    assert _states(_copy(folder, rows)) == [Became.COPIED] * 3
    before = _identities(folder)
    assert _states(_copy(folder, rows)) == [Became.THERE] * 3

    assert _identities(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1", "2"]
    for number, row in enumerate(rows):
        assert (folder / str(number)).read_bytes() == Path(row["uri"]).read_bytes()
    umask = os.umask(0)
    os.umask(umask)
    assert (folder / "0").stat().st_mode & 0o777 == 0o666 & ~umask


def test_other_file_of_the_name_is_replaced(folder: Path, rows: list[Row]) -> None:
    """Also one of the same length, half of which is what it should be."""
    whole = Path(rows[0]["uri"]).read_bytes()
    (folder / "0").write_bytes(whole[:10].ljust(len(whole), b"\0"))
    (folder / "1").write_bytes(b"older")
    (folder / "2").symlink_to(rows[1]["uri"])

    assert _states(_copy(folder, rows)) == [Became.COPIED] * 3

    assert (folder / "0").read_bytes() == whole
    assert not (folder / "2").is_symlink()
    assert Path(rows[1]["uri"]).read_bytes() != Path(rows[2]["uri"]).read_bytes()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("gone", "it is not there, though the catalog has a row of it"),
        ("shorter", r"it has 3 bytes, its row says \d+"),
        ("other", "its SHA-256 is [0-9a-f]{64}, its row says [0-9a-f]{64}"),
        ("a folder", r"is no file \(d"),
        ("a pipe", r"is no file \(p"),
        ("a link to nowhere", r"is no file \(a link to '/nowhere', which is not there\)"),
    ],
)
def test_file_that_is_not_what_its_row_says_is_told_and_the_rest_copied(
    folder: Path, rows: list[Row], what: str, message: str
) -> None:
    path = Path(rows[1]["uri"])
    length = path.stat().st_size
    path.unlink()
    if what == "shorter":
        path.write_bytes(b"abc")
    elif what == "other":
        path.write_bytes(b"x" * length)
    elif what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "a link to nowhere":
        path.symlink_to("/nowhere")
    (folder / "1").write_bytes(b"an earlier copy")

    copies = _copy(folder, rows)

    assert _states(copies) == [Became.COPIED, Became.FAILED, Became.COPIED]
    assert re.fullmatch(f"{re.escape(str(path))}: {message}.*", copies[1].why)
    assert sorted(each.name for each in folder.iterdir()) == ["0", "1", "2"]
    assert (folder / "1").read_bytes() == b"an earlier copy"


@pytest.mark.parametrize(
    "uri", ["nowhere/a.mkv", "s4://bucket/a.mkv", "s3://x/a", "", "/proc/self/mem", "/dev/zero"]
)
def test_row_that_names_no_recording_is_told(folder: Path, rows: list[Row], uri: str) -> None:
    rows[0]["uri"] = uri

    copies = _copy(folder, rows)

    assert _states(copies) == [Became.FAILED, Became.COPIED, Became.COPIED]


def test_folder_in_the_way_is_told(folder: Path, rows: list[Row]) -> None:
    (folder / "2").mkdir()

    copies = _copy(folder, rows)

    assert _states(copies) == [Became.COPIED, Became.COPIED, Became.FAILED]
    assert copies[2].why == f"{folder / '2'}: is a folder, expected a file of that name or none"
    assert list((folder / "2").iterdir()) == []


def test_full_disk_leaves_no_half_file(
    folder: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    copies = _copy(folder, rows)

    assert {copy.why for copy in copies} == {"cannot be written: No space left on device"}
    assert list(folder.iterdir()) == []


def test_what_a_killed_command_left_is_removed_and_what_is_being_written_stays(
    folder: Path, rows: list[Row]
) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = folder / f".callpress-{ended.pid}-0.partial"
    own = folder / f".callpress-{os.getpid()}-0.partial"  # of a process of this number before
    at_work = folder / f".callpress-{os.getppid()}-0.partial"
    others = [at_work, folder / ".callpress-x.partial", folder / ".other.partial"]
    for path in (left, own, *others):
        path.write_bytes(b"half")

    assert _states(_copy(folder, rows)) == [Became.COPIED] * 3

    assert set(folder.iterdir()) == {*others, *(folder / str(number) for number in range(3))}


def test_command_that_is_stopped_leaves_no_half_file(folder: Path, rows: list[Row]) -> None:
    copies = copy_all(folder, _named(rows * 5))
    assert next(copies).became is Became.COPIED

    copies.close()  # type: ignore[attr-defined]

    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []
