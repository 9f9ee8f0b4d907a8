"""`--log-format json`: all that a run tells is an object a line, as Cloud Logging reads them."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pipelines import telling
from pipelines.logs import JsonFormatter
from tests.support.command import SAMPLE, callpress

_FIELDS = ("time", "severity", "logger", "message")


def _entries(text: str) -> list[dict[str, Any]]:
    assert text == "" or text.endswith("\n")
    found = [json.loads(line) for line in text.splitlines()]
    for entry in found:
        assert tuple(entry)[:4] == _FIELDS
        assert entry["time"].endswith("Z")
    return found


def test_a_run_tells_its_result_as_an_object(tmp_path: Path) -> None:
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(b"no archive")
    done = callpress(
        *("run", "--input", SAMPLE, "--input", broken, "--output", tmp_path / "out"),
        *("--log-format", "json", "--input", tmp_path / "none.tar.gz"),
    )
    assert (done.status, done.out) == (1, ""), "no table beside it"
    # A slow machine has time for a line of progress.
    entries = [e for e in _entries(done.err) if not e["message"].startswith("after ")]
    assert [entry["severity"] for entry in entries] == ["WARNING", "WARNING", "ERROR", "ERROR"]
    unmatched, failure, told, why = entries
    assert "none.tar.gz matches nothing" in unmatched["message"]
    assert not unmatched["message"].startswith("warning")
    assert "run_id" not in unmatched, "it has no name yet"
    assert "broken.tar.gz" in failure["message"]
    assert told["result"]["counts"]["archives"]["ok"] == 1
    assert told["result"]["exit_status"] == 1
    assert told["result"]["reason"] == "too_many_failed"
    assert told["run_id"] == told["result"]["run_id"] == why["run_id"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--output", "y"), "--input or --manifest is required"),
        (("--inptu", "x", "--output", "y"), "did you mean --input?"),
        (("--input", "x", "--output", "y", "--config=podcats"), "did you mean podcast?"),
        (("--input", "x", "--output", "y", "--flags-file=z"), "--flags-file z: no such file"),
        (("--input", "\x1b[2J", "--output", "OUT"), "\\x1b[2J matches nothing"),
    ],
)
def test_an_error_of_the_command_line_is_an_object(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    given = [argument.replace("OUT", str(tmp_path / "out")) for argument in arguments]
    done = callpress("run", "--log_format=json", *given)
    (entry,) = _entries(done.err)
    assert done.status in (1, 2)
    assert message in entry["message"]
    assert (entry["severity"], entry["logger"]) == ("ERROR", "callpress")


def test_a_file_of_flags_may_say_the_format(tmp_path: Path) -> None:
    file = tmp_path / "night.flags"
    file.write_text("--log-format=json\n--no-such\n")
    (entry,) = _entries(callpress("run", "--flags-file", file).err)
    assert "--input or --manifest is required" in entry["message"]
    told = callpress("run", "--flags-file", file, "--log-format=text").err
    assert told.startswith("callpress: --input or --manifest is required")


def test_another_format_is_refused() -> None:
    done = callpress("run", "--input=x", "--output=y", "--log-format=xml")
    assert done.status == 2
    assert done.err.startswith("callpress: argument --log-format: invalid choice: 'xml'")


def test_the_log_goes_to_a_file_where_one_is_named(tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    done = callpress(
        *("run", "--input", SAMPLE, "--output", tmp_path / "out", "--log-format=json"),
        *("--log-file", log),
    )
    assert "result" in _entries(done.err)[-1]
    entries = _entries(log.read_text(encoding="utf-8"))
    assert entries
    assert {entry["severity"] for entry in entries} == {"INFO"}
    assert "callpress" not in {entry["logger"] for entry in entries}


def test_a_bug_is_one_object_with_its_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such luck, token=abcdefgh")

    monkeypatch.setattr("pipelines.places.check_inputs", fail)
    done = callpress("run", "--input=x", "--output", tmp_path / "out", "--log-format=json")
    (entry,) = _entries(done.err)
    assert (done.status, entry["severity"]) == (1, "CRITICAL")
    assert entry["message"] == "RuntimeError: no such luck, token=[hidden]"
    assert entry["stack_trace"].startswith("Traceback")
    assert "in fail" in entry["stack_trace"]
    assert "abcdefgh" not in done.err


def test_what_libraries_print_and_log_comes_as_objects() -> None:
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with telling.telling_in("json"):
            lines = telling.json_lines()
            assert lines is not None
            lines.run_id = "run-1"
            print("callpress: after 10 s: mixing", file=sys.stderr)
            print("two\r\n\n  parts \u2028\x1b[2J é \ud800", file=sys.stderr)
            sys.stderr.write("begun")
            other = threading.Thread(target=print, args=("other",), kwargs={"file": sys.stderr})
            other.start()
            other.join()
            handler = logging.StreamHandler(lines.stream)
            handler.setFormatter(JsonFormatter(lines))
            record = logging.LogRecord("beam.x", 25, "a.py", 1, "%s\nhttps://h/?k=v", ("m",), None)
            handler.emit(record)
            left = telling.shaped("\nrun 3 stopped.\nAgain\n", "WARNING")
        assert sys.stderr is stream
    entries = _entries(stream.getvalue())
    assert {entry["run_id"] for entry in entries} == {"run-1"}
    assert [entry["message"] for entry in entries if entry["severity"] == "INFO"] == [
        "after 10 s: mixing",
        "two",
        "  parts \\u2028\\x1b[2J é \\ud800",
        "other",
        "begun",
    ]
    (logged,) = (entry for entry in entries if entry["severity"] == "DEFAULT")
    assert (logged["logger"], logged["message"]) == ("beam.x", "m\nhttps://h/?[hidden]")
    assert [entry["message"] for entry in _entries(left)] == ["run 3 stopped.", "Again"]


def test_text_is_told_as_before(tmp_path: Path) -> None:
    done = callpress("run", "--input", tmp_path / "none", "--output", tmp_path / "out")
    assert done.err.startswith("callpress: nothing to press:")
    assert telling.shaped("\nas it is\n", "WARNING") == "\nas it is\n"
