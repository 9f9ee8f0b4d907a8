"""`--flags-file`: flags of ours and of Beam from a file; what is wrong is told by its line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    WorkerOptions,
)

from pipelines.beam_options import beam_options
from pipelines.options import RunArguments, parse_arguments
from tests.support.command import ROOT, SAMPLE, callpress
from transforms.filters import Filters
from transforms.media.values import OutputType

_PLACES = "--input=x\n--output=y\n"


def _parse(*arguments: object) -> RunArguments:
    parsed = parse_arguments(["run", *map(str, arguments)])
    assert isinstance(parsed, RunArguments)
    return parsed


def _file(folder: Path, text: str | bytes) -> Path:
    path = folder / "night.flags"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_flags_of_a_file_are_taken_as_if_they_were_given(tmp_path: Path) -> None:
    file = _file(
        tmp_path,
        "\ufeff# ours\r\n--input=a=b\r\n\r\n--input=c\r\n--output_type=audio_only\n  --overwrite \n"
        "--manifest=-\n--manifest=stream:since=36h\n--copy-raw=raw\n--exclude-call=test:*\n"
        "--track-id=t\n--exclude-participant=eve\n--notify=./told\n--notify=env:HOOK\n--allow_private_addresses\n--secrets-in-image\n"
        "--output=o\n# Beam's\n--project=lab-project\n--experiments=one\n--no_use_public_ips\n",
    )
    arguments = _parse("--flags-file", file)
    assert (arguments.inputs, arguments.output) == (("a=b", "c"), "o")
    assert arguments.overwrite
    assert (arguments.manifests, arguments.copy_raw) == (("-", "stream:since=36h"), "raw")
    assert arguments.notify == ("./told", "env:HOOK")
    assert arguments.allow_private_addresses
    assert arguments.secrets_in_image
    assert arguments.filters == Filters(
        output_types=(OutputType.AUDIO_ONLY,), excluded_calls=("test:*",), track_ids=("t",),
        excluded_participants=("eve",),
    )  # fmt: skip
    options = beam_options(arguments.beam_args, arguments.beam_lines)
    assert options.view_as(GoogleCloudOptions).project == "lab-project"
    assert options.view_as(WorkerOptions).use_public_ips is False
    assert options.view_as(DebugOptions).experiments == ["one"]


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    file = _file(
        tmp_path,
        "--input=a\n--output=o\n--call=default:a\n--verbose\n--max-archives=3\n"
        "--machine_type=small\n--experiments=one\n--experiment=two\n--no_use_public_ips\n",
    )
    arguments = _parse(
        *("--max_archives", "5", "-v", "--input", "b", "--input", "c", "--flags-file", file),
        *("--worker_machine_type", "large", "--experiments=three", "--use_public_ips"),
    )
    assert arguments.inputs == ("b", "c"), "a list takes the place of the file's"
    assert (arguments.output, arguments.bounds.max_archives) == ("o", 5)
    assert arguments.filters.calls == ("default:a",)
    options = beam_options(arguments.beam_args, arguments.beam_lines)
    assert options.view_as(WorkerOptions).machine_type == "large", "by its other name"
    assert options.view_as(WorkerOptions).use_public_ips
    assert options.view_as(DebugOptions).experiments == ["three"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_PLACES + "--ouptut=z", "line 3: unknown option --ouptut, did you mean --output?"),
        ("--inptu=x\n--output=y", "line 1: unknown option --inptu, did you mean --input?"),
        (_PLACES + "--machne_type=z", "line 3: unknown option --machne-type, did you mean --mach"),
        (_PLACES + "--output=z", "line 3: --output: given twice, first in line 2"),
        (_PLACES + "\n--overwrite\n--overwrite", "line 5: --overwrite: given twice, first in line"),
        (
            _PLACES + "--machine_type=a\n--worker_machine_type=b",
            "line 4: --worker-machine-type: given twice, first in line 3",
        ),
        (_PLACES + "--output_type=video", "line 3: argument --output-type: invalid choice"),
        (_PLACES + "--disk_size_gb=many", "line 3: argument --disk_size_gb: invalid int value"),
        (_PLACES + "--overwrite=yes", "line 3: argument --overwrite: ignored explicit argument"),
        (_PLACES + "--config", "line 3: argument --config: expected one argument"),
        (_PLACES + "--project", "line 3: argument --project: expected one argument"),
        (_PLACES + "--max_archives=5=6", "line 3: --max-archives 5=6: expected a positive number"),
        (_PLACES + "--max-bytes=lots", "line 3: --max-bytes lots: expected a number of bytes"),
        (_PLACES + "--stop-after=soon", "line 3: --stop-after soon: "),
        (_PLACES + "--portion-archives=0", "line 3: --portion-archives 0: expected a positive"),
        (_PLACES + "--worker-memory=much", "line 3: --worker-memory much: expected a number of"),
        (_PLACES + "--since=once", "line 3: --since once: "),
        (_PLACES + "--call=weekly", "line 3: --call weekly: expected TYPE:ID"),
        (_PLACES + "--exclude-call=weekly", "line 3: --exclude-call weekly: expected TYPE:ID"),
        (_PLACES + "--exclude-participant=", "line 3: --exclude-participant '': expected an id"),
        (_PLACES + "--copy-raw=", "line 3: --copy-raw '' names nothing"),
        (_PLACES + "--manifest=", "line 3: --manifest '' names nothing"),
        (_PLACES + "--config=", "line 3: --config '' names nothing"),
        (_PLACES + "--notify=", "line 3: --notify '' names nothing"),
        (_PLACES + "--notify=sqs:queue", "line 3: --notify sqs:queue: is no target"),
        (_PLACES + "--notify=http://h/?hushed", "line 3: --notify http://h/: is no URL of an end"),
        (_PLACES + "--url-base=cdn", "line 3: --url-base cdn: expected https://HOST"),
        (_PLACES + "--flags-file=a", "line 3: --flags-file stands on a command line only"),
        (_PLACES + "--help", "line 3: --help stands on a command line only"),
        (_PLACES + "--project lab", "line 3: '--project', expected --name=value"),
        (_PLACES + "--s3_access_key_id\nhushed-b", "line 4: expected --name=value"),
        (_PLACES + "--s3_secret_access_key hushed-a", "line 3: '--s3_secret_access_key', expected"),
        (_PLACES + "--s3_secret_access_key='hushed-c'", "access-key: expected a value without"),
        (_PLACES + "-v", "line 3: '-v', expected --name=value"),
        (_PLACES + "project=lab", "line 3: expected --name=value"),
        (_PLACES + "--project=lab  # ours", "line 3: --project: a comment stands on a line of its"),
        (_PLACES + "--project='lab'", "line 3: --project: expected a value without quotes"),
        (_PLACES + "--direct_num_workers=3", "expected --codec-processes N"),
        ("# nothing\n\n", "holds no flag"),
        ("", "holds no flag"),
        (b"--input=x\n--output=\xff", "line 2: not UTF-8"),
        (b"\xff\xfe-\0-\0", "line 1: not UTF-8"),
        ("#" * (1 << 20) + "\n", "has more than 1048576 bytes"),
        ("--input=x\0y\n", "line 1: --input: holds a control character"),
        ("--input=x\ty\n", "line 1: --input: holds a control character"),
        ("--" + "x" * 500_000, "line 1: '--xxxx"),
        ("--input=" + "x/" * 400_000 + "\n--", "line 2: '--', expected"),
        ("--input=x\n\0\x1b[2J\n-\0", "line 2: expected --name=value"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_clear_line(
    text: str | bytes, message: str, tmp_path: Path
) -> None:
    done = callpress("run", "--flags-file", _file(tmp_path, text))
    assert (done.status, done.out) == (2, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert len(done.err) < 500
    assert "hushed" not in done.err
    assert str(tmp_path) in done.err or "codec-processes" in message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dataflow-chep", "did you mean dataflow-cheap? There are dataflow-cheap, dataflow-sized"),
        ("FOLDER", "is a folder, expected a file"),
        ("FOLDER/none.flags", "No such file"),
        ("none.flags", "No such file"),
        ("FOLDER/pipe", "is no regular file"),
        ("FOLDER/" + "x" * 300, "File name too long"),
        ("gs://bucket/a.flags", "No such file"),
        ("", "'' names nothing"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_line(
    name: str, message: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    name = name.replace("FOLDER", str(tmp_path))
    done = callpress("run", "--input", "x", "--output", "y", f"--flags_file={name}")
    assert done.status == 2
    assert message in done.err
    assert done.err.count("\n") == 1


def test_a_file_is_given_once(tmp_path: Path) -> None:
    file = _file(tmp_path, _PLACES)
    done = callpress("run", "--flags-file", file, "--flags_file", file)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "--flags-file: given twice" in done.err


def test_other_commands_take_no_file() -> None:
    done = callpress("inspect", SAMPLE, "--flags-file=dataflow-cheap")
    assert done.status == 2
    assert "does not know --flags-file" in done.err


def test_the_end_is_told_where_the_file_says(tmp_path: Path) -> None:
    told = tmp_path / "end.json"
    file = _file(tmp_path, f"--summary_json={told}\n--no-such-flag\n{_PLACES}")
    assert callpress("run", "--flags-file", file).status == 2
    assert json.loads(told.read_text())["reason"] == "usage"
    told.unlink()
    other = tmp_path / "other.json"
    assert callpress("run", "--flags-file", file, "--summary-json", other).status == 2
    assert (told.exists(), other.exists()) == (False, True)


def test_a_wrong_file_is_told_without_importing_beam(tmp_path: Path) -> None:
    file = _file(tmp_path, _PLACES + "--output=z")
    code = (
        "import sys\nsys.modules['apache_beam'] = None\nfrom pipelines.cli import main\n"
        f"sys.exit(main(['run', '--flags-file', {str(file)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 2
    assert "line 3: --output: given twice" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_dry_run_takes_its_flags_from_a_file(tmp_path: Path) -> None:
    file = _file(tmp_path, f"--input={SAMPLE}\n--output={tmp_path / 'out'}\n--dry-run\n")
    done = callpress("run", "--flags-file", file)
    assert done.status == 0, done.err
    assert SAMPLE.name in done.out
    assert not (tmp_path / "out").exists()
