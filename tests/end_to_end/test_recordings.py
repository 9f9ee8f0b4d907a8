"""`callpress recordings` and `callpress get`, as people and programs use them."""

from __future__ import annotations

import csv
import io
import json
import re
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.support import schemas
from tests.support.beam import CALL_DATE
from tests.support.cloud_servers import CloudServer
from tests.support.command import Finished, callpress, query
from tests.support.locks import acquire
from tests.support.shelf import EVERYBODY, Shelf, write_object
from tests.support.stream_sdk import importable_sdk
from transforms.storage import objects

CALL = "default:weekly-sync"


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def _listed(catalog: Path, *arguments: object) -> Finished:
    return callpress("recordings", *arguments, "--catalog", catalog)


def _rows(catalog: Path, table: str) -> list[dict[str, Any]]:
    return [row for row in query(catalog, table) if row["call_cid"] == CALL]


def _entries(catalog: Path, *arguments: object) -> list[dict[str, Any]]:
    done = _listed(catalog, *arguments, "--json")
    assert (done.status, done.err) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.out)["recordings"]
    return found


# --- a list ---------------------------------------------------------------------------------------


def test_list_is_the_published_example(pressed: Path) -> None:
    done = _listed(
        pressed / "catalog", CALL, "--json",
        "--url-base", "https://recordings.example.com/pressed/",
    )  # fmt: skip

    found = json.loads(done.out.replace(str(pressed), "/data/pressed"))
    example = schemas.examples("recordings")["recordings"]
    run_ids = {each["callpress"].pop("run_id") for each in found["recordings"]}
    example_ids = {each["callpress"].pop("run_id") for each in example["recordings"]}
    assert len(run_ids) == len(example_ids) == 1
    assert {**found, "duration": example["duration"]} == example


def test_vendors_own_sdk_reads_the_list(pressed: Path) -> None:
    done = _listed(pressed / "catalog", CALL, "--json")
    with importable_sdk():
        from getstream.models import ListRecordingsResponse

        found = ListRecordingsResponse.from_json(done.out)
    rows = {row["filename"]: row for row in _rows(pressed / "catalog", "recordings")}

    assert re.fullmatch(r"\d+\.\d\dms", found.duration)
    assert len(found.recordings) == len(rows) == 6
    for each in found.recordings:
        row = rows[each.filename]
        assert (each.recording_type, each.session_id) == (
            row["recording_type"],
            row["call_session_id"],
        )
        for ours, theirs in (("start_time", each.start_time), ("end_time", each.end_time)):
            assert abs((row[ours] - theirs).total_seconds()) < 1e-6
        assert Path(unquote(urlsplit(each.url).path)).read_bytes()[:4]
        assert urllib.request.urlopen(each.url).read(4)


def test_table_has_what_people_look_for(shelf: Shelf) -> None:
    shelf.add("support-1", EVERYBODY, "ann", call={"status": "partial", "missing_ms": 1_400})
    shelf.add("x" * 4_096, "\x1b[2Jé" + "y" * 99, day=1)
    catalog = shelf.write()

    lines = _listed(catalog).out.splitlines()

    for line in lines:
        assert "\x1b" not in line
    assert lines[0].split() == [
        "call", "begins", "(UTC)", "length", "participant", "type", "status", "size", "url"
    ]  # fmt: skip
    assert lines[1].startswith(f"default:{'x' * 39}…  2026-01-06 10:00:00  0:01:00  \\x1b[2Jé")
    url = f"file://{shelf.folder}/recordings/default/c/s/mix-"
    assert re.fullmatch(
        r"default:support-1 +2026-01-05 10:00:00  0:01:00 +composite +partial \(1\.4 s missing\)  "
        rf"0\.1 kB  {re.escape(url)}[0-9a-f]{{12}}\.mp3",
        lines[2],
    )
    assert re.search(r"  0:00:59  ann +individual +ok ", lines[3])


def test_csv_has_all_and_nothing_that_a_spreadsheet_would_run(shelf: Shelf) -> None:
    ids = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", 'a,"b', "\r\nx", "plain"]
    shelf.add("a", EVERYBODY, *ids)

    done = _listed(shelf.write(), "--csv")

    rows = list(csv.DictReader(io.StringIO(done.out)))
    assert (done.status, done.err) == (0, "")
    assert [row["participant_id"] for row in rows] == [
        "", "'=cmd|' /C calc'!A0", "'+1", "'-1", "'@SUM(1)", 'a,"b', "\\r\\nx", "plain"
    ]  # fmt: skip
    assert rows[0]["start_time"] == "2026-01-05T10:00:00.000Z"
    assert (rows[0]["duration_ms"], rows[0]["status"]) == ("60000", "ok")


def test_url_base_stands_for_the_output(shelf: Shelf) -> None:
    (row,) = shelf.add("a", EVERYBODY)
    row["uri"] = "gs://bucket/some prefix/recordings/default/a~20b-1f/s#1/x y.mp3"
    catalog = shelf.write()

    (plain,) = _entries(catalog)
    (based,) = _entries(catalog, "--url-base", "https://cdn.example.com/calls/")

    assert plain["url"] == row["uri"]
    assert based["url"] == (
        "https://cdn.example.com/calls/recordings/default/a~20b-1f/s%231/x%20y.mp3"
    )


@pytest.mark.usefixtures("cloud_faults")
def test_files_in_a_bucket_are_opened_by_signed_urls_and_copied(
    shelf: Shelf, cloud: CloudServer, cloud_place: str
) -> None:
    for row in shelf.add("a", EVERYBODY, "ann"):
        data = shelf.put(row).read_bytes()
        row["uri"] = f"{cloud_place}/recordings/default/a/s/{row['filename']}"
        objects.write_bytes(row["uri"], data)

    found = _entries(shelf.write(), "--signed-urls", "1h")

    for each in found:
        assert each["url"].startswith("http://")
        with urllib.request.urlopen(each["url"]) as answer:
            assert len(answer.read()) == each["callpress"]["size_bytes"]
        assert "?" not in each["callpress"]["uri"]

    assert _got(shelf.catalog, "default:a", shelf.folder / "copies").status == 0
    assert len(list((shelf.folder / "copies").glob("*.m*"))) == 2


def test_filters_narrow_the_list(shelf: Shelf) -> None:
    for day in range(3):
        shelf.add("a", EVERYBODY, "ann", "bob", session=f"s{day}", day=day)
    catalog = shelf.write()

    def sessions(*flags: object) -> list[str]:
        return [each["session_id"] for each in _entries(catalog, *flags)]

    only_mixes = ("--type", "composite")
    assert sessions(*only_mixes) == ["s2", "s1", "s0"]
    assert sessions(*only_mixes, "--since", "2026-01-06") == ["s2", "s1"]
    assert sessions(*only_mixes, "--since", "2026-01-06", "--until", "2026-01-06") == ["s1"]
    assert sessions(*only_mixes, "--until", "2026-01-06T10:00:00Z") == ["s0"]
    assert sessions("default:a", "--participant", "ann", "--participant", "bob") == [
        "s2", "s2", "s1", "s1", "s0", "s0"
    ]  # fmt: skip
    assert sessions("--status", "ok", "--type", "composite", "--since", "2026-01-07") == ["s2"]
    assert json.loads(_listed(catalog, "--status", "partial", "--json").out)["recordings"] == []


def test_file_that_cannot_be_signed_among_others_is_told(
    shelf: Shelf, moto: CloudServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto.environment().items():
        monkeypatch.setenv(name, value)
    for day, place in enumerate(("s3://calls/x", "/disk", "s3://calls/x")):
        shelf.add("a", EVERYBODY, session=f"s{day}", day=day)[0]["uri"] = f"{place}/{day}.mp3"

    done = _listed(shelf.write(), "--signed-urls", "1h", "--json")

    found = json.loads(done.out)["recordings"]
    assert [each["session_id"] for each in found] == ["s2", "s0"]
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert done.err.startswith("callpress: /disk/1.mp3: no link to it can be signed")


# --- what is not there ----------------------------------------------------------------------------


def test_call_that_has_nothing_is_told_with_why(shelf: Shelf) -> None:
    shelf.add("a", "ann")
    shelf.add("broken", session="s1", call={"status": "failed"})
    catalog = shelf.write()

    missing = _listed(catalog, "default:b", "--json")
    failed = _listed(catalog, "default:broken")
    narrowed = _listed(catalog, "default:a", "--participant", "eve")

    assert (missing.status, json.loads(missing.out)["recordings"]) == (1, [])
    assert missing.err == f"callpress: default:b: the catalog {catalog} has no such call\n"
    assert (failed.status, failed.out) == (1, "")
    assert failed.err == (
        f"callpress: default:broken: no recording of its session s1 of {CALL_DATE}, which is "
        "failed; the table failures says why\n"
    )
    assert (narrowed.status, narrowed.out) == (0, "")
    assert narrowed.err == (
        "callpress: default:a: is there, and has no recording that is also of what else is asked "
        "for\n"
    )


def test_empty_catalog_is_no_error_and_none_is_one(tmp_path: Path) -> None:
    write_object(tmp_path / "catalog", "recordings", CALL_DATE, [])

    empty = _listed(tmp_path / "catalog")
    none = _listed(tmp_path / "nowhere")

    assert (empty.status, empty.out) == (0, "")
    assert empty.err == f"callpress: no recording in {tmp_path}/catalog\n"
    assert _listed(tmp_path / "catalog", "--csv").out.count("\n") == 1
    assert (none.status, none.err.count("\n")) == (1, 1)
    assert "there is no catalog" in none.err
    assert not (tmp_path / "nowhere").exists()


def test_damaged_object_leaves_whole_json(shelf: Shelf) -> None:
    shelf.add("a", EVERYBODY)
    shelf.add("b", EVERYBODY, day=1)
    catalog = shelf.write()
    damaged = catalog / "recordings" / f"call_date={CALL_DATE}" / "part-0.parquet"
    damaged.write_bytes(b"no table")

    done = _listed(catalog, "--json")

    assert [each["callpress"]["call_cid"] for each in json.loads(done.out)["recordings"]] == [
        "default:b"
    ]
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert done.err.startswith(f"callpress: {damaged}: not a Parquet file (")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--catalog is required"),
        (("a", "--catalog", "x"), "a: expected TYPE:ID, for example default:a"),
        (("--catalog", "x", "--csv", "--json"), "--csv and --json exclude each other"),
        (
            ("--catalog", "x", "--url-base", "https://x", "--signed-urls", "1h"),
            "exclude each other",
        ),
        (("--catalog", "x", "--url-base", "ftp://x"), "expected https://HOST"),
        (("--catalog", "x", "--url-base", "https://u:PLANTED@x/y?sig=PLANTED"), "expected https:"),
        (("--catalog", "x", "--signed-urls", "8d"), "--signed-urls 8d: expected more than nothing"),
        (("--catalog", "x", "--signed-urls", "0s"), "--signed-urls 0s: expected more than nothing"),
        (("--catalog", "x", "--since", "soon"), "--since soon: expected a day such as 2026-11-20"),
        (("--catalog", "x", "--until", ""), "--until : expected a day such as 2026-11-20"),
        (("--catalog", "x", "--status", "good"), "invalid choice: 'good'"),
    ],
)
def test_wrong_usage_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    done = callpress("recordings", *arguments)

    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert message in done.err
    assert "PLANTED" not in done.err


def test_file_on_a_disk_cannot_be_signed(pressed: Path) -> None:
    done = _listed(pressed / "catalog", "--signed-urls", "1h", "--json")

    assert (done.status, done.out, done.err.count("\n")) == (2, "", 1)
    assert "no link to it can be signed, expected a place in gs://, s3:// or azfs://" in done.err


# --- copies ---------------------------------------------------------------------------------------


def _got(catalog: Path, call: str, output: Path, *flags: object) -> Finished:
    return callpress("get", call, "--catalog", catalog, "--output", output, *flags)


def test_files_of_a_call_are_copied_with_its_rows(pressed: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "ticket"

    done = _got(pressed / "catalog", CALL, output)

    assert (done.status, done.err) == (0, "")
    names = sorted(path.name for path in output.iterdir())
    prefix = "default_weekly-sync"
    assert names == [
        f"{prefix}.json",
        f"{prefix}_20261122T061116Z_alice.mkv",
        f"{prefix}_20261122T061116Z_everybody.mp3",
        f"{prefix}_20261122T061119Z_bob.mkv",
        f"{prefix}_20261122T061124Z_carol.mkv",
        f"{prefix}_20261122T061129Z_dave.mkv",
        f"{prefix}_20261122T061129Z_dave_screenshare.mkv",
    ]
    assert [line.split("  ")[0] for line in done.out.splitlines()] != names
    assert sorted(line.split("  ")[0] for line in done.out.splitlines()) == names
    told = json.loads((output / f"{prefix}.json").read_text())
    for file in told["files"]:
        assert (output / file["file"]).read_bytes() == Path(file["uri"]).read_bytes()
        assert file["is_here"]
    catalog = pressed / "catalog"
    for table, rows in told["tables"].items():
        assert len(rows) == len(_rows(catalog, table)), table
    assert told["tables"]["calls"][0]["timeline_start_time"] == "2026-11-22T06:11:14.519000Z"

    again = _got(catalog, CALL, output)
    assert again.out.count("  there already\n") == 6


def test_one_participant_is_copied_with_rows_of_nobody_else(pressed: Path, tmp_path: Path) -> None:
    done = _got(pressed / "catalog", CALL, tmp_path, "--participant", "bob")

    assert done.status == 0
    assert len(list(tmp_path.glob("*.m*"))) == 1
    text = (tmp_path / "default_weekly-sync.json").read_text()
    tables = json.loads(text)["tables"]
    assert len(tables["calls"]) == 1
    whose = {
        row["participant_id"]
        for rows in tables.values()
        for row in rows
        if "track_count" not in row
    }
    assert whose == {"bob"}


def test_file_that_is_gone_is_told_and_the_rest_copied(shelf: Shelf, tmp_path: Path) -> None:
    mix, ann, bob = shelf.add("a", EVERYBODY, "ann", "bob")
    for row in (mix, bob):
        shelf.put(row)
    catalog, copies = shelf.write(), tmp_path / "copies"
    acquire(catalog, "run-1", is_one_process=False)

    done = _got(catalog, "default:a", copies)

    assert done.status == 1
    first, second = done.err.splitlines()
    assert first == (
        f"callpress: default_a_20260105T100001Z_ann.mkv: {ann['uri']}: it is not there, though "
        "the catalog has a row of it"
    )
    assert re.match(r"callpress: run run-1 on .* is at work, which may be replacing them", second)
    assert len(list(copies.glob("*.m*"))) == 2
    told = json.loads((copies / "default_a.json").read_text())["files"]
    assert [each["is_here"] for each in told] == [True, False, True]


def test_sessions_that_failed_are_in_the_rows(shelf: Shelf, tmp_path: Path) -> None:
    for row in shelf.add("a", "../../ann", session="s1"):
        shelf.put(row)
    shelf.add("a", session="s2", day=1, call={"status": "failed"})

    done = _got(shelf.write(), "default:a", tmp_path / "copies")

    (name, _) = done.out.splitlines()
    assert (done.status, done.err) == (0, "")
    assert re.fullmatch(r"default_a_20260105T100000Z_ann-[0-9a-f]{8}\.mkv  0\.1 kB", name)
    tables = json.loads((tmp_path / "copies" / "default_a.json").read_text())["tables"]
    assert [row["status"] for row in tables["calls"]] == ["ok", "failed"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catalog", "copies", "recordings"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--catalog", "C", "--output", "O"), 2, "get needs a call, expected TYPE:ID"),
        (("default:a", "--output", "O"), 2, "--catalog is required"),
        (("default:a", "--catalog", "C"), 2, "--output is required"),
        (("default:*", "--catalog", "C", "--output", "O"), 1, "default:*: the catalog"),
        (("default:a", "--catalog", "C", "--output", "gs://b/x"), 2, "expected a folder of this m"),
        (("default:b", "--catalog", "C", "--output", "O"), 1, "has no such call"),
        (
            ("default:a", "--catalog", "C", "--output", "O", "--until", "2020-01-01"),
            1,
            "is there, ",
        ),
    ],
)
def test_what_cannot_be_copied_is_one_line(
    shelf: Shelf, arguments: tuple[str, ...], status: int, message: str
) -> None:
    shelf.add("a", "ann")
    places = {"C": str(shelf.write()), "O": str(shelf.folder / "new")}

    done = callpress("get", *(places.get(each, each) for each in arguments))

    assert (done.status, done.out, done.err.count("\n")) == (status, "", 1)
    assert message in done.err
    assert not (shelf.folder / "new").exists()


def test_call_whose_id_looks_like_a_glob_is_that_call(shelf: Shelf, tmp_path: Path) -> None:
    for row in (*shelf.add("room [1-9]*", "ann"), *shelf.add("room 1", "bob", session="other")):
        shelf.put(row)
    catalog = shelf.write()

    done = _got(catalog, "default:room [1-9]*", tmp_path / "copies")

    assert (done.status, done.err) == (0, "")
    assert len(list((tmp_path / "copies").glob("*_ann.mkv"))) == 1
    assert len(list((tmp_path / "copies").iterdir())) == 2
    whose = [each["callpress"]["participant_id"] for each in _entries(catalog, "default:room*")]
    assert sorted(whose) == ["ann", "bob"]


def test_folder_that_cannot_be_written_is_one_line(shelf: Shelf) -> None:
    shelf.add("a", "ann")
    (shelf.folder / "file").write_text("")

    done = _got(shelf.write(), "default:a", shelf.folder / "file")

    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert str(shelf.folder / "file") in done.err
