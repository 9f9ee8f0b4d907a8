"""The flex template: its parameters are those of `run`, each with a pattern."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flex_template import run_arguments
from pipelines.options import parse_arguments
from pipelines.parsers import make_parsers
from transforms.media.values import OutputType

ROOT = Path(__file__).parents[1]
PARAMETERS = {
    each["name"]: each
    for each in json.loads((ROOT / "configs" / "flex" / "metadata.json").read_text("utf-8"))[
        "parameters"
    ]
}
OF_A_COMMAND_ONLY = {
    "help", "verbose", "log_file", "log_format",  # the launcher's machine is gone with them
    "summary_json", "dry_run", "detach",  # for who waits for the command, or not
    "portion_archives",  # the local engine's
}  # fmt: skip
ACCEPTED = {
    "input": [
        "gs://raw/**.tar.gz",
        "s3://raw/a.zip,azfs://lab/raw/a.zip",
        "gs://raw/a.zip,gs://raw/b.zip",
        "gs://raw/a, b.zip\n",
    ],
    "manifest": ["gs://raw/a.json", "stream:default:weekly,stream:since=36h", "gs://raw/a, b\n"],
    "copy_raw": ["gs://kept", "gs://kept/raw/"],
    "notify": [
        "https://crm.example.com/hook",
        "https://crm.example.com:8443/a,pubsub:projects/lab/topics/calls,gs://told",
        "s3://told/events/\nazfs://lab/told\n",
        "gcp-secret:projects/lab/secrets/hook/versions/latest,env:HOOK",
    ],
    "url_base": ["https://media.example.com", "https://cdn.example.com/calls/"],
    "allow_private_addresses": ["true", "false"],
    "secrets_in_image": ["true", "false"],
    "output": ["gs://pressed", "gs://pressed/nights/", "s3://pressed", "azfs://lab/pressed"],
    "catalog": ["gs://pressed/catalog"],
    "config": [path.stem for path in (ROOT / "configs").glob("*.toml")],
    "flags_file": [path.stem for path in (ROOT / "configs").glob("*.flags")],
    "since": ["36h", "7d", "2026-11-20", "2026-11-20T06:00:00Z", "2026-11-20T06:00:00.5+01:00"],
    "call": ["default:weekly", "default:a,b:c", "default:a,b\n", "support:*"],
    "exclude_call": ["default:weekly", "support:*,test:[0-9]*"],
    "participant": ["alice", "alice,bob", "Müller, Ina\nbob"],
    "exclude_participant": ["alice", "Müller, Ina\nbob"],
    "user_session": ["s1", "s1,s2"],
    "track_id": ["track-1", "track-1,track-2"],
    "output_type": [",".join(OutputType), *OutputType],
    "stop_after": ["5h", "90m", "1h30m"],
    "max_archives": ["1", "1000"],
    "max_bytes": ["500000", "20GB", "1.5 GiB", "500m"],
    "overwrite": ["true", "false"],
    "repress": ["true", "false"],
    "codec_processes": ["1", "1024"],
    "worker_memory": ["16GB"],
}
REJECTED = {
    "input": ["", "/raw/a.zip", "gs://raw", "gs://raw/a.zip,/b.zip", "gs://raw/a.zip\n/b.zip", ","],
    "manifest": ["", "-", "/raw/a.json", "https://host/a.json?signature=x", "stream:", ","],
    "copy_raw": ["", "/kept", "gs://"],
    "notify": ["", "/told", "http://crm.example.com/", "https://h/p?key=x", "https://u:p@h/", ","],
    "url_base": ["", "media.example.com", "https://h/?x", "https://u@h/"],
    "allow_private_addresses": ["", "yes"],
    "secrets_in_image": ["", "1"],
    "output": ["", "pressed", "gs://", "gs://Pressed/x", "gs://pressed\ngs://other"],
    "catalog": ["", "https://host/pressed"],
    "config": ["", "my.toml", "a/b", "gs://configs/a.toml"],
    "flags_file": ["", "my.flags", "../x"],
    "since": ["", "yesterday", "36", "2026-13", "20.11.2026"],
    "call": ["", "weekly", "default:a,b", "default:"],
    "exclude_call": ["", "weekly"],
    "participant": ["", "alice,,bob", "\n"],
    "exclude_participant": ["", "alice,,bob"],
    "user_session": ["", ","],
    "track_id": ["", ","],
    "output_type": ["", "video", "audio_only;x"],
    "stop_after": ["", "5", "h", "5 hours"],
    "max_archives": ["", "0", "-1", "many"],
    "max_bytes": ["", "GB", "20XB", "-1"],
    "overwrite": ["", "yes", "True", "1"],
    "repress": ["", "no"],
    "codec_processes": ["", "0", "two"],
    "worker_memory": ["", "lots"],
}


def _start(*parameters: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "flex_template.py", *parameters],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_parameters_are_those_of_run() -> None:
    _, run = make_parsers()
    assert {action.dest for action in run._actions} - OF_A_COMMAND_ONLY == PARAMETERS.keys()


def test_output_alone_must_be_given() -> None:
    """Of `input` and `manifest` one must be there, which no template can say."""
    assert [name for name, each in PARAMETERS.items() if not each["isOptional"]] == ["output"]


@pytest.mark.parametrize("name", PARAMETERS)
def test_pattern_takes_what_run_takes(name: str) -> None:
    for value in ACCEPTED[name]:
        assert all(re.fullmatch(regex, value) for regex in PARAMETERS[name]["regexes"]), value
        given = {"input": "gs://raw/a.zip", "output": "gs://pressed", name: value}
        parse_arguments(["run", *run_arguments([f"--{key}={each}" for key, each in given.items()])])


@pytest.mark.parametrize("name", PARAMETERS)
def test_pattern_refuses_what_is_malformed(name: str) -> None:
    for value in REJECTED[name]:
        assert not all(re.fullmatch(regex, value) for regex in PARAMETERS[name]["regexes"]), value


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_says_what_it_is(name: str) -> None:
    assert PARAMETERS[name].keys() == {"name", "label", "helpText", "isOptional", "regexes"}
    assert PARAMETERS[name]["helpText"].endswith(".")
    (regex,) = PARAMETERS[name]["regexes"]
    assert regex.startswith("^")
    assert regex.endswith("$")
    assert not re.search(r"\\[0-9bdswBDSW]|\(\?[^:]", regex), "not every engine knows this"


def test_lists_and_switches_become_flags() -> None:
    assert run_arguments(
        [
            "--input=gs://raw/a.zip, gs://raw/b.zip,",
            "--output_type=audio_only",
            "--participant=Müller, Ina\nbob\n",
            "--overwrite=true",
            "--repress=false",
            "--max_archives=5",
            "--job_name=nightly",
        ]
    ) == [
        "--input=gs://raw/a.zip",
        "--input=gs://raw/b.zip",
        "--output-type=audio_only",
        "--participant=Müller, Ina",
        "--participant=bob",
        "--overwrite",
        "--max-archives=5",
        "--job_name=nightly",
    ]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (["--output=gs://pressed"], "--input or --manifest is required; see callpress --help"),
        (["--input=", "--output=gs://pressed"], "--input '' names nothing, expected a path or URI"),
        (["--overwrite=yes"], "parameter overwrite: 'yes', expected true or false"),
    ],
    ids=["missing", "empty", "malformed"],
)  # fmt: skip
def test_wrong_parameter_is_one_line(parameters: list[str], message: str) -> None:
    done = _start(*parameters)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"callpress: {message}")
    assert done.stderr.count("\n") == 1


def test_what_only_the_launcher_knows_is_passed_over_and_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_arguments(["--its_own=5", "--region=europe-west1", "word"]) == [
        "--region=europe-west1",
        "word",
    ]
    told = capsys.readouterr().err
    assert told == "callpress: warning: nobody knows --its_own: passed over\n"
