"""`callpress reconcile` after real runs, and what a run from a listing tells at its end."""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.run_summary import lines_of_listing
from tests.end_to_end.test_manifests import LONG_AGO, PLANTED, TODAY, archive, listing, sign
from tests.end_to_end.test_manifests import recording as _recording
from tests.support.command import Finished, callpress
from tests.support.listings import DAY_NS, HOUR_NS, TERMS, row_of, write_archives
from tests.support.locks import acquire
from tests.support.tls_site import Page, Site
from transforms.filters import Filters
from transforms.locking.lock import NAME
from transforms.proof.at_end import reconcile_at_end
from transforms.proof.listing import ListedRecording


def recording(link: str, session: str, age_ns: int = DAY_NS, signed_at: str = TODAY) -> Any:
    """Returns what the vendor lists of a recording that ended so long ago."""
    ended = time.time_ns() - age_ns
    times: dict[str, Any] = {"start_time": ended - HOUR_NS, "end_time": ended}
    return _recording(sign(link, signed_at), session_id=session, **times)


def run(output: Path, *flags: object) -> dict[str, Any]:
    """Runs; returns the end result."""
    end = output.parent / "end.json"
    callpress("run", "--output", output, "--allow-private-addresses", "--summary-json", end, *flags)
    found: dict[str, Any] = json.loads(end.read_text())
    return found


def reconcile(manifest: Path, output: Path, *flags: object) -> dict[str, Any]:
    """Reconciles; returns what programs are told."""
    done = _reconcile(manifest, output, "--json", *flags)
    found: dict[str, Any] = json.loads(done.out)
    assert done.status == found["exit_status"]
    assert PLANTED not in done.out + done.err
    return found


def _reconcile(manifest: Path, output: Path, *flags: object) -> Finished:
    return callpress(
        "reconcile", "--manifest", manifest, "--catalog", output / "catalog",
        "--allow-private-addresses", *flags,
    )  # fmt: skip


def states(found: dict[str, Any], under: str = "recordings") -> dict[str, tuple[str, bool]]:
    """Returns by file name what became of recordings, and whether they are missing."""
    return {
        each["uri"].rpartition("/")[2]: (each["state"], each["is_missing"]) for each in found[under]
    }


def test_night_names_what_was_withheld_broken_and_expired(tls_site: Site, tmp_path: Path) -> None:
    """At its own end, and to whoever asks with the whole listing."""
    out, manifest = tmp_path / "out", tmp_path / "listing.json"
    pages = {"one": archive("one"), "bad": b"no archive at all", "withheld": archive("withheld")}
    links = {name: tls_site.put(f"/{name}", data) for name, data in pages.items()}
    links["late"] = tls_site.put("/late", Page(status=403))
    of_run = [recording(links[name], f"session-{name}") for name in ("one", "bad")]
    of_run.append(recording(links["late"], "session-late", signed_at=LONG_AGO))
    manifest.write_text(listing(*of_run))

    end = run(out, "--manifest", manifest)
    withheld = recording(links["withheld"], "session-withheld")
    manifest.write_text(listing(*of_run, withheld, of_run[0]))
    found = reconcile(manifest, out)

    assert states(end["reconcile"], "not_pressed") == {
        "late": ("failed", True), "bad": ("failed", True),
    }  # fmt: skip
    assert end["reconcile"]["counts"] == {
        "pressed": 1, "partial": 0, "failed": 2, "waiting": 0, "absent": 0, "missing": 2,
    }  # fmt: skip
    assert states(found) == {
        "one": ("pressed", False), "bad": ("failed", True), "late": ("failed", True),
        "withheld": ("absent", True),
    }  # fmt: skip
    assert found["listing"]["counts"]["repeated"] == 1
    late = next(each for each in found["recordings"] if each["uri"] == links["late"])
    assert late["why"].startswith("failed once: LinkExpiredError: ")
    assert late["remedy"] == "ask the vendor for a newer listing, and run over that"
    assert late["days_left"] == pytest.approx(13, abs=0.02)

    done = _reconcile(manifest, out)
    *lines, last = done.out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "missing, failed", "missing, failed", "missing, absent",
    ]  # fmt: skip
    assert last == (
        "callpress: 4 recordings listed: 1 pressed, 2 failed, 1 absent; 3 of them missing"
    )
    assert (done.status, done.err) == (1, "")


def test_bounded_night_in_portions_tells_what_waits(tls_site: Site, tmp_path: Path) -> None:
    """The manifest is read by its first portion, and all is told by its last."""
    out, manifest = tmp_path / "out", tmp_path / "listing.json"
    names = ("one", "two", "three")
    links = {name: tls_site.put(f"/{name}", archive(name)) for name in names}
    manifest.write_text(listing(*(recording(links[name], f"session-{name}") for name in names)))

    end = run(out, "--manifest", manifest, "--max-archives", 2, "--portion-archives", 1)
    found = reconcile(manifest, out)

    assert sorted(states(found).values()) == [
        ("pressed", False), ("pressed", False), ("waiting", False),
    ]  # fmt: skip
    assert found["exit_status"] == 0
    assert end["reconcile"]["counts"] == found["counts"]
    (waits,) = end["reconcile"]["not_pressed"]
    assert waits["why"] == "a run with a bound left it to the next one"


def test_copies_of_recordings_are_found_by_file_name_within_their_session(
    tls_site: Site, tmp_path: Path
) -> None:
    """Two of one call, of which the vendor lists one; and one that another session has."""
    raw, out, manifest = tmp_path / "raw", tmp_path / "out", tmp_path / "listing.json"
    for name, call in (("a b.tar.gz", "one"), ("b.tar.gz", "one"), ("c.tar.gz", "two")):
        raw.mkdir(exist_ok=True)
        start_ms = 5_000 if name == "b.tar.gz" else 0
        (raw / name).write_bytes(archive(call, name[0], start_ms=start_ms))
    assert run(out, "--input", raw / "*")["reconcile"] is None
    manifest.write_text(
        listing(
            recording("https://vendor.test/x/a%20b.tar.gz", "session-one"),
            recording("https://vendor.test/x/c.tar.gz", "session-three", age_ns=HOUR_NS),
        )
    )

    found = reconcile(manifest, out)

    assert states(found) == {"a%20b.tar.gz": ("pressed", False), "c.tar.gz": ("absent", False)}
    assert found["recordings"][0]["archive_uri"] == str(raw / "a b.tar.gz")
    assert found["recordings"][0]["matched_by"] == "file_name"
    assert found["exit_status"] == 0
    assert reconcile(manifest, out, "--grace", "30m")["exit_status"] == 1


def test_run_tells_the_first_that_are_missing_and_how_many_more_there_are(tmp_path: Path) -> None:
    named = [ListedRecording(uri=f"/raw/{number:02}") for number in range(7)]
    (tmp_path / "archives").mkdir()
    found = reconcile_at_end(named, str(tmp_path), TERMS, Filters(), None)

    lines = lines_of_listing({"reconcile": found}, "gs://b/catalog")

    assert lines[0] == "7 recordings listed: 7 absent; 7 of them missing"
    assert [line.split(": ")[:2] for line in lines[2:7]] == [
        ["missing, absent", f"/raw/{number:02}"] for number in range(5)
    ]
    assert lines[7:] == [
        "and 2 more: callpress reconcile --manifest LISTING --catalog gs://b/catalog tells all"
    ]
    nothing = reconcile_at_end([], str(tmp_path), TERMS, Filters(), None)
    assert lines_of_listing({"reconcile": nothing}, "") == []
    assert lines_of_listing({"reconcile": None}, "") == []


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """One with an archive of another call."""
    write_archives(tmp_path / "catalog", [("2026-01-05", row_of("/raw/other", ["other"], "ok"))])
    return tmp_path / "catalog"


def test_listing_of_another_catalog_is_said(catalog: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "listing.json"
    manifest.write_text(listing(recording("https://vendor.test/a", "session-a")))

    done = _reconcile(manifest, tmp_path)

    assert done.status == 1
    assert "callpress: the catalog has nothing of this listing: it may be that of" in done.out


def test_empty_listing_is_said_and_nothing_is_missing(
    catalog: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"recordings": []}')))

    done = callpress("reconcile", "--manifest", "-", "--catalog", catalog)

    assert (done.status, done.err) == (0, "")
    assert done.out == "callpress: the listing names no recording\n"


def test_entries_that_cannot_be_read_end_with_1(catalog: Path, tmp_path: Path) -> None:
    """What else is listed is not known, though all that can be read is there."""
    (tmp_path / "listings").mkdir()
    other = {**recording("https://vendor.test/o", "s"), "recording_type": "composite"}
    (tmp_path / "listings" / "a.json").write_text(listing({"recording_type": "raw"}, other))
    (tmp_path / "listings" / "b.txt").write_text("/raw/other\n")
    (tmp_path / "listings" / "c.mp3").write_bytes(b"ID3\x04\x00" + bytes(5_000))

    done = _reconcile(tmp_path / "listings", tmp_path)

    assert done.status == 1
    entry, manifest, last = done.out.splitlines()
    where = f"{tmp_path}/listings/a.json: recordings[0]"
    assert entry == f"not read: {where}: url is missing, expected a link"
    assert manifest.startswith(f"not read: {tmp_path}/listings/c.mp3: a manifest of no known shape")
    assert last == (
        "callpress: 1 recording listed: 1 pressed; none is missing; 2 entries or listings could "
        "not be read: what else is listed is not known"
    )
    assert "passed over 1 composite recording" in done.err


def test_run_at_work_is_a_warning(catalog: Path, tmp_path: Path) -> None:
    acquire(catalog, "run-1", is_one_process=False)
    manifest = tmp_path / "listing.txt"
    manifest.write_text("/raw/other\n")

    done = _reconcile(manifest, tmp_path)

    assert (catalog / NAME).exists()
    assert done.status == 0
    assert done.err.startswith("callpress: warning: run run-1 on ")
    assert "is at work: what it has not published is not counted" in done.err
    assert "run run-1" in json.loads(_reconcile(manifest, tmp_path, "--json").out)["run_at_work"]


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (("--manifest", "TMP/list"), 2, "--catalog is required"),
        (("--catalog", "TMP/catalog"), 2, "--manifest is required"),
        (("--manifest", "", "--catalog", "x"), 2, "--manifest '' names nothing"),
        (("--manifest", "TMP/list", "--catalog", "x", "--grace", "soon"), 2, "--grace soon: exp"),
        (("--manifest", "TMP/none", "--catalog", "TMP/catalog"), 2, "none: No such file or dir"),
        (("--manifest", "TMP/song", "--catalog", "TMP/catalog"), 2, "song: a manifest of no known"),
        (("--manifest", "TMP/list", "--catalog", "TMP/none"), 1, "none: there is no catalog"),
        (("--manifest", "TMP/list", "--catalog", "TMP/bad"), 1, "not a Parquet file"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(
    flags: tuple[str, ...], status: int, message: str, catalog: Path, tmp_path: Path
) -> None:
    (tmp_path / "song").write_bytes(b"ID3\x04\x00" + bytes(5_000))
    (tmp_path / "list").write_text("/raw/other\n")
    bad = tmp_path / "bad/archives/call_date=2026-01-05/part-0.parquet"
    bad.parent.mkdir(parents=True)
    bad.write_bytes(b"PAR1" + bytes(100))

    done = callpress("reconcile", *(flag.replace("TMP", str(tmp_path)) for flag in flags))

    assert (done.status, done.out) == (status, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def test_standard_input_that_is_closed_is_wrong_usage(
    catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a service manager may start a job."""
    monkeypatch.setattr("sys.stdin", None)
    done = callpress("reconcile", "--manifest", "-", "--catalog", catalog)
    assert (done.status, done.out) == (2, "")
    assert "--manifest -: standard input is closed" in done.err
