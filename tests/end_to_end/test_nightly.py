"""Night after night: what a dry run tells, how often what fails is tried, what verify finds, the
shapes programs read.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.support.beam import archive_row_of, write_rows
from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, tone
from tests.support.command import callpress, copy_tree, press, query
from tests.support.job_run import JobRun
from transforms.elements import ArchiveRef
from transforms.media.wall_time import utc_date
from transforms.sources import archive_files


def _write_call(path: Path, call: str, *names: str) -> None:
    people = [
        Participant(
            participant_id=name,
            segments=[Segment(packets=encode_opus(tone(300 + n, 1)), ssrc=n + 1)],
        )
        for n, name in enumerate(names)
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(make_call_archive(people, call_id=call, call_session_id=call))


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    _write_call(tmp_path / "raw" / "a.tar.gz", "a", "alice")
    _write_call(tmp_path / "raw" / "b.tar.gz", "b", "bob")
    (tmp_path / "raw" / "broken.tar.gz").write_bytes(b"no archive at all")
    return tmp_path / "raw"


def _dry_run(tmp_path: Path, *flags: object) -> dict[str, Any]:
    """Returns what a dry run says of each archive by its name, and checks that it writes nothing
    but the JSON.
    """
    summary = tmp_path / "plan.json"
    summary.unlink(missing_ok=True)
    before = _tree(tmp_path)
    command = (
        "run",
        "--input",
        tmp_path / "raw" / "*",
        "--output",
        tmp_path / "out",
        "--dry_run",
        *flags,
    )
    done = callpress(*command)
    assert done.status == 0, done.err
    assert _tree(tmp_path) == before
    callpress(*command, "--summary-json", summary)
    plan: dict[str, Any] = json.loads(summary.read_text())
    for verb in ("press", "skip"):
        for entry in plan[verb]:
            assert (
                f"{verb}\t{entry['why']}\t{entry['size_bytes']}\t{entry['archive_uri']}\n"
                in done.out
            )
    return plan


def _reasons(plan: dict[str, Any], verb: str) -> dict[str, str]:
    return {Path(entry["archive_uri"]).name: entry["why"] for entry in plan[verb]}


def _a_day_passes(out: Path) -> None:
    """Moves back by a day when the archives of a catalog were tried."""
    for file in (out / "catalog" / "archives").rglob("*.parquet"):
        rows = pq.ParquetFile(file).read()
        place = rows.schema.get_field_index("processed_at")
        tried = pc.subtract(rows.column(place), pa.scalar(timedelta(days=1)))
        pq.write_table(rows.set_column(place, rows.schema.field(place), tried), file)


# --- the dry run ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_dry_run_tells_what_the_run_then_does(raw: Path, tmp_path: Path) -> None:
    plan = _dry_run(tmp_path)
    assert plan["archives"] == {"listed": 3, "to_press": 3, "to_skip": 0, "to_wait": 0}
    assert _reasons(plan, "press") == {"a.tar.gz": "new", "b.tar.gz": "new", "broken.tar.gz": "new"}
    assert plan["bytes_to_press"] == sum(path.stat().st_size for path in raw.iterdir())
    callpress("run", "--input", raw / "*", "--output", tmp_path / "out")
    _a_day_passes(tmp_path / "out")
    _write_call(raw / "new.tar.gz", "new", "nora")
    os.utime(raw / "b.tar.gz", (1_760_000_000, 1_760_000_000))

    plan = _dry_run(tmp_path)

    assert _reasons(plan, "skip") == {"a.tar.gz": "done: ok"}
    assert _reasons(plan, "press") == {
        "b.tar.gz": "new",  # by its new date: the catalog knows it under the old one
        "broken.tar.gz": "failed before, try 2 of 3",
        "new.tar.gz": "new",
    }
    assert plan["bytes_to_skip"] == (raw / "a.tar.gz").stat().st_size
    done = callpress("run", "--input", raw / "*", "--output", tmp_path / "out")
    assert "4 listed, 1 skipped, 2 ok, 1 failed" in done.out


@pytest.mark.slow
def test_dry_run_names_every_reason(raw: Path, tmp_path: Path) -> None:
    callpress("run", "--input", raw / "*", "--output", tmp_path / "out")
    stamp = (raw / "b.tar.gz").stat()
    _write_call(raw / "b.tar.gz", "b", "bob", "bert")
    os.utime(raw / "b.tar.gz", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert _reasons(_dry_run(tmp_path), "press") == {
        "b.tar.gz": "changed",
        "broken.tar.gz": "failed before, try 1 of 3",
    }
    config = tmp_path / "ogg.toml"
    config.write_text('[individual]\ncontainer = "ogg"\n')
    assert _reasons(_dry_run(tmp_path, "--config", config), "press")["a.tar.gz"] == "other settings"
    assert _reasons(_dry_run(tmp_path, "--overwrite"), "press")["a.tar.gz"] == "overwrite"
    assert _reasons(_dry_run(tmp_path, "--since", "2100-01-01"), "press") == {}
    (tmp_path / "out" / "catalog" / "callpress.unfinished").mkdir()
    note = {"call": ["default", "a", "a"], "archive_uris": [str(raw / "a.tar.gz")]}
    (tmp_path / "out" / "catalog" / "callpress.unfinished" / "x.json").write_text(json.dumps(note))
    assert _reasons(_dry_run(tmp_path), "press")["a.tar.gz"] == "unfinished"


def test_dry_run_fails_as_the_run_would(tmp_path: Path) -> None:
    done = callpress(
        "run", "--input", tmp_path / "*.tar.gz", "--output", tmp_path / "out", "--dry-run"
    )
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert "matches nothing" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_dry_run_over_ten_thousand_archives_takes_seconds(context: JobRun, tmp_path: Path) -> None:
    context = context.changed(catalog_uri=str(tmp_path / "out" / "catalog"))
    (tmp_path / "raw").mkdir()
    rows: dict[str, list[dict[str, Any]]] = {}
    for number in range(10_000):
        path = tmp_path / "raw" / f"{number:05}.tar.gz"
        path.touch()
        moment_ns = (1_760_000_000 + number % 20 * 86_400) * 10**9
        os.utime(path, ns=(moment_ns, moment_ns))
        if number % 10:
            ref = ArchiveRef(
                uri=str(path),
                size_bytes=0,
                modified_unix_ns=moment_ns,
                fingerprint=f"0-{moment_ns}",
            )
            rows.setdefault(utc_date(moment_ns), []).append(archive_row_of(ref, context))
    for date, found in rows.items():
        write_rows(context, "archives", found, date)
    began = time.monotonic()

    done = callpress(
        "run", "--input", tmp_path / "raw" / "*.tar.gz", "--output", tmp_path / "out", "--dry_run"
    )

    assert "would press 1000 of 10000 archives" in done.out
    assert time.monotonic() - began < 15
    assert (
        archive_files.fingerprint(f"{tmp_path}/raw/00001.tar.gz")
        == f"0-{(1_760_000_000 + 86_400) * 10**9}"
    )


# --- much to press anew ---------------------------------------------------------------------------


@pytest.mark.slow
def test_other_settings_press_much_anew_only_when_asked_for(
    context: JobRun, tmp_path: Path
) -> None:
    """New archives are pressed all the same."""
    out = tmp_path / "out"
    context = context.changed(catalog_uri=str(out / "catalog"))
    _write_call(tmp_path / "raw" / "new.tar.gz", "new", "nora")
    rows = []
    for number in range(200):
        path = tmp_path / "raw" / f"{number:03}.tar.gz"
        path.touch()
        os.utime(path, (1_760_000_000, 1_760_000_000))
        ref = ArchiveRef(
            uri=str(path),
            size_bytes=0,
            modified_unix_ns=1_760_000_000 * 10**9,
            fingerprint=f"0-{1_760_000_000 * 10**9}",
        )
        rows.append(archive_row_of(ref, context))
    write_rows(context, "archives", rows, utc_date(1_760_000_000 * 10**9))
    config = tmp_path / "other.toml"
    config.write_text("[mp3]\nbitrate_kbps = 64\n")
    end = tmp_path / "end.json"
    command = ("run", "--input", tmp_path / "raw" / "*.gz", "--output", out, "--config", config)
    told = "200 of the 200 archives of the catalog would be pressed anew"

    plan = callpress(*command, "--dry_run")
    done = callpress(*command, "--summary-json", end)

    assert (plan.status, told in plan.out) == (0, True)
    assert "would press 1 of 201 archives" in plan.out
    assert "skip\tother settings, without --repress\t0\t" in plan.out
    assert "would press 200 of 201" in callpress(*command, "--dry_run", "--repress").out
    assert (done.status, told in done.err) == (1, True)
    summary = json.loads(end.read_text())
    assert (summary["reason"], summary["exit_status"]) == ("repress_needed", 1)
    assert summary["counts"]["archives"]["ok"] == 1
    assert summary["counts"]["archives"]["skipped"] == 200
    assert summary["counts"]["archives"]["failed"] == 0
    assert (summary["repress"]["archives"], summary["repress"]["is_refused"]) == (200, True)
    found = query(out / "catalog", "archives")
    assert len(found) == 201
    assert sum(row["run_id"] == "earlier" for row in found) == 200


# --- tries ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_fails_is_tried_night_by_night_and_then_left_with_its_row(
    raw: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = ("run", "--input", raw / "*", "--output", out)
    for night in (1, 1, 2, 3):
        first = not out.exists()
        done = callpress(*run)
        assert done.status == (1 if first else 0)  # known failures ring no bell
        assert ("1 failed (1 of them failed before)" in done.out) != first
        assert ("1 of the 3 archives attempted for the first time failed" in done.err) == first
        (failure,) = query(out / "catalog", "failures")
        assert failure["attempt"] == night
        archives = {
            Path(row["archive_uri"]).name: row for row in query(out / "catalog", "archives")
        }
        assert (archives["broken.tar.gz"]["status"], archives["broken.tar.gz"]["attempts"]) == (
            "failed",
            night,
        )
        assert archives["a.tar.gz"]["attempts"] == 1
        if not first:  # the second run is one of the same day
            _a_day_passes(out)

    done = callpress(*run, "--summary-json", tmp_path / "summary.json")

    assert done.status == 0  # nothing was attempted
    assert json.loads((tmp_path / "summary.json").read_text())["counts"]["archives"] == {
        "listed": 3, "skipped": 3, "ok": 0, "partial": 0, "failed": 0, "empty": 0, "waiting": 0,
    }  # fmt: skip
    assert len(query(out / "catalog", "failures")) == 1
    assert _reasons(_dry_run(tmp_path), "skip")["broken.tar.gz"] == "failed 3 times"
    # Replaced by a good one it is tried at once, and the row goes.
    _write_call(raw / "broken.tar.gz", "c", "carol")
    assert callpress(*run).status == 0
    assert query(out / "catalog", "failures") == []


def test_summary_json_of_a_run_that_failed_in_part_has_this_shape(
    raw: Path, tmp_path: Path
) -> None:
    callpress(
        "run",
        "--input",
        raw / "*",
        "--output",
        tmp_path / "out",
        "--summary_json",
        tmp_path / "summary.json",
    )
    found = json.loads((tmp_path / "summary.json").read_text())
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", found.pop("run_id"))
    for name in (
        "started_at",
        "finished_at",
        "cpu_seconds",
        "media_seconds",
        "bytes_read",
        "bytes_written",
    ):
        del found[name]
    (failure,) = found.pop("failures")
    assert failure == {
        "stage": "UnpackArchives",
        "error_type": "ArchiveError",
        "message": failure["message"],
        "archive_uri": str(raw / "broken.tar.gz"),
        "member": None,
        "participant_id": None,
        "user_session_id": None,
        "output_type": None,
        "byte_offset": None,
        "attempt": 1,
        "retryable": False,
        "call_cid": None,
        "call_session_id": None,
    }
    assert found == {
        "exit_status": 1,
        "reason": "too_many_failed",
        "repress": None,
        "reconcile": None,
        "notices": None,
        "unmatched": [],
        "claimed_seconds": 1.96,
        "missing_seconds": 0.0,
        "first_time": {"ok": 2, "partial": 0, "failed": 1, "empty": 0},
        "counts": {
            "archives": {
                "listed": 3,
                "skipped": 0,
                "ok": 2,
                "partial": 0,
                "failed": 1,
                "empty": 0,
                "waiting": 0,
            },
            "calls": {"ok": 2, "partial": 0, "failed": 0, "empty": 0},
            "recordings": 4,
            "failures": 1,
            "left_out": 0,
            "passed_over": {"composite": 0, "individual": 0, "other_event": 0},
        },
        "told": [
            "1 of the 3 archives attempted for the first time failed or are partial, more than 5% "
            "of them (max_failed_ratio)"
        ],
    }


# --- verify ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output that is as it should be; not to be changed."""
    folder = tmp_path_factory.mktemp("verified")
    for call in ("a", "b"):
        _write_call(folder / "raw" / f"{call}.tar.gz", call, "alice", "bob")
    press(folder / "out", folder / "raw" / "*")
    return folder / "out"


def test_verify_of_what_is_right_is_one_line(verified: Path) -> None:
    before = _tree(verified)
    for flags in (
        ("--catalog", verified / "catalog"),
        ("--output", verified),
        ("--output", verified, "--fast"),
    ):
        done = callpress("verify", *flags)
        assert (done.status, done.err) == (0, "")
        assert re.fullmatch(
            r"callpress: 6 rows of recordings, 6 files, \S+ MB, 10 tables: "
            r"all there, size.* as in the catalog\n",
            done.out,
        )
    assert _tree(verified) == before


def _recording(out: Path, kind: str = "*.mkv") -> Path:
    return sorted((out / "recordings").rglob(kind))[0]


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _table(out: Path, name: str) -> Path:
    return next((out / "catalog" / name).rglob("*.parquet"))


def _double(path: Path) -> None:
    table = pq.ParquetFile(path).read()
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), path)


def _double_without_part(path: Path) -> None:
    """Adds the first row again, as a version without parts wrote it."""
    table = pq.ParquetFile(path).read()
    index = table.schema.get_field_index("part")
    old = table.slice(0, 1).set_column(index, table.schema.field(index), pa.nulls(1, pa.int64()))
    pq.write_table(pa.concat_tables([table, old]), path)


@pytest.mark.parametrize(
    ("harm", "said", "also_fast"),
    [
        (
            lambda out: _recording(out).unlink(),
            r"/a/.*\.mkv: it is not there, a row of recordings names it",
            True,
        ),
        (
            lambda out: _recording(out).write_bytes(b"x"),
            r"\.mkv: it has 1 bytes, its row says \d+",
            True,
        ),
        (
            lambda out: _flip(_recording(out)),
            r"\.mkv: its SHA-256 is [0-9a-f]{64}, its row says [0-9a-f]{64}",
            False,
        ),
        (lambda out: _flip(_recording(out, "*.mp3")), r"\.mp3: its SHA-256 is", False),
        (
            lambda out: (out / "recordings" / "x.mkv").touch(),
            r"recordings/x\.mkv: it has no row in recordings",
            True,
        ),
        (
            lambda out: _double(_table(out, "recordings")),
            r"more than one row of recordings names it|more than one row of call_",
            True,
        ),
        (
            lambda out: _double(_table(out, "tracks")),
            r"part-0\.parquet: tracks has more than one row of call_type 'default'",
            True,
        ),
        (
            lambda out: _double_without_part(_table(out, "tracks")),
            r"part-0\.parquet: tracks has more than one row of call_type 'default'",
            True,
        ),
        (
            lambda out: _table(out, "speech").write_bytes(b"PAR1"),
            r"part-0\.parquet: not a Parquet file",
            True,
        ),
        (lambda out: _table(out, "runs").unlink(), r"/runs: the table has no file", True),
        (
            lambda out: (_table(out, "calls").parent / ".x.partial").touch(),
            r"\.x\.partial: it is no object of the table",
            True,
        ),
    ],
    ids=[
        "gone",
        "short",
        "changed",
        "mix changed",
        "stray",
        "row twice",
        "key twice",
        "key twice, once without part",
        "no parquet",
        "no table",
        "partial",
    ],
)
def test_verify_names_what_is_wrong(
    verified: Path, tmp_path: Path, harm: Callable[[Path], object], said: str, also_fast: bool
) -> None:
    # Rows name files by absolute paths: the copy gets rows of its own.
    out = copy_tree(verified, tmp_path / "out")
    for path in (out / "catalog" / "recordings").rglob("*.parquet"):
        table = pq.ParquetFile(path).read()
        moved = [uri.replace(str(verified), str(out)) for uri in table.column("uri").to_pylist()]
        pq.write_table(
            table.set_column(
                table.schema.get_field_index("uri"), table.schema.field("uri"), [moved]
            ),
            path,
        )
    assert callpress("verify", "--catalog", out / "catalog").status == 0
    harm(out)

    done = callpress("verify", "--catalog", out / "catalog")
    as_json = callpress("verify", "--catalog", out / "catalog", "--json")

    assert done.status == as_json.status == 1
    assert re.search(said, done.out), done.out
    assert re.search(r"\d wrong\n$", done.out)
    assert "Traceback" not in done.err
    assert json.loads(as_json.out)["problems"] != []
    assert callpress("verify", "--catalog", out / "catalog", "--fast").status == (
        1 if also_fast else 0
    )


def test_verify_of_a_catalog_that_is_not_there_says_so(tmp_path: Path) -> None:
    done = callpress("verify", "--catalog", tmp_path / "none")
    assert done.status == 1
    assert (done.out, done.err.count("\n")) == ("", 1)
    assert f"--catalog {tmp_path / 'none'}: there is no catalog" in done.err
    assert callpress("verify").status == 2


def test_verify_tells_of_a_run_at_work(verified: Path, tmp_path: Path) -> None:
    out = copy_tree(verified, tmp_path / "out")
    state = {"run_id": "night", "host": "elsewhere", "pid": 1, "expires_unix_s": time.time() + 60}
    (out / "catalog" / "callpress.lock").write_text(json.dumps(state))
    assert (
        "run night on elsewhere (process 1) is at work"
        in callpress("verify", "--catalog", out / "catalog", "--fast").err
    )


def test_what_a_killed_run_left_among_the_tables_is_gone_after_the_next(
    verified: Path, tmp_path: Path
) -> None:
    out = copy_tree(verified, tmp_path / "out")
    left = _table(out, "calls").parent / ".part-0.parquet.123.partial"
    left.write_bytes(b"half")
    press(out, verified.parent / "raw" / "*")
    assert not left.exists()
    assert not list(out.rglob("*.partial"))
