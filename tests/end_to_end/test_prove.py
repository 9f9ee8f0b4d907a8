"""`callpress prove` over what runs made: what is whole is proven, what is not is named; and a
receipt of it says later what has changed.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.beam import speak
from tests.support.builders import (
    CALL_START_UNIX_MS,
    Participant,
    Segment,
    make_call_archive,
)
from tests.support.command import ROOT, Finished, callpress
from transforms.locking import lock
from transforms.proof.receipt import canonical

DAY_MS = 86_400_000
RECEIPT = Path("pressed", "catalog", "receipts", "night.json")
"""Beside the tables, where runs and `verify` leave it alone."""


def _archive(call: str, day: int) -> bytes:
    people = [
        Participant(participant_id=name, segments=[Segment(packets=speak(), ssrc=number)])
        for number, name in enumerate("xy", 1)
    ]
    return make_call_archive(
        people,
        call_id=call,
        call_session_id=call,
        call_start_unix_ms=CALL_START_UNIX_MS + day * DAY_MS,
    )


@pytest.fixture(scope="module")
def pressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two calls of two days and an archive that is none in `raw`, what was made of
    them in `pressed`, and a receipt of it; a copy of `pressed` is in `kept`.
    """
    folder = tmp_path_factory.mktemp("proven")
    (folder / "raw").mkdir()
    for day, call in enumerate("ab"):
        (folder / "raw" / f"{call}.tar.gz").write_bytes(_archive(call, day))
    (folder / "raw" / "c.tar.gz").write_bytes(b"no archive")
    assert _press(folder).status == 1  # more failed than is allowed
    receipt = folder / RECEIPT
    assert _prove(folder, "--output", receipt).status == 0
    shutil.copytree(folder / "pressed", folder / "kept")
    return folder


def _press(folder: Path) -> Finished:
    return callpress("run", "--input", folder / "raw" / "*", "--output", folder / "pressed")


@pytest.fixture
def folder(pressed: Path) -> Iterator[Path]:
    """The same, for a test to change."""
    yield pressed
    shutil.rmtree(pressed / "pressed")
    shutil.copytree(pressed / "kept", pressed / "pressed")
    (pressed / "raw" / "c.tar.gz").write_bytes(b"no archive")


def _prove(folder: Path, *flags: object) -> Finished:
    return callpress("prove", "--catalog", folder / "pressed" / "catalog", *flags)


def _check(folder: Path, *flags: object) -> Finished:
    receipt = folder / RECEIPT
    return _prove(folder, "--check", receipt, *flags)


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "pressed" / "recordings").rglob("*.m*"))


def _objects(folder: Path, table: str) -> list[Path]:
    return sorted((folder / "pressed" / "catalog" / table).rglob("*.parquet"))


def _object(folder: Path, table: str) -> Path:
    return _objects(folder, table)[0]


def _receipt(folder: Path) -> Any:
    return json.loads((folder / RECEIPT).read_bytes())


def test_catalog_that_is_whole_is_proven_and_its_receipt_stays_right(pressed: Path) -> None:
    done = _prove(pressed)
    assert (done.status, done.err) == (0, "")
    failed, sentence = done.out.splitlines()
    assert failed.startswith(f"{pressed / 'raw' / 'c.tar.gz'}: failed: ArchiveError: ")
    assert sentence.startswith(
        "callpress: the catalog has 3 archives; 2 whole, 1 named; 0 packets and 0.0 s "
        "unaccounted; every file by SHA-256; every second placed within +/- "
    )
    content = _receipt(pressed)
    assert (pressed / RECEIPT).read_bytes() == canonical(content) + b"\n"
    assert content["sentence"] == sentence.removeprefix("callpress: ")
    assert content["files"]["count"] == 6
    assert [day["files"] for day in content["files"]["dates"]] == [3, 3]
    packets = content["packets"]
    assert packets["records"] == sum(packets["fates"].values()) > packets["fates"]["placed"] > 150
    assert content["seconds"]["claimed_ms"] == content["seconds"]["found_ms"] > 3_000
    done = _check(pressed)
    assert done.status == 0
    assert done.out.endswith("; nothing has changed since\n")


def test_receipt_in_json_is_what_is_written(pressed: Path) -> None:
    written = _receipt(pressed)
    printed = json.loads(_prove(pressed, "--json").out)
    for changes in ("made_at", "sha256"):
        assert printed.pop(changes) != written.pop(changes)
    assert printed == written
    fast = json.loads(_prove(pressed, "--json", "--fast").out)
    assert (fast["proven"], fast["files"]["hashed"]) == (True, False)
    assert "every file by its size alone" in fast["sentence"]


def _delete(path: Path) -> None:
    path.unlink()


def _edit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _lose_row(path: Path) -> None:
    pq.write_table(pq.ParquetFile(path).read().slice(1), path)


def _add_record(path: Path) -> None:
    rows = pq.ParquetFile(path).read()
    place = rows.schema.get_field_index("records")
    more = pa.array([count + 7 for count in rows.column("records").to_pylist()], pa.int64())
    pq.write_table(rows.set_column(place, "records", more), path)


def _lose_names(path: Path) -> None:
    rows = pq.ParquetFile(path).read()
    place = rows.schema.get_field_index("uri")
    nothing = pa.nulls(rows.num_rows, pa.string())
    pq.write_table(rows.set_column(place, "uri", nothing), path)


def _rename_file(path: Path) -> None:
    """Gives a row of a table another hash than its file has."""
    rows = pq.ParquetFile(path).read()
    place = rows.schema.get_field_index("sha256")
    hashes = pa.array(["0" * 64, *rows.column("sha256").to_pylist()[1:]])
    pq.write_table(rows.set_column(place, "sha256", hashes), path)


HARMS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], object], str, str]] = {
    "a file deleted": (lambda f: _files(f)[0], _delete, "it is not there", "it is not there"),
    "a file edited": (lambda f: _files(f)[0], _edit, "its SHA-256 is ", "its SHA-256 is "),
    "a recording's row lost": (
        lambda f: _object(f, "recordings"),
        _lose_row,
        "it has no row in recordings",
        "has 2 files, it had 3: 1 are gone or replaced, 0 are new",
    ),
    "a hash edited": (
        lambda f: _object(f, "recordings"),
        _rename_file,
        "its row says 0000",
        "has 3 files, it had 3; a row of them was changed in place",
    ),
    "rows without a file": (
        lambda f: _object(f, "recordings"),
        _lose_names,
        "not known: 3 rows of recordings lack the location",
        "not_known.files: was 0, is 3",
    ),
    "a call's row lost": (lambda f: _object(f, "calls"), _lose_row, "calls has no row of it",
                          "rows.calls: was 2, is 1"),
    "a dump's row lost": (lambda f: _object(f, "dumps"), _lose_row, "its rows of dumps add up",
                          "packets.records: was "),
    "records that no fate has": (
        lambda f: _object(f, "dumps"),
        _add_record,
        "14 packets and 0.0 s unaccounted",
        "packets.unaccounted: was 0, is 14",
    ),
    "a table's object gone": (lambda f: _object(f, "tracks"), _delete, "tracks has no row of that",
                              "rows.tracks: was 4, is 2"),
    "a table's object damaged": (
        lambda f: _object(f, "segments"),
        lambda path: path.write_bytes(b"PAR1"),
        "not a Parquet file",
        "not a Parquet file",
    ),
    "an archive's row lost": (lambda f: _object(f, "archives"), _lose_row, "archives has no row of",
                              "rows.archives: was 3, is 2"),
}  # fmt: skip


@pytest.mark.parametrize(("what", "harm", "said", "changed"), HARMS.values(), ids=HARMS)
def test_what_is_not_whole_is_named_and_not_proven(
    folder: Path,
    what: Callable[[Path], Path],
    harm: Callable[[Path], object],
    said: str,
    changed: str,
) -> None:
    harm(what(folder))
    done = _prove(folder, "--output", folder / "later.json")
    assert done.status == 1
    assert said in done.out
    assert "callpress: not proven (not all agrees" in done.out
    assert json.loads((folder / "later.json").read_bytes())["proven"] is False

    done = _check(folder)
    assert done.status == 1
    assert changed in done.out
    assert " not as it says" in done.out.splitlines()[-1]
    assert callpress("prove", "--check", folder / RECEIPT).status == 0


def test_quiet_night_changes_nothing_and_what_a_later_run_makes_is_told_as_new(
    folder: Path,
) -> None:
    archive = folder / "raw" / "c.tar.gz"
    archive.unlink()
    assert _press(folder).status == 0
    assert _check(folder).out.endswith("; nothing has changed since\n")

    archive.write_bytes(_archive("c", 1))
    assert _press(folder).status == 0
    done = _check(folder)
    assert done.status == 1
    lines = done.out.splitlines()
    day = _receipt(folder)["files"]["dates"][1]["call_date"]
    assert f"{day}: has 6 files, it had 3: 0 are gone or replaced, 3 are new" in lines
    assert sum(line.endswith(": its row was made since") for line in lines) == 3
    assert f"{archive}: was failed, is ok" in lines
    assert "archives.failed: was 1, is 0" in lines
    assert "rows.calls: was 2, is 3" in lines

    told = json.loads(_check(folder, "--json", "--fast").out)
    assert told["exit_status"] == 1
    assert {"where": str(archive), "what": "was failed, is ok"} in told["changes"]


def test_listing_is_proven_where_none_of_it_is_missing(folder: Path) -> None:
    listing, raw, receipt = folder / "list.txt", folder / "raw", folder / "listed.json"
    names = [raw / f"{call}.tar.gz" for call in "ab"]
    listing.write_text("".join(f"{name}\n" for name in names))
    done = _prove(folder, "--manifest", listing, "--output", receipt)
    assert (done.status, done.err) == (0, "")
    (sentence,) = done.out.splitlines()
    assert sentence.startswith("callpress: the vendor lists 2; 2 whole, 0 named; 0 packets and")
    before = json.loads(receipt.read_bytes())["listing"]

    # What is damaged is missing, as is what nobody pressed.
    listing.write_text("".join(f"{name}\n" for name in (*names, raw / "c.tar.gz", raw / "d.tar")))
    done = _prove(folder, "--manifest", listing, "--output", receipt)
    assert done.status == 1
    failed, absent, sentence = done.out.splitlines()
    assert absent.startswith(f"missing, absent: {raw / 'd.tar'}: the catalog has nothing of it")
    assert failed.startswith(f"missing, failed: {raw / 'c.tar.gz'}: failed once: ArchiveError")
    assert sentence.startswith(
        "callpress: not proven (2 of the listing missing): the vendor lists 4; 2 whole, 2 named; "
    )
    found = json.loads(receipt.read_bytes())["listing"]
    assert found["sha256"] != before["sha256"]
    assert [entry["state"] for entry in found["named"]] == ["failed", "absent"]
    states = ("listed", "pressed", "failed", "absent", "missing")
    assert [found[state] for state in states] == [4, 2, 1, 1, 2]
    done = _prove(folder, "--check", receipt)
    assert done.status == 1
    assert done.out.endswith("; nothing has changed since\n")

    listing.write_bytes(b'{"recordings": [{"url": 1, "filename": 2}]}')
    done = _prove(folder, "--manifest", listing, "--output", receipt)
    assert done.status == 1
    assert f"not read: {listing}: " in done.out
    assert "not proven (1 of the listing not readable): the vendor lists 0" in done.out
    assert _prove(folder, "--manifest", folder / "nowhere").status == 2


def test_run_at_work_proves_nothing(folder: Path) -> None:
    catalog = folder / "pressed" / "catalog"
    state = {"run_id": "night", "host": "elsewhere", "pid": 1, "expires_unix_s": time.time() + 60}
    (catalog / lock.NAME).write_text(json.dumps(state))
    done = _prove(folder, "--output", folder / "later.json")
    assert done.status == 1
    assert "run night on elsewhere (process 1) was at work over the catalog" in done.out
    assert "callpress: not proven (a run was at work): the catalog has" in done.out
    assert json.loads((folder / "later.json").read_bytes())["run_at_work"].startswith("run night")
    done = _check(folder)
    assert done.status == 1
    assert "run night on elsewhere (process 1) was at work" in done.out


def test_run_that_came_and_went_meanwhile_proves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = iter(["before", "after"])
    monkeypatch.setattr(lock, "last_state", lambda _: next(states))
    done = _prove(folder)
    assert done.status == 1
    assert "a run that has ended meanwhile was at work" in done.out


def test_receipt_of_another_catalog_is_told(pressed: Path, tmp_path: Path) -> None:
    other = shutil.copytree(pressed / "kept", tmp_path / "other")
    receipt = pressed / RECEIPT
    done = callpress("prove", "--check", receipt, "--catalog", other / "catalog")
    assert done.status == 1
    catalog = pressed / "pressed" / "catalog"
    assert f"it is of the catalog {catalog}, --catalog is {other / 'catalog'}" in done.out
    # The same one by another name is the same.
    (tmp_path / "link").symlink_to(pressed / "pressed")
    same = callpress("prove", "--check", receipt, "--catalog", tmp_path / "link" / "catalog")
    assert same.status == 0


def test_catalog_of_an_earlier_version_is_not_proven(tmp_path: Path) -> None:
    catalog = shutil.copytree(ROOT / "tests" / "data" / "catalog_3a91846", tmp_path / "catalog")
    done = callpress("prove", "--catalog", catalog, "--fast")
    assert done.status == 1
    assert "callpress: not known: 5 tracks have no account of their dumps" in done.out
    assert "0.0 s unaccounted but for 5 rows where it is not known" in done.out


def test_receipt_that_cannot_be_written_is_told(pressed: Path) -> None:
    catalog = pressed / "pressed" / "catalog"
    (pressed / "file").write_bytes(b"")
    for place, status, said in (
        (pressed / "pressed", 2, "is a folder, expected the name of a file in it"),
        (catalog / "tracks" / "receipt.json", 2, "lies in the table tracks"),
        ("https://example.test/receipt.json", 2, "https:// is read only"),
        (pressed / "file" / "receipt.json", 1, "cannot be written: "),
    ):
        done = _prove(pressed, "--output", place)
        assert done.status == status
        assert said in done.err
    done = callpress("prove", "--catalog", pressed / "raw")
    assert (done.status, "there is no catalog" in done.err) == (1, True)


def test_lines_of_the_page_do_what_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names = [folder / "raw" / f"{call}.tar.gz" for call in "ab"]
    Path("listing.json").write_text("".join(f"{name}\n" for name in names))
    page = (ROOT / "docs" / "receipts.md").read_text("utf-8")
    digests: list[list[str]] = []
    told: dict[str, str] = {}
    for language, block in re.findall(r"```(sh|sql)\n(.*?)```", page, re.DOTALL):
        if language == "sql":
            rows = duckdb.execute(block).fetchall()
            if block.startswith("SELECT"):
                digests = [[str(cell) for cell in row] for row in rows]
            continue
        for line in block.splitlines():
            if line.startswith("callpress "):
                done = callpress(*shlex.split(line)[1:])
                assert done.status == 0, (line, done.out, done.err)
                told[line] = done.out
            else:
                shell = subprocess.run(
                    ["bash", "-euo", "pipefail", "-c", line], capture_output=True, text=True
                )
                assert shell.returncode == 0, (line, shell.stderr)
                told[line] = shell.stdout
    outs = list(told.values())
    assert "the vendor lists 2; 2 whole" in outs[2]
    key = next(told[line].split()[0] for line in told if line.endswith("-outform DER | sha256sum"))
    assert f"signed by a key that nobody vouched for, {key}" in outs[3]
    assert f"signed by the key that was given, {key}" in outs[4]
    assert outs[5].endswith("; nothing has changed since\n")
    assert "Signature Verified Successfully\n" in outs
    of_receipt = next(told[line] for line in told if line.endswith("@tsv' receipt.json"))
    assert [line.split("\t") for line in of_receipt.splitlines()] == digests
    assert len(Path("files.sha256").read_text().splitlines()) == 6
