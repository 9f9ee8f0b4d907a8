"""docs/from-stream-cli.md: each of its lines runs, its flags are there or are not, and files are
called as it says.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mutagen.mp3 import BitrateMode, MPEGInfo

from pipelines.options import parse_arguments
from pipelines.parsing import UsageError
from tests.support.command import ROOT, SAMPLE, Finished, callpress, decode_with_ffmpeg

PAGE = (ROOT / "docs" / "from-stream-cli.md").read_text("utf-8")
START = "1795327874519"
"""When the call of the sample began, in Unix ms."""
MIX = f"composite_default_weekly-sync_audio_{START}.mp3"


def _individual(who: str, what: str = "audio_only") -> str:
    return f"individual_default_weekly-sync_{who}_sess-{who}-1_{what}_{START}.mkv"


INDIVIDUAL = {
    *map(_individual, ("alice", "bob", "carol", "dave")),
    _individual("dave", "screenshare_audio_only"),
}


def _lines() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def _rows(title: str) -> list[list[str]]:
    """Returns the rows of the table of a section, cell by cell."""
    section = PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


@dataclass(frozen=True, kw_only=True)
class Desk:
    """A folder in which each line of the page was run, one after the other."""

    folder: Path
    done: dict[str, Finished]

    def files(self, name: str) -> set[str]:
        return {path.name for path in (self.folder / name).iterdir()}

    def told(self, line: str) -> str:
        """Returns what a line has printed."""
        return self.done[line].out


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(SAMPLE, folder / "recording.tar.gz")
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(folder / "recording", filter="data")
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield Desk(folder=folder, done={line: _run(line) for line in _lines()})
    finally:
        os.chdir(before)


def _run(line: str) -> Finished:
    program, *arguments = shlex.split(line)
    if program == "callpress":
        return callpress(*arguments)
    assert program == "ffmpeg"
    shutil.copy(Path("audio", _individual("alice")), "individual_audio.mkv")
    done = subprocess.run(
        [program, "-v", "error", *arguments], capture_output=True, text=True, check=False
    )
    return Finished(status=done.returncode, out=done.stdout, err=done.stderr)


def test_each_line_runs(desk: Desk) -> None:
    assert [line for line, done in desk.done.items() if done.status or done.err] == []
    assert len(desk.done) > 10


def test_files_are_called_as_the_page_says(desk: Desk) -> None:
    assert desk.files("audio") == INDIVIDUAL
    assert desk.files("mixed") == {MIX}
    assert desk.files("all") == {*INDIVIDUAL, MIX}
    for theirs, ours in _rows("File by file"):
        name = theirs if ours == "the same" else ours
        if name == "none":
            continue
        pattern = re.escape(re.findall(r"`([^`]+)`", name)[0])
        pattern = pattern.replace(r"\.\.\.", ".+")
        pattern = re.sub(r"\\\{ms\\\}", START, pattern)
        pattern = re.sub(r"\\\{\w+\\\}", "[^_]+", pattern)
        assert [each for each in desk.files("all") if re.fullmatch(pattern, each)], name


def test_filters_leave_the_files_of_whom_they_name(desk: Desk) -> None:
    assert desk.files("alice") == {_individual("alice")}
    assert desk.files("session") == {name for name in INDIVIDUAL if "_dave_" in name}
    assert desk.files("track") == {_individual("bob")}


def test_same_files_come_of_the_archive_and_of_the_folder(desk: Desk) -> None:
    for name in INDIVIDUAL:
        made = (desk.folder / "audio" / name).read_bytes()
        assert made == (desk.folder / "all" / name).read_bytes()
    assert (desk.folder / "mixed" / MIX).read_bytes() == (desk.folder / "all" / MIX).read_bytes()


def test_lists_name_whom_and_what_there_is(desk: Desk) -> None:
    users = desk.told("callpress list-tracks --input-file recording.tar.gz --format users")
    tracks = desk.told(
        "callpress list-tracks --input-file recording.tar.gz --format tracks --track-type audio"
    )
    assert users.split() == ["alice", "bob", "carol", "dave"]
    assert len(tracks.split()) == 5
    table = desk.told("callpress list-tracks --input-file recording.tar.gz").splitlines()
    assert table[0].split("  ")[0] == "USER ID"
    assert len(table) == 6


def test_mp3_of_the_pages_line_is_as_long_as_its_source(desk: Desk) -> None:
    source = decode_with_ffmpeg(desk.folder / "individual_audio.mkv", 1)
    made = decode_with_ffmpeg(desk.folder / "output.mp3", 1)
    assert abs(len(made) - len(source)) <= 1152  # a frame of MP3


def test_custom_mp3_is_what_the_page_says(desk: Desk) -> None:
    with (desk.folder / "mp3" / MIX).open("rb") as file:
        info = MPEGInfo(file)
    assert (info.bitrate_mode, info.channels) == (BitrateMode.VBR, 2)
    assert decode_with_ffmpeg(desk.folder / "mp3" / MIX, 2).any()


# --- the tables -----------------------------------------------------------------------------------

_COMMANDS = {"--format": "list-tracks", "--track-type": "list-tracks"}
_VALUES = {"--format": "json", "--track-type": "audio", "--fill-gaps": "", "--fix-dtx": ""}


def _parse(flag: str) -> None:
    """Reads a command line with a flag of the table."""
    value = _VALUES.get(flag, "x")
    argv = [_COMMANDS.get(flag, "extract-audio"), flag, *([value] if value else [])]
    if not flag.startswith("--input"):
        argv += ["--input-file", "x"]
    if flag not in ("--output", *_COMMANDS):
        argv += ["--output", "y"]
    parse_arguments(argv)


def test_flags_are_there_or_not_as_the_table_says() -> None:
    seen: dict[str, set[str]] = {"the same": set(), "none": set()}
    for theirs, ours, _ in _rows("Flag by flag"):
        flags = re.findall(r"--[a-z0-9-]+", theirs if ours in seen else ours)
        for flag in flags:
            seen[ours if ours in seen else "the same"].add(flag)
    for flag in seen["the same"]:
        _parse(flag)
    for flag in seen["none"]:
        with pytest.raises(UsageError, match="does not know"):
            _parse(flag)
    assert {"--input-file", "--user-id", "--config"} <= seen["the same"]
    assert {"--fill-gaps", "--cache-dir"} <= seen["none"]


def test_commands_are_there_as_the_table_says() -> None:
    for theirs, ours, _ in _rows("Command by command"):
        for name in re.findall(r"`([a-z-]+)`", theirs):
            argv = [name, "--input-file", "x"]
            if name != "list-tracks":
                argv += ["--output", "y"]
            if ours == "none":
                with pytest.raises(UsageError):
                    parse_arguments(argv)
            else:
                assert ours == f"`callpress {name}`"
                parse_arguments(argv)


def test_pages_it_leads_to_are_there() -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[a-z-]+)?\)", PAGE):
        assert link.startswith("https://") or (ROOT / "docs" / link).exists(), link
    assert "(docs/from-stream-cli.md)" in (ROOT / "README.md").read_text("utf-8")
