"""Buckets that keep what lies in them: a changed file gets a name of its own, a refused delete is a
row and a line, and no run ends for either. The proxy answers as a bucket with a retention policy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.io.filesystem import BeamIOError
from apache_beam.testing.util import equal_to

from tests.support.beam import expect, make_pipeline
from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, tone
from tests.support.command import callpress, query
from tests.support.job_run import JobRun
from tests.support.storage_proxy import Faults
from tests.support.storage_servers import client_with_faults
from transforms.catalog import publish
from transforms.composites.sweep_staging import SweepStaging
from transforms.elements import DroppedFile
from transforms.media.errors import RetainedFileError, StorageError
from transforms.sources.own_files import is_our_own
from transforms.storage import objects

BUCKET = "gs://calls"


@pytest.fixture
def faults(gcs: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """What is wrong between this process and the store; nothing at first."""
    with client_with_faults(gcs["STORAGE_EMULATOR_HOST"], monkeypatch) as faults:
        yield faults


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    packets = encode_opus(tone(440.0, 1.0))
    people = [
        Participant(participant_id=name, segments=[Segment(packets=packets, ssrc=number)])
        for number, name in enumerate(("alice", "bob"), 1)
    ]
    path = tmp_path / "raw" / "a.tar.gz"
    path.parent.mkdir()
    path.write_bytes(make_call_archive(people, call_id="sync", call_session_id="s1"))
    return path


def _profile(tmp_path: Path, bitrate: int) -> list[str]:
    path = tmp_path / f"{bitrate}.toml"
    path.write_text(f"[mp3]\nbitrate_kbps = {bitrate}\n")
    return ["--config", str(path)]


def _mix(catalog: Path) -> dict[str, Any]:
    (row,) = [r for r in query(catalog, "recordings") if r["recording_type"] == "composite"]
    data = objects.read_bytes(row["uri"])
    assert (len(data), hashlib.sha256(data).hexdigest()) == (row["size_bytes"], row["sha256"])
    assert row["filename"] == row["uri"].rsplit("/", 1)[-1]
    return row


def test_changed_file_that_may_not_be_replaced_gets_a_name_of_its_own(
    faults: Faults, raw: Path, tmp_path: Path
) -> None:
    output, catalog = f"{BUCKET}/retained", tmp_path / "catalog"
    faults.retains = "^retained/recordings/"
    run = ("run", "--input", str(raw), "--output", output, "--catalog", str(catalog))

    def press(bitrate: int, *flags: str) -> Any:
        done = callpress(*run, *_profile(tmp_path, bitrate), *flags)
        assert "Traceback" not in done.err
        assert done.status == 0, done.err
        return done

    press(128)
    first = _mix(catalog)
    assert "_r" not in first["filename"].removeprefix("composite_")

    # Other bytes: a name of their own, and the file that no row names is told.
    changed = press(64)
    second = _mix(catalog)
    assert second["uri"] == first["uri"].replace(".mp3", "_r2.mp3")
    (failure,) = query(catalog, "failures")
    assert (failure["stage"], failure["error_type"]) == ("WriteCatalog", "RetainedFileError")
    assert failure["member"] == first["filename"]
    assert failure["call_id"] == first["call_id"]
    assert "subject to bucket's retention policy" in failure["message"]
    assert failure["message"].startswith(first["uri"])
    assert failure["retryable"] is False
    assert "1 files that no row names any more stay, as their store does not let" in changed.err
    assert [row["status"] for row in query(catalog, "calls")] == ["ok"]

    press(96)
    third = _mix(catalog)
    assert third["uri"] == first["uri"].replace(".mp3", "_r3.mp3")
    assert all(map(is_our_own, (first["uri"], second["uri"], third["uri"])))

    # The same bytes once more: nothing new, and the row names the file that has them.
    names = [listed.path for listed in objects.list_below(output)]
    press(64)
    assert _mix(catalog)["uri"] == second["uri"]
    assert [listed.path for listed in objects.list_below(output)] == names
    (failure,) = query(catalog, "failures")
    assert failure["member"] == third["filename"]

    checked = callpress("verify", "--catalog", str(catalog), "--output", output, "--json")
    assert checked.status == 0, checked.out
    assert json.loads(re.sub(r"(?m)^callpress: .*$", "", checked.out))["counts"]["kept"] == 2

    # Once the retention has ended the name is the first one again, and the others go.
    faults.retains = ""
    press(96)
    assert _mix(catalog)["uri"] == first["uri"]
    assert query(catalog, "failures") == []


def test_file_in_s3_and_azure_that_may_not_be_replaced(
    context: JobRun, cloud_place: str, cloud_faults: Faults, tmp_path: Path
) -> None:
    cloud_faults.retains = "/recordings/"
    job = context.changed(output_uri=cloud_place).job
    uri = f"{cloud_place}/recordings/a/b/c/mix.mp3"

    def press(data: bytes) -> str:
        made = tmp_path / "made"
        made.write_bytes(data)
        return publish.publish_media(job, context.run, uri, made)

    second = uri.replace(".mp3", "_r2.mp3")
    assert [press(data) for data in (b"1", b"22", b"1", b"22")] == [uri, second, uri, second]
    assert [objects.read_bytes(name) for name in (uri, second)] == [b"1", b"22"]

    with pytest.raises(RetainedFileError) as kept:
        publish.delete_dropped(job, context.run, DroppedFile(uri=uri))
    assert kept.value.message.startswith(f"{uri}: ")
    words = "object lock" if cloud_place.startswith("s3:") else "immutable due to a policy"
    assert words in kept.value.message
    assert "no row names it any more" in kept.value.message
    assert objects.read_bytes(uri) == b"1"


def test_writing_that_is_refused_where_no_file_is_in_the_way_is_an_error(
    context: JobRun, store: ModuleType, tmp_path: Path
) -> None:
    job = context.changed(output_uri="fake://bucket/out").job
    made = tmp_path / "made"
    made.write_bytes(b"1")
    store.TROUBLE["create"].append(PermissionError(13, "denied"))

    with pytest.raises(StorageError, match=r"mix\.mp3: denied"):
        publish.publish_media(job, context.run, "fake://bucket/out/recordings/mix.mp3", made)
    assert not store.OBJECTS


def test_catalog_that_may_not_be_replaced_is_one_line_before_any_work(
    faults: Faults, raw: Path, tmp_path: Path
) -> None:
    catalog = f"{BUCKET}/retained-catalog"
    faults.retains = "^retained-catalog/"

    for _ in range(2):
        done = callpress(
            "run", "--input", str(raw), "--output", str(tmp_path / "out"), "--catalog", catalog
        )

        assert done.status == 2, done.err
        assert done.err.splitlines()[-1].startswith(
            f"callpress: --catalog {catalog}: its objects may not be replaced, and each run writes"
        )
        assert "expected a place without retention or object lock" in done.err
    assert not list((tmp_path / "out").rglob("*.mp3"))


def test_staging_that_may_not_be_deleted_is_told_and_ends_no_run(
    context: JobRun, store: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    folder = "fake://bucket/staging/run-1"
    kept = store.put(f"{folder}/packets/x", b"x")
    refused = BeamIOError("Delete failed", {kept: PermissionError(13, "retention")})
    store.TROUBLE["delete"].extend([refused, refused])
    caplog.set_level("INFO")

    with make_pipeline() as pipeline:
        swept = pipeline | beam.Create([folder]) | SweepStaging(*context)
        expect(swept=(swept, equal_to([folder])))

    assert f"{folder} stays, as its store does not let it be deleted ({folder}:" in caplog.text
    assert kept in store.OBJECTS
