"""Globs and listings without Beam: they mean what Beam means by them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from apache_beam.io.filesystem import FileSystem
from apache_beam.io.filesystems import FileSystems
from hypothesis import given
from hypothesis import strategies as st

from transforms.media.errors import StorageError
from transforms.storage import objects
from transforms.storage.globs import compile_glob, plain_prefix, quote
from transforms.storage.local import LocalStore

TREE = [
    "a.tar.gz",
    "b.zip",
    "call-1/p.json",
    "call-1/audio/a.rtpdump",
    "call-2/p.json",
    "x/y/z/d.tar.gz",
    "[1].tar",
    "b\\c",
]
PATTERNS = [
    "*", "*.tar.gz", "**", "**.tar.gz", "call-*/p.json", "call-?/p.json", "call-[12]/*",
    "call-[!2]/*", "*/*", "x**d*",
    "call-1?p.json", "x[!a]y/z/*", "[[]1].tar", "[]x[]1].tar", "a?tar.gz", "a.tar.gz", "call-1",
    "gone", "gone/*", "a.tar.gz/*",
    "b[\\]c", "b\\*",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_glob_on_a_disk_finds_what_beam_finds(tmp_path: Path, pattern: str) -> None:
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
        os.utime(tmp_path / name, (0, 1_767_607_200.25))
    (theirs,) = FileSystems.match([f"{tmp_path}/{pattern}"])

    ours = LocalStore().match(f"{tmp_path}/{pattern}")

    assert sorted(
        (found.path, found.size_bytes, found.modified_unix_s) for found in ours
    ) == sorted(
        (found.path, found.size_in_bytes, found.last_updated_in_seconds)
        for found in theirs.metadata_list
    )


@given(pattern=st.text("ab/*?[]!^-\\.\n", max_size=12), name=st.text("ab/[]!^-\\.\n", max_size=6))
def test_any_glob_means_what_beam_means(pattern: str, name: str) -> None:
    try:
        theirs = re.compile(FileSystem.translate_pattern(pattern))
    except re.error:
        with pytest.raises(OSError, match="no pattern"):
            compile_glob(pattern)
        return

    assert bool(compile_glob(pattern).fullmatch(name)) == bool(theirs.match(name))


@given(st.text("ab/*?[]!\\\n", max_size=12))
def test_quoted_text_matches_itself(text: str) -> None:
    assert compile_glob(quote(text)).fullmatch(text)
    assert plain_prefix(quote(text)) == re.split(r"[*?\[]", text, maxsplit=1)[0]


def test_set_that_nothing_can_be_in_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no pattern: bad character range z-a"):
        objects.match(f"{tmp_path}/[z-a]")


def test_only_two_stars_walk_into_folders_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    entered: list[str] = []
    scan = os.scandir

    def note(path: str) -> object:
        entered.append(os.path.relpath(path, tmp_path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", note)

    assert not list(LocalStore().match(f"{tmp_path}/*"))
    assert entered == ["."]
    assert not list(LocalStore().match(f"{tmp_path}/*/x"))
    assert entered == [".", ".", "a"]
    assert not list(LocalStore().match(f"{tmp_path}/**x"))
    assert entered == [".", ".", "a", ".", "a", "a/b", "a/b/c"]
