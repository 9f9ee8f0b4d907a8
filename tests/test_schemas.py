"""The schemas in `docs/schemas`: valid, closed, described, with examples that are real; and what
does not fit one fails a test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support import schemas
from tests.support.beam import call_row, make_participant, recording_row
from tests.support.builders import make_archive, make_call_archive, make_call_members
from tests.support.command import SAMPLE, Finished, callpress, query
from tests.support.results import make_result
from transforms.catalog import results
from transforms.elements import Row
from transforms.notices.events import failed_event, ready_event
from transforms.reason import Reason

ROOT = Path(__file__).parents[1]
PRESSED = "gs://my-bucket/pressed"
"""Where the files of the examples lie."""


def _objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Yields each part of a schema that is about an object with properties."""
    if isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for part in schema.values():
            yield from _objects(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from _objects(part)


@pytest.mark.parametrize("name", schemas.NAMES)
def test_schema_is_valid_closed_and_described(name: str) -> None:
    schema = schemas.schema(name)

    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "$id" not in schema  # with one, other programs look for its neighbours elsewhere
    assert schema["title"]
    assert schema["description"]
    for part in _objects(schema):
        assert part["additionalProperties"] is False, list(part["properties"])
        assert set(part.get("required", ())) <= set(part["properties"])
        for named, prop in part["properties"].items():
            told = prop if "description" in prop else _referred(schema, prop)
            assert told.get("description", "").endswith("."), named


def _referred(schema: dict[str, Any], prop: dict[str, Any]) -> dict[str, Any]:
    """Returns what a property without a description refers to, which is to have one."""
    found: dict[str, Any] = schema["$defs"].get(prop.get("$ref", "").removeprefix("#/$defs/"), {})
    return found


@pytest.mark.parametrize("name", schemas.NAMES)
def test_examples_fit_and_are_told_of(name: str) -> None:
    pages = (ROOT / "docs" / "schemas" / "README.md").read_text("utf-8")
    assert f"({name}.schema.json)" in pages
    found = schemas.examples(name)
    assert found
    for stem, example in found.items():
        schemas.check(name, example)
        assert f"(examples/{stem}.json)" in pages


def test_all_reasons_are_named() -> None:
    reason = schemas.schema("run-result")["$defs"]["reason"]
    assert reason["examples"] == [str(each) for each in Reason]


def _with_summary(tmp_path: Path, *flags: object) -> tuple[Finished, dict[str, Any]]:
    end = tmp_path / "end.json"
    done = callpress("run", *flags, "--output", tmp_path / "out", "--summary-json", end)
    found: dict[str, Any] = json.loads(end.read_text())
    return done, found


def test_example_of_a_plan_is_real(tmp_path: Path) -> None:
    _, found = _with_summary(tmp_path, "--input", SAMPLE, "--dry-run")
    (archive,) = found["press"]
    archive["archive_uri"] = "/data/samples/weekly_sync.tar.gz"
    assert found == schemas.examples("run-result")["run-result-dry-run"]


def test_example_of_a_run_that_found_nothing_is_real(tmp_path: Path) -> None:
    _, found = _with_summary(tmp_path, "--input", tmp_path / "*.zip")
    example = schemas.examples("run-result")["run-result-nothing-matched"]
    times = {name: example[name] for name in ("started_at", "finished_at")}
    assert {**found, **times} == example


def test_examples_of_notices_are_real(tmp_path: Path) -> None:
    broken = make_call_members(
        [make_participant("carol")], call_id="broken", call_session_id="broken"
    )
    junk = {name: b"junk" for name in broken if name.endswith(".rtpdump")}
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.tar.gz").write_bytes(make_call_archive([make_participant("alice")]))
    (raw / "b.tar.gz").write_bytes(make_archive({**broken, **junk}, "tar.gz"))
    profile = tmp_path / "profile.toml"
    profile.write_text('max_failed_ratio = 1.0\n[notify]\nbudget = "0s"\n')

    _with_summary(
        tmp_path, "--input", raw / "*", "--config", profile,
        "--notify", tmp_path / "told", "--url-base", "https://media.example.com",
    )  # fmt: skip

    rows = query(tmp_path / "out" / "catalog", "notices")
    told = [json.loads(row["body"].replace(str(tmp_path / "out"), PRESSED)) for row in rows]
    found = {(event["type"], event["recording_type"]): event for event in told}
    assert len(found) == len(told)
    for example in schemas.examples("notice").values():
        event = found.pop((example["type"], example["recording_type"]))
        for name in ("created_at", "egress_id"):  # of the run
            event[name] = example[name]
        for name in ("sha256", "size_bytes"):  # of a version of the encoders
            if name in example["callpress"]:
                event["callpress"][name] = example["callpress"][name]
        assert event == example
    assert not found


# --- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "$: Additional properties are not allowed ('surprise' was unexpected)"),
        ({"exit_status": 1, "surprise": 1}, "$: Additional properties are not allowed"),
        ({"media_seconds": "2"}, "$.media_seconds: '2' is not of type 'number'"),
        ({"bytes_read": -1}, "$.bytes_read: -1 is less than the minimum of 0"),
        ({"reason": "Not Done"}, "$.reason: 'Not Done' does not match "),
        ({"finished_at": "2026-01-05 02:00"}, "$.finished_at: '2026-01-05 02:00' does not match "),
        ({"repress": {}}, "$.repress: 'archives' is a required property"),
        ({"told": [None]}, "$.told[0]: None is not of type 'string'"),
    ],
)
def test_what_does_not_fit_is_told(change: dict[str, Any], message: str) -> None:
    result = make_result(1)
    schemas.check("run-result", result)

    with pytest.raises(AssertionError) as told:
        schemas.check("run-result", {**result, **change})
    assert str(told.value).startswith(f"run-result.schema.json: {message}")


def test_written_result_that_does_not_fit_fails_the_test(tmp_path: Path) -> None:
    results.write(str(tmp_path), {**make_result(1), "surprise": 1})

    with pytest.raises(pytest.fail.Exception, match="'surprise' was unexpected"):
        schemas.fail_on_misfits()
    schemas.fail_on_misfits()  # told once

    schemas.look_at_files(tmp_path)
    (path,) = tmp_path.glob("results/*.json")
    with pytest.raises(pytest.fail.Exception, match=f"{path.name}: .*'surprise' was unexpected"):
        schemas.fail_on_misfits()
    path.unlink()


def test_printed_result_that_does_not_fit_fails_the_test(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    result = {**make_result(1), "surprise": 1}
    path = folder / f"{result['run_id']}.json"
    path.write_text(json.dumps(result))

    assert callpress("runs", "--catalog", tmp_path, "--json").status == 0

    with pytest.raises(pytest.fail.Exception, match="'surprise' was unexpected"):
        schemas.fail_on_misfits()
    path.unlink()


def _notice(**changes: Any) -> Row:
    fields: Row = {"filename": "a.mkv", "sha256": "ab" * 32, "size_bytes": 1}
    return recording_row(
        "alice", "/a.mkv", **{**fields, "offset_ms": 0, "duration_ms": 1, **changes}
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "none"}, "$.callpress.sha256: 'none' does not match "),
        ({"size_bytes": -1}, "$.callpress.size_bytes: -1 is less than the minimum of 0"),
        ({"recording_type": "raw"}, "$.recording_type: 'raw' is not one of "),
        ({"duration_ms": 0.5}, "$.callpress.duration_ms: 0.5 is not of type 'integer', 'null'"),
    ],
)
def test_notice_that_does_not_fit_fails_the_test(change: dict[str, Any], message: str) -> None:
    ready_event(_notice(), {}, None, "file:///a.mkv")
    failed_event(call_row(status="failed"), "composite", None)
    schemas.fail_on_misfits()

    ready_event(_notice(**change), {}, None, "file:///a.mkv")

    with pytest.raises(pytest.fail.Exception, match=re.escape(f"notice.schema.json: {message}")):
        schemas.fail_on_misfits()


def test_notice_of_another_process_that_does_not_fit_fails_the_test(tmp_path: Path) -> None:
    example = schemas.examples("notice")["notice"]
    lines = [json.dumps(each) for each in (example, {**example, "surprise": 1})]
    told = tmp_path / "told.jsonl"
    told.write_text("\n".join(lines))
    table = tmp_path / "notices" / "call_date=2026-11-20" / "part-0.parquet"
    table.parent.mkdir(parents=True)
    pq.write_table(pa.table({"body": lines}), table)

    for path in (told, table):
        schemas.look_at_files(tmp_path)
        path.unlink()
        with pytest.raises(pytest.fail.Exception, match=f"{path.name}: .*'surprise' was"):
            schemas.fail_on_misfits()
