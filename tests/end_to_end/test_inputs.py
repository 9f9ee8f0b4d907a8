"""What lies below an input pattern: pressed, or told in a row; where places may lie, and how they
may be spelled.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import (
    Participant,
    Segment,
    encode_opus,
    make_call_archive,
    make_call_members,
    tone,
)
from tests.support.command import callpress, press, query


def _people(name: str = "alice") -> list[Participant]:
    packets = encode_opus(tone(300, 0.2))
    segment = Segment(packets=packets, base_filename=f"{name}_1", ssrc=300)
    return [Participant(participant_id=name, segments=[segment])]


def _write(path: Path, call_id: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(make_call_archive(_people(), call_id=call_id))


def _unpack(folder: Path, call_id: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in make_call_members(_people(), call_id=call_id).items():
        (folder / name).write_bytes(content)


def _told(catalog: Path, folder: Path) -> dict[str, str]:
    return {
        row["archive_uri"].removeprefix(f"{folder}/"): row["message"]
        for row in query(catalog, "failures")
        if row["stage"] == "ListArchives" and row["error_type"] in ("ArchiveError", "StorageError")
    }


def _status(catalog: Path, folder: Path) -> dict[str, str]:
    rows = query(catalog, "archives")
    return {row["archive_uri"].removeprefix(f"{folder}/"): row["status"] for row in rows}


def test_what_cannot_be_pressed_is_a_row_each_and_the_rest_is_pressed(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    _write(raw / "a.tar.gz", "a")
    _write(raw / "line\nend.tar.gz", "b")
    shutil.copy(raw / "a.tar.gz", raw / os.fsdecode(b"caf\xe9.tar.gz"))
    os.mkfifo(raw / "pipe.tar.gz")
    (raw / "gone.tar.gz").symlink_to("away.tar.gz")
    (raw / "loop.tar.gz").symlink_to("loop.tar.gz")
    _unpack(raw / "call", "c")
    (raw / "call" / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"x")
    wrong = {"caf\\xe9.tar.gz", "pipe.tar.gz", "gone.tar.gz", "loop.tar.gz"}

    done = callpress("run", "--input", raw / "*", "--output", out)

    assert done.status == 1
    assert "7 listed, 3 ok, 4 failed" in done.out
    assert "bug" not in done.err
    catalog = out / "catalog"
    assert _status(catalog, raw) == {"a.tar.gz": "ok", "line\nend.tar.gz": "ok", "call/": "ok"}
    assert set(_told(catalog, raw)) == wrong
    os.utime(raw / "gone.tar.gz", (0, 0), follow_symlinks=False)
    callpress("run", "--input", raw / "*", "--output", out)
    assert set(_told(catalog, raw)) == wrong
    assert len(query(catalog, "failures")) == len(wrong)  # also where its date is another
    assert callpress("verify", "--catalog", catalog).status == 0
    inspected = callpress("inspect", raw / "*")
    planned = callpress("run", "--dry_run", "--input", raw / "*", "--output", out)
    for told in (inspected.err, planned.out):
        assert all(name in told for name in wrong)
        assert "\nend" not in told
    assert inspected.status == 1
    assert planned.status == 0


def test_unreadable_folder_is_a_row_until_it_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    _write(raw / "a.tar.gz", "a")
    _write(raw / "secret/night/b.tar.gz", "b")
    scan = os.scandir

    def refuse(path: Any) -> Any:  # root may read all folders
        if path == str(raw / "secret"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scan(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        done = callpress("run", "--input", raw / "**.tar.gz", "--output", out)
    assert done.status == 1
    assert _status(out / "catalog", raw) == {"a.tar.gz": "ok"}
    assert _told(out / "catalog", raw) == {"secret/": f"{raw}/secret/: Permission denied"}

    press(out, raw / "**.tar.gz")

    assert _status(out / "catalog", raw) == {"a.tar.gz": "ok", "secret/night/b.tar.gz": "ok"}
    assert query(out / "catalog", "failures") == []

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", refuse)
        callpress("run", "--input", raw / "**.tar.gz", "--output", out)
    assert set(_told(out / "catalog", raw)) == {"secret/"}
    done = press(out, raw / "**.tar.gz")
    assert "2 listed, 2 skipped" in done.out
    assert query(out / "catalog", "failures") == []  # though nothing in it is to be pressed


def test_input_named_in_no_utf8_is_a_row(tmp_path: Path) -> None:
    _write(tmp_path / "raw/a.tar.gz", "a")
    odd = tmp_path / "raw" / os.fsdecode(b"caf\xe9.tar.gz")
    shutil.copy(tmp_path / "raw/a.tar.gz", odd)
    out = tmp_path / "out"

    callpress("run", "--input", odd, "--input", tmp_path / "raw/a*", "--output", out)

    assert _status(out / "catalog", tmp_path / "raw") == {"a.tar.gz": "ok"}
    assert set(_told(out / "catalog", tmp_path / "raw")) == {"caf\\xe9.tar.gz"}
    assert callpress("run", "--input", tmp_path / "raw/a*", "--output", odd).status == 2


def test_archives_in_a_folder_with_metadata_are_pressed(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    _write(raw / "night/a.tar.gz", "a")
    (raw / "night/x_timing_metadata.json").write_bytes(b"{}")
    _write(raw / "both/b.tar.gz", "b")
    _unpack(raw / "both", "c")

    callpress("run", "--input", raw / "night", "--input", raw / "bot*", "--output", out)

    assert _status(out / "catalog", raw) == {
        "night/a.tar.gz": "ok",
        "both/b.tar.gz": "ok",
        "both/": "ok",
    }
    assert set(_told(out / "catalog", raw)) == {"night/x_timing_metadata.json"}
    assert {row["call_id"] for row in query(out / "catalog", "calls")} == {"a", "b", "c"}


def test_what_runs_made_below_the_inputs_is_left_out_and_said(tmp_path: Path) -> None:
    _write(tmp_path / "raw/a.tar.gz", "a")
    (tmp_path / "link").symlink_to(".")
    flags = ("--summary-json", tmp_path / "link/end.json", "--log-file", tmp_path / "run.log")
    left_out = r"callpress: left out (\d+) files below --input that Callpress itself made\n"
    counts = []
    for out in (tmp_path / "out", tmp_path / "link/out", tmp_path / "raw/other"):
        done = press(out, tmp_path / "**", flags=flags)
        assert _status(out / "catalog", tmp_path) == {"raw/a.tar.gz": "ok"}
        assert query(out / "catalog", "failures") == []
        (count,) = re.findall(left_out, done.err)
        counts.append(int(count))
    assert counts == sorted(set(counts))
    planned = callpress("run", "--dry_run", "--input", tmp_path / "**", "--output", out, *flags[2:])
    assert len(re.findall(left_out, planned.err)) == 1
    only_ours = callpress("run", "--input", tmp_path / "out/**", "--output", out)
    assert only_ours.status == 1
    assert "matches nothing but what Callpress made itself" in only_ours.err


def test_file_scheme_is_a_path_everywhere(tmp_path: Path) -> None:
    _write(tmp_path / "raw/a.tar.gz", "a")
    (tmp_path / "mine.toml").write_text("max_failed_ratio = 0.1\n")

    done = callpress(
        "run", "--input", f"file://localhost{tmp_path}/raw/*", "--output", f"file://{tmp_path}/out",
        "--catalog", f"file://{tmp_path}/tables/", "--summary-json", f"file:{tmp_path}/end.json",
        "--log-file", f"file://{tmp_path}/run.log", "--config", f"file://{tmp_path}/mine.toml",
    )  # fmt: skip

    assert done.status == 0
    (archive,) = query(tmp_path / "tables", "archives")
    assert archive["archive_uri"] == f"{tmp_path}/raw/a.tar.gz"
    assert all(
        row["uri"].startswith(f"{tmp_path}/out/recordings/")
        for row in query(tmp_path / "tables", "recordings")
    )
    assert (tmp_path / "end.json").exists()
    assert (tmp_path / "run.log").exists()
    assert callpress("inspect", f"file://{tmp_path}/raw/a.tar.gz").status == 0
    for place in ("tables", "tables/"):
        assert callpress("verify", "--catalog", f"file://{tmp_path}/{place}").status == 0


_GOOD = {"--input": "raw/*", "--output": "out"}


def _refused(folder: Path, flags: dict[str, Any]) -> str:
    """Returns the one line that a command line is refused with, before any work."""
    folder.joinpath("raw").mkdir(exist_ok=True)
    folder.joinpath("raw/a.tar.gz").touch()
    before = sorted(folder.rglob("*"))
    named = [part for flag in (_GOOD | flags).items() for part in flag]
    done = callpress("run", *named)
    assert done.status == 2
    assert sorted(folder.rglob("*")) == before
    assert done.err.count("\n") == 1
    return done.err


@pytest.mark.parametrize("flag", ["--input", "--output", "--catalog", "--summary-json"])
def test_scheme_that_nobody_knows_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.chdir(tmp_path)

    told = _refused(tmp_path, {flag: "s4://bucket/x"})

    assert "s4://bucket/x: unknown scheme s4://, expected a path or one of" in told
    assert "gs://" in told


@pytest.mark.parametrize("flag", ["--input", "--catalog", "--summary-json", "--log-file"])
@pytest.mark.parametrize("uri", ["", "file://"])
def test_place_without_a_name_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, uri: str
) -> None:
    monkeypatch.chdir(tmp_path)

    assert f"{flag} {uri!r} names nothing" in _refused(tmp_path, {flag: uri})


def test_inspect_refuses_what_it_cannot_name_and_waits_for_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar.gz")
    (tmp_path / "zero.tar.gz").symlink_to("/dev/zero")
    (tmp_path / "bare").mkdir()

    for name, told in (
        ("pipe.tar.gz", "prw.*, expected a regular file"),
        ("zero.tar.gz", "crw.*, expected a regular file"),
        ("bare", "a folder without files, expected an archive or an unpacked one"),
    ):
        done = callpress("inspect", tmp_path / name)
        assert done.status == 1
        assert re.search(f"{name}: {told}", done.err)
    assert callpress("inspect", "").status == 2
    assert callpress("inspect", "s4://bucket/x").status == 2


@pytest.mark.parametrize(
    "catalog",
    [
        "out", "out/", "./out//", "{}/out", "file://{}/out", "link", "out/catalog/..",
        "out/recordings", "out/recordings/", "out/recordings/tables", "link/recordings/tables",
        "out/x/../recordings/t", "file://{}/out/recordings",
    ],
)  # fmt: skip
def test_catalog_among_recordings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, catalog: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")

    told = _refused(tmp_path, {"--catalog": catalog.format(tmp_path)})

    assert "would lie in each other, expected a place apart" in told


@pytest.mark.parametrize(
    ("output", "catalog"),
    [
        ("t/archives", "t"),
        ("t/runs/x", "t"),
        ("gs://b/o", "gs://b/o/"),
        ("gs://b", "GS://b/recordings/t"),
    ],
)
def test_recordings_among_tables_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str, catalog: str
) -> None:
    monkeypatch.chdir(tmp_path)

    told = _refused(tmp_path, {"--output": output, "--catalog": catalog})

    assert "would lie in each other" in told


def test_catalog_beside_recordings_is_taken(tmp_path: Path) -> None:
    _write(tmp_path / "raw/a.tar.gz", "a")

    for output, catalog in ((tmp_path / "raw", tmp_path), (tmp_path, tmp_path / "raw")):
        flags = ("--input", tmp_path / "raw/*.gz", "--output", output, "--catalog", catalog)
        assert callpress("run", "--dry_run", *flags).status == 0
