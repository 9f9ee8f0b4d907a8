"""The folder of the slots: ours alone, or a clear line."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from transforms.codec.slot_files import SlotFiles, SlotFolderError
from transforms.media.errors import CallpressError


def test_folder_and_files_are_of_no_use_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files = SlotFiles(tmp_path)
        with files.at_head(3, waits=True), files.freed():
            lock = files.take(0)
    finally:
        os.umask(before)

    assert lock is not None
    assert files.folder == tmp_path / f"callpress-slots-{os.geteuid()}"
    assert stat.S_IMODE(files.folder.stat().st_mode) == 0o700
    assert {
        path.name: stat.S_IMODE(path.stat().st_mode) for path in files.folder.iterdir()
    } == dict.fromkeys(("0", "next-3", "head-3", "freed"), 384)
    assert (files.folder / "0").read_text() == f"{os.getpid()}\n"
    assert not os.get_inheritable(lock)
    files.give_back(lock)


def test_folder_lies_in_that_of_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    SlotFiles().prepare()

    assert (tmp_path / f"callpress-slots-{os.geteuid()}").is_dir()


def test_each_user_has_a_folder_and_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = SlotFiles(tmp_path)
    lock = ours.take(0)
    assert lock is not None
    mine = ours.folder

    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    theirs = SlotFiles(tmp_path)

    assert theirs.folder == tmp_path / "callpress-slots-4242" != mine
    os.mkdir(theirs.folder, 0o700)
    monkeypatch.setattr(os, "fstat", _owned_by(4242, os.fstat))
    other = theirs.take(0)
    assert other is not None
    theirs.give_back(other)
    monkeypatch.undo()
    ours.give_back(lock)


def _owned_by(uid: int, fstat: Callable[[int], os.stat_result]) -> Callable[[int], os.stat_result]:
    def found(descriptor: int) -> os.stat_result:
        fields = list(fstat(descriptor))
        fields[stat.ST_UID] = uid
        return os.stat_result(fields)

    return found


def _link(folder: Path) -> None:
    target = folder.parent / "target"
    target.mkdir()
    folder.symlink_to(target)


def _link_to_nothing(folder: Path) -> None:
    folder.symlink_to(folder.parent / "nowhere")


def _file(folder: Path) -> None:
    folder.write_text("")


def _open_to_others(folder: Path) -> None:
    folder.mkdir(0o700)
    folder.chmod(0o770)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_link, "Not a directory|Too many levels of symbolic links"),
        (_link_to_nothing, "Not a directory|Too many levels of symbolic links"),
        (_file, "Not a directory"),
        (_open_to_others, "has mode 0770, expected a folder of user \\d+ with mode 0700"),
    ],
)
def test_folder_that_may_be_anothers_is_refused(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    files = SlotFiles(tmp_path)
    make(files.folder)

    for use in (files.prepare, lambda: files.take(0), files.count_held):
        with pytest.raises(SlotFolderError, match=message) as caught:
            use()
        assert str(files.folder) in str(caught.value)
        assert "TMPDIR" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.name in ("0", "freed")]


def test_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = SlotFiles(tmp_path)
    files.prepare()
    monkeypatch.setattr(os, "fstat", _owned_by(4242, os.fstat))

    with pytest.raises(SlotFolderError, match="is of user 4242, expected a folder of user"):
        files.prepare()


def test_folder_that_cannot_be_made_is_a_clear_line() -> None:
    with pytest.raises(SlotFolderError, match="expected a folder in which files can be made"):
        SlotFiles(Path("/proc")).prepare()


def test_no_place_for_temporary_files_is_a_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", find_none)

    with pytest.raises(CallpressError, match=r"No usable temporary directory.*TMPDIR"):
        SlotFiles().take(0)


def test_run_without_a_folder_for_slots_is_a_clear_line(tmp_path: Path) -> None:
    (tmp_path / f"callpress-slots-{os.geteuid()}").write_text("")
    out = tmp_path / "out"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipelines.cli", "run"),
            *("--input", "samples/weekly_sync.tar.gz", "--output", out),
            *("--summary-json", tmp_path / "summary.json"),
        ],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    line, _ = done.stderr.splitlines()  # and that the same command again goes on
    folder = tmp_path / f"callpress-slots-{os.geteuid()}"
    assert f" failed: {folder}: Not a directory, expected a folder in which files can be" in line
    assert json.loads((tmp_path / "summary.json").read_text())["reason"] == "storage_down"
    assert not list(out.glob("recordings/**/*.*"))
