"""Stores and disks that fail, by a real proxy before the storage emulator: tried again, then a row,
never a short file.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.cloud import storage

from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, noise, tone
from tests.support.command import callpress, query
from tests.support.storage_proxy import Faults
from tests.support.storage_servers import client_with_faults
from transforms.locking import lock
from transforms.media.errors import StorageError, StoreDownError
from transforms.storage import objects, retry

BUCKET = "gs://calls"
BIG = bytes(range(256)) * (9 << 12)
"""9 MB: more than the client uploads in one request."""


@pytest.fixture
def faults(gcs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """What is wrong between this process and the store; nothing at first."""
    with client_with_faults(gcs["STORAGE_EMULATOR_HOST"], monkeypatch) as faults:
        yield faults
    retry._health = retry._Health()


@pytest.fixture
def place(request: pytest.FixtureRequest) -> str:
    """A prefix in the bucket that is this test's own."""
    return f"{BUCKET}/{re.sub(r'[^a-z0-9]+', '-', request.node.name.lower())}"


# --- operations -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["short_ratio", "break_ratio", "unavailable_ratio"])
def test_read_that_fails_now_and_then_gives_all_bytes(
    faults: Faults, place: str, kind: str
) -> None:
    objects.write_bytes(f"{place}/x", BIG)
    setattr(faults, kind, 0.35)

    for _ in range(3):
        assert objects.read_bytes(f"{place}/x") == BIG
        with objects.open_input(f"{place}/x") as file:
            assert file.read() == BIG

    assert sum(faults.counts[name] for name in ("short", "broken", "unavailable")) >= 1


def test_body_that_always_comes_short_is_an_error_and_no_short_read(
    faults: Faults, place: str
) -> None:
    objects.write_bytes(f"{place}/x", b"x" * 1000)
    faults.short_ratio = 1

    with pytest.raises(StorageError, match=r"/x: 500 bytes came from byte 0, expected 1000"):
        objects.read_bytes(f"{place}/x")
    with (
        pytest.raises(StorageError, match="500 bytes came"),
        objects.open_input(f"{place}/x") as file,
    ):
        file.read()


def test_body_that_always_breaks_off_is_an_error(faults: Faults, place: str) -> None:
    objects.write_bytes(f"{place}/x", b"x" * 1000)
    faults.break_ratio = 1

    with pytest.raises(StorageError, match="Connection broken"):
        objects.read_bytes(f"{place}/x")


@pytest.mark.parametrize("size", [0, 100_000, len(BIG)])
@pytest.mark.parametrize("kind", ["lost_answer_ratio", "unavailable_ratio"])
def test_write_that_fails_now_and_then_arrives_whole(
    faults: Faults, place: str, tmp_path: Path, size: int, kind: str
) -> None:
    source = tmp_path / "work"
    setattr(faults, kind, 0.35)
    for number in range(2):
        source.write_bytes(BIG[:size])
        objects.publish(f"{place}/{number}", source)
        objects.write_bytes(f"{place}/other-{number}", BIG[:size])
    setattr(faults, kind, 0)

    for number in range(2):
        assert (
            objects.read_bytes(f"{place}/{number}")
            == objects.read_bytes(f"{place}/other-{number}")
            == BIG[:size]
        )


@pytest.mark.parametrize("size", [1000, len(BIG)], ids=["one request", "several"])
def test_upload_that_loses_its_end_is_sent_again(faults: Faults, place: str, size: int) -> None:
    faults.uploads_end_short = 1

    objects.write_bytes(f"{place}/x", BIG[:size])

    assert faults.counts["short upload"] == 1
    assert objects.read_bytes(f"{place}/x") == BIG[:size]


def test_upload_that_always_loses_its_end_is_an_error(faults: Faults, place: str) -> None:
    faults.uploads_end_short = 100

    with pytest.raises(StorageError, match=r"/x: other bytes arrived than were sent"):
        objects.write_bytes(f"{place}/x", b"x" * 1000)

    assert not objects.match(f"{place}/x")


def test_store_that_keeps_other_bytes_is_found_out(
    faults: Faults, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's own check is blind here, as older ones were."""
    faults.uploads_end_short = 100
    upload = storage.Blob.upload_from_file
    monkeypatch.setattr(
        storage.Blob,
        "upload_from_file",
        lambda blob, *args, **options: upload(blob, *args, **{**options, "checksum": None}),
    )

    with pytest.raises(StorageError, match="999 bytes arrived, expected 1000"):
        objects.write_bytes(f"{place}/x", b"x" * 1000)


def test_listing_and_deleting_many_under_faults(faults: Faults, place: str) -> None:
    for number in range(30):
        objects.write_bytes(f"{place}/keep/{number}", b"x")
        objects.write_bytes(f"{place}/drop/{number}", b"x")
    faults.unavailable_ratio = 0.3
    began = time.monotonic()

    assert len(objects.list_below(f"{place}/keep")) == 30
    objects.delete(f"{place}/keep/0")
    objects.delete(f"{place}/keep/0")
    objects.delete_below(f"{place}/drop")
    assert objects.has_match(f"{place}/keep/*")

    faults.unavailable_ratio = 0
    assert len(objects.list_below(f"{place}/keep")) == 29
    assert objects.list_below(f"{place}/drop") == []
    assert time.monotonic() - began < 30


def test_listing_tells_fingerprints_as_asking_for_each_does(faults: Faults, place: str) -> None:
    from transforms.sources import archive_files

    objects.write_bytes(f"{place}/a.tar.gz", b"one")
    objects.write_bytes(f"{place}/folder/p_timing_metadata.json", b"{}")
    faults.counts.clear()
    (archive,) = archive_files.find_archives(f"{place}/*.tar.gz").archives
    (folder,) = archive_files.find_archives(f"{place}/folder").archives
    requests = faults.counts["requests"]

    assert archive.fingerprint == archive_files.fingerprint(archive.uri)
    assert re.fullmatch(
        r"3-[\w+/]{6}==", archive.fingerprint
    )  # as Beam's checksum gave it: older catalogs stay right
    assert folder.fingerprint == archive_files.fingerprint(folder.uri)
    assert requests <= 4


def test_store_that_is_gone_is_told_from_objects_that_are_bad(
    faults: Faults, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_DOWN_SECONDS", 0.1)
    objects.write_bytes(f"{place}/good", b"x")
    faults.only, faults.unavailable_ratio = "/bad-", 1.0
    for number in range(3):
        with pytest.raises(StorageError, match="try later"):
            objects.read_bytes(f"{place}/bad-{number}")
        objects.read_bytes(f"{place}/good")  # it answers
    faults.dead = True
    began = time.monotonic()
    for name in ("x", "x", "y"):
        with pytest.raises(StorageError):
            objects.read_bytes(f"{place}/{name}")

    with pytest.raises(
        StoreDownError,
        match=r"^gs://calls has not answered for \d+ s, last with: .*; run again when it does$",
    ):
        objects.read_bytes(f"{place}/z")

    assert time.monotonic() - began < 60


# --- runs -----------------------------------------------------------------------------------------


def _archive(name: str, seconds: float = 2) -> bytes:
    packets = encode_opus(tone(440, seconds))
    people = [
        Participant(participant_id=f"{name}-{n}", segments=[Segment(packets=packets, ssrc=n)])
        for n in (1, 2)
    ]
    return make_call_archive(people, call_id=name, call_session_id=name)


def _put_archives(place: str, *names: str) -> tuple[str, ...]:
    for name in names:
        objects.write_bytes(f"{place}/raw/{name}.tar.gz", _archive(name))
    return (
        "run",
        "--input",
        f"{place}/raw/*.tar.gz",
        "--output",
        f"{place}/out",
        f"--temp_location={place}/tmp",
    )


def _query(place: str, table: str, tmp_path: Path) -> list[dict[str, object]]:
    """Reads a table of a catalog in the bucket by DuckDB, which cannot go there by itself."""
    folder = Path(tmp_path, f"down-{time.monotonic_ns()}")
    for listed in objects.list_below(f"{place}/out/catalog/{table}"):
        path = folder / listed.path.removeprefix(f"{place}/out/catalog/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(objects.read_bytes(listed.path))
    return query(folder, table)


def _verify(place: str) -> None:
    done = callpress("verify", "--catalog", f"{place}/out/catalog")
    assert done.status == 0, done.out + done.err


@pytest.mark.slow
def test_run_over_a_store_that_fails_one_time_in_twenty_is_right(
    faults: Faults, place: str, tmp_path: Path
) -> None:
    run = _put_archives(place, "one", "two", "three")
    faults.unavailable_ratio = faults.break_ratio = faults.short_ratio = 0.05
    faults.lost_answer_ratio = 0.05

    done = callpress(*run)

    for name in ("unavailable_ratio", "break_ratio", "short_ratio", "lost_answer_ratio"):
        setattr(faults, name, 0.0)
    assert done.status == 0, done.out + done.err
    assert faults.counts.total() - faults.counts["requests"] >= 8, faults.counts
    assert _query(place, "failures", tmp_path) == []
    assert len(_query(place, "recordings", tmp_path)) == 9
    _verify(place)
    assert {listed.path.split("/")[6] for listed in objects.list_below(f"{place}/out/catalog")} <= {
        "archives", "calls", "dumps", "failures", "notices", "recordings", "runs", "segments",
        "speech", "tracks", "callpress.lock", "results",
    }  # fmt: skip  # no notes
    assert lock.look(f"{place}/out/catalog") is None
    assert objects.list_below(f"{place}/tmp") == []


@pytest.mark.slow
def test_objects_that_cannot_be_read_or_written_are_rows_and_the_next_run_heals_them(
    faults: Faults, place: str, tmp_path: Path
) -> None:
    run = _put_archives(place, "unread", "unmixed", "untracked", "good")
    faults.only = (
        r"GET .*raw/unread\.tar\.gz.*alt=media"
        r"|POST /upload.* \S*/out/recordings/\S*/composite_default_unmixed\S*mp3"
        r"|POST /upload.* \S*/out/recordings/\S*/individual_default_untracked_untracked-1\S*mkv"
    )
    faults.unavailable_ratio = 1.0

    done = callpress(*run)

    faults.unavailable_ratio = 0
    assert done.status == 1
    assert "Traceback" not in done.out + done.err
    failures = _query(place, "failures", tmp_path)
    found = {
        (row["stage"], row["error_type"], row["retryable"], row["call_id"]) for row in failures
    }
    assert found == {
        ("UnpackArchives", "StorageError", True, None),
        ("MixCalls", "StorageError", True, "unmixed"),
        ("ExtractTracks", "StorageError", True, "untracked"),
    }
    assert all(
        re.fullmatch(rf"{place}/\S+: HTTP status 503: try later", str(row["message"]))
        for row in failures
    )
    assert len(_query(place, "recordings", tmp_path)) == 2 + 2 + 3
    _verify(place)

    again = callpress(*run)

    assert again.status == 0, again.out + again.err
    assert "1 skipped" in again.out
    assert _query(place, "failures", tmp_path) == []
    assert len(_query(place, "recordings", tmp_path)) == 12
    _verify(place)


@pytest.mark.slow
def test_catalog_that_cannot_be_written_fails_the_run_in_a_clear_line_and_the_next_heals_it(
    faults: Faults, place: str, tmp_path: Path
) -> None:
    run = _put_archives(place, "one")
    for table in ("archives", "runs"):
        faults.only, faults.unavailable_ratio = rf"POST /upload.*/out/catalog/{table}/", 1.0

        done = callpress(*run)

        assert done.status == 1
        lines = done.err.strip().split("\n")
        name = rf"{place}/out/catalog/{table}/call_date=\S+/part-0.parquet"
        assert re.fullmatch(
            rf"callpress: run \S+ failed: {name}: HTTP status 503: try later", lines[-2]
        )
        assert (
            lines[-1]
            == "callpress: what is published stands; the same command again goes on from there"
        )
        assert "Traceback" not in done.err
        assert lock.look(f"{place}/out/catalog") is None
    faults.unavailable_ratio = 0

    again = callpress(*run)

    assert again.status == 0, again.out + again.err
    assert len(_query(place, "recordings", tmp_path)) == 3
    assert [row["status"] for row in _query(place, "archives", tmp_path)] == ["ok"]
    _verify(place)


@pytest.mark.slow
def test_store_that_goes_away_in_the_middle_ends_the_run_soon(
    faults: Faults, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "_DOWN_SECONDS", 0.5)
    _put_archives(place, *(f"call-{number:02}" for number in range(20)))

    asked: set[str] = set()

    def die(request: str) -> None:
        asked.update(re.findall(r"raw/call-\d\d", request))
        faults.dead = faults.dead or len(asked) > 3  # whichever archives are taken first

    faults.before = die
    began = time.monotonic()

    done = callpress("run", "--input", f"{place}/raw/*", "--output", tmp_path / "out")

    assert done.status == 1
    assert re.search(
        r"callpress: run \S+ failed: gs://calls has not answered for \d+ s", done.err
    ), done.err
    assert "Traceback" not in done.err
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_store_that_is_not_there_is_one_clear_line_soon(
    faults: Faults, place: str, tmp_path: Path
) -> None:
    faults.dead = True
    began = time.monotonic()

    done = callpress("run", "--input", f"{place}/raw/*", "--output", tmp_path / "out")

    assert done.status == 1
    assert done.err.count("\n") == 1
    assert re.match(r"callpress: gs://calls/\S+: ", done.err)
    assert time.monotonic() - began < 40


# --- disks ----------------------------------------------------------------------------------------


def _press_with_files_up_to(size: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Runs where no file may grow beyond a size: as on a disk that is full, a write fails in the
    middle (EFBIG).
    """
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "run", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)
        ),
        timeout=120,
    )


@pytest.mark.slow
def test_disk_that_is_full_is_rows_and_no_short_file(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    speech = list(encode_opus(noise(2), bitrate_bps=64_000))
    for name, times in (
        ("unpacked", 21),
        ("mixed", 8),
        ("good", 1),
    ):  # 336 kB of packets, 640 kB of MP3, little of both
        people = [Participant(participant_id="alice", segments=[Segment(packets=speech * times)])]
        (raw / f"{name}.tar").write_bytes(
            make_call_archive(people, kind="tar", call_id=name, call_session_id=name)
        )
    config = tmp_path / "mp3.toml"
    config.write_text("[mp3]\nbitrate_kbps = 320\n")
    out = tmp_path / "out"
    command = ("--input", raw / "*", "--output", out, "--config", config)

    done = _press_with_files_up_to(300_000, *command)

    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    failures = query(out / "catalog", "failures")
    assert {(row["stage"], row["error_type"], row["call_id"]) for row in failures} == {
        ("UnpackArchives", "StorageError", None),
        ("MixCalls", "StorageError", "mixed"),
    }
    assert all("File too large" in row["message"] for row in failures), failures
    assert callpress("verify", "--catalog", out / "catalog").status == 0
    assert {row["call_id"]: row["status"] for row in query(out / "catalog", "calls")} == {
        "mixed": "partial",
        "good": "ok",
    }

    again = callpress("run", *command)

    assert again.status == 0, again.out + again.err
    assert query(out / "catalog", "failures") == []
    assert len(query(out / "catalog", "recordings")) == 6
    assert callpress("verify", "--catalog", out / "catalog").status == 0


@pytest.mark.slow
def test_catalog_that_cannot_be_written_on_a_disk_is_a_clear_line(tmp_path: Path) -> None:
    (tmp_path / "one.tar.gz").write_bytes(_archive("one"))
    out = tmp_path / "out"
    blocked = out / "catalog" / "calls" / "call_date=2026-01-05" / "part-0.parquet"
    blocked.mkdir(parents=True)
    (blocked / "in the way").touch()
    run = ("run", "--input", tmp_path / "one.tar.gz", "--output", out)

    done = callpress(*run)

    assert done.status == 1
    first, second = done.err.strip().split("\n")[-2:]
    assert first.startswith("callpress: run ")
    assert first.endswith(f"failed: {blocked}: Is a directory")
    assert (
        second == "callpress: what is published stands; the same command again goes on from there"
    )
    assert "Traceback" not in done.err
    (blocked / "in the way").unlink()
    blocked.rmdir()
    assert callpress(*run).status == 0
    assert callpress("verify", "--catalog", out / "catalog").status == 0


def test_half_written_file_is_never_seen(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    (tmp_path / "x").write_bytes(b"older")
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(StorageError, match=os.strerror(errno.EFBIG)):
            objects.write_bytes(f"{tmp_path}/x", bytes(50_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert (tmp_path / "x").read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["x"]
