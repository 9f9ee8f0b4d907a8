"""docs/dataflow.md and configs/nightly: what can be run is run, what can be parsed is parsed, and
what the page lists is what the code has.
"""

from __future__ import annotations

import ast
import functools
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from google.cloud.storage import Blob, Bucket, Client

from benchmarks.operations import INPUTS
from benchmarks.scale_model import SIZES, Assumptions, ScaleModel
from pipelines.beam_options import beam_options
from pipelines.cli import main
from pipelines.options import RunArguments, parse_arguments
from pipelines.runners import dataflow_preflight
from tests.support import locks
from tests.support.command import ROOT
from transforms.reason import Reason
from transforms.stamp import own_stamp

PAGE = (ROOT / "docs" / "dataflow.md").read_text(encoding="utf-8")
NIGHTLY = ROOT / "configs" / "nightly"
RUN = "run by a test"
BY_HAND = "run by us, not by a test"
CHECKED = "flags checked by a test, not run by us"
NOT_RUN = "not run by us"
SOURCES = sorted(
    path for folder in ("pipelines", "transforms") for path in (ROOT / folder).rglob("*.py")
)
_OURS = {
    "project": "acme-calls",
    "region": "europe-west1",
    "temp_location": "gs://acme-staging/tmp",
    "staging_location": "gs://acme-staging/stage",
    "service_account_email": "callpress-worker@acme-calls.iam.gserviceaccount.com",
    "subnetwork": "regions/europe-west1/subnetworks/workers",
    "use_public_ips": False,
}
"""What each job on Dataflow needs in a project that is made as the page says."""
_PLACEHOLDERS = {
    "BUCKET": "acme",
    "PROJECT": "acme-calls",
    "SUBNETWORK": "workers",
    "NETWORK": "default",
    "REGION": "europe-west1",
    "TAG": str(own_stamp().image_tag),
}


def _blocks() -> Iterator[tuple[str, str]]:
    """Yields the first line of each block of commands, without what makes it a comment, and the
    rest.
    """
    for language, text in re.findall(r"^ *```(\w*)\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL):
        if language != "json":
            first, _, rest = textwrap.dedent(text).partition("\n")
            yield first.lstrip("#- "), rest


def _filled(text: str) -> str:
    return re.sub("|".join(_PLACEHOLDERS), lambda found: _PLACEHOLDERS[found[0]], text)


def _commands(text: str) -> list[list[str]]:
    """Returns the command lines of a block, split as a shell does."""
    joined = _filled(text).replace("\\\n", " ")
    return [shlex.split(line) for line in joined.splitlines() if line.strip()]


def _check_flags(argv: list[str]) -> None:
    """Reads a command line as the command does. Raises: UsageError, ConfigError."""
    arguments = parse_arguments(argv)
    if isinstance(arguments, RunArguments):
        beam_options(arguments.beam_args, arguments.beam_lines)
        assert dataflow_preflight.find_problems(arguments) == ()


def _table(heading: str) -> list[list[str]]:
    """Returns the rows of the table below a line that begins so, cell by cell."""
    rows = PAGE.split("\n" + heading, 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def _quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# --- the commands ---------------------------------------------------------------------------------


def test_each_block_says_who_has_run_it() -> None:
    assert {first for first, _ in _blocks()} == {RUN, BY_HAND, CHECKED, NOT_RUN}


_CHECKOUT = ("configs", "docs", "samples", "scripts", "setup.py")
_RUN_BLOCKS = [text for first, text in _blocks() if first == RUN]


def _run(text: str, folder: Path) -> int:
    """Runs a block of the page where its reader does, in a checkout; returns the exit status."""
    for name in _CHECKOUT:
        if not (folder / name).exists():
            (folder / name).symlink_to(ROOT / name)
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / "callpress"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipelines.cli "$@"\n')
    program.chmod(0o755)
    paths = {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        ["sh", "-ec", text], cwd=folder, env={**os.environ, **paths}, check=False
    ).returncode


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Gives a folder in which the page's blocks have written the names and `our.flags`."""
    folder = tmp_path_factory.mktemp("checkout")
    for block in _RUN_BLOCKS:
        if "names.sed" in block:
            assert _run(block, folder) == 0
    return folder


def test_names_are_put_into_all_that_is_to_be_sent(checkout: Path) -> None:
    named = re.findall(r"^s/(\w+)/(.+)/g$", (checkout / "names.sed").read_text(), re.MULTILINE)
    assert dict(named) == _PLACEHOLDERS
    ours = checkout / "ours"
    sources = [ROOT / "docs" / "dataflow.md", *NIGHTLY.iterdir()]
    assert {path.name for path in ours.iterdir()} == {path.name for path in sources}
    for path in sources:
        if path.suffix != ".md":  # which says what is replaced by what
            assert (ours / path.name).read_text() == _filled(path.read_text())
    (block,) = [text for text in _RUN_BLOCKS if "mkdir -p ours" in text]
    (refusal,) = [line for line in block.splitlines() if line.startswith("! grep")]
    assert _run(refusal, checkout) == 0
    crontab = ours / "crontab"
    crontab.write_text(crontab.read_text() + "# BUCKET\n")
    assert _run(refusal, checkout) == 1


def test_a_night_that_is_missing_rings_and_one_at_work_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (press,) = [text for text in _RUN_BLOCKS if "callpress --version" in text]
    (alarm,) = [text for text in _RUN_BLOCKS if "sys.exit" in text]
    assert len(_RUN_BLOCKS) == 4
    assert [_run(press, tmp_path), _run(alarm, tmp_path)] == [0, 0]
    assert _absent(tmp_path) == []
    catalog = tmp_path / "pressed" / "catalog"

    def rings() -> bool:
        """Tells what the alarm does, without a process that takes seconds to begin."""
        capsys.readouterr()
        assert main(["runs", "--catalog", str(catalog), "--last", "1", "--json"]) == 0
        listed = tmp_path / "listed.json"
        listed.write_text(capsys.readouterr().out)
        command, _, check = alarm.partition(" | ")
        assert command == "callpress runs --catalog ./pressed/catalog --last 1 --json"
        return {0: False, 1: True}[_run(f"cat listed.json | {check}", tmp_path)]

    assert not rings()
    (result,) = (catalog / "results").iterdir()
    began = datetime.now(UTC) - timedelta(hours=27)
    told = {**json.loads(result.read_text()), "started_at": began.isoformat()}
    result.write_text(json.dumps(told))
    assert rings()
    locks.put(catalog, locks.other_state())
    assert not rings(), "tonight's run is at work"
    locks.put(catalog, locks.other_state(**locks.dead_process_here()))
    assert rings(), "tonight's run is dead"
    result.unlink()
    assert rings(), "there was never one"
    # By the table, which does not know of a run at work: a night of five hours is waited for.
    (table,) = (catalog / "runs").rglob("*.parquet")
    _make_older(table, 31)
    assert _absent(tmp_path) == []
    _make_older(table, 2)
    assert len(_absent(tmp_path)) == 1


def _make_older(table: Path, hours: int) -> None:
    duckdb.execute(
        f"COPY (SELECT * REPLACE (started_at - INTERVAL {hours} HOUR AS started_at) "
        f"FROM read_parquet('{table}')) TO '{table}.new' (FORMAT parquet)"
    )
    Path(f"{table}.new").replace(table)


def _absent(folder: Path) -> list[Any]:
    text = (NIGHTLY / "absent.sql").read_text().replace("CATALOG", f"{folder}/pressed/catalog")
    return duckdb.execute(text).fetchall()


@pytest.mark.parametrize(
    "argv",
    [
        pytest.param(argv, id=f"{argv[1]}-{number}")
        for number, argv in enumerate(
            argv for first, text in _blocks() if first == CHECKED for argv in _commands(text)
        )
    ],
)
def test_flags_that_the_page_says_are_checked(
    argv: list[str], checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)  # where our.flags is
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")  # no credentials are needed
    assert argv[0] == "callpress"
    _check_flags(argv[1:])
    if "our.flags" in argv:
        arguments = parse_arguments(argv[1:])
        assert isinstance(arguments, RunArguments)
        options = beam_options(arguments.beam_args, arguments.beam_lines).get_all_options()
        assert {name: options[name] for name in _OURS} == _OURS


# --- the nightly files ----------------------------------------------------------------------------


def _flags_of_job() -> list[str]:
    parameters = _launch()["parameters"]
    return ["run", *(f"--{name}={value}" for name, value in parameters.items())]


def _flags_of_crontab() -> list[str]:
    lines = (NIGHTLY / "crontab").read_text().splitlines()
    (job,) = [line for line in lines if not re.match(r"#|\w+=", line)]
    found = re.fullmatch(r"(?:[\d*/,-]+ ){5}callpress ([^%]+?)>>.*", job)  # a % ends a command
    assert found is not None
    return shlex.split(found[1])


def _flags_of_unit() -> list[str]:
    (line,) = re.findall(r"^ExecStart=(.*)$", (NIGHTLY / "callpress.service").read_text(), re.M)
    assert not re.search(r"[%$]", line), "systemd replaces those"
    return shlex.split(line)[1:]


def _flags_of_pod() -> list[str]:
    return [str(each) for each in _container()["args"]]


def _launch() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((NIGHTLY / "launch.json").read_text())["launchParameter"]
    return found


def _container() -> dict[str, Any]:
    yaml: Any = importlib.import_module("yaml")  # has no types
    job = yaml.safe_load((NIGHTLY / "cronjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert job["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    names = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == names
    found: dict[str, Any] = container
    return found


@pytest.mark.parametrize("flags", [_flags_of_job, _flags_of_crontab, _flags_of_unit, _flags_of_pod])
def test_nightly_flags_are_those_of_the_command(flags: Any) -> None:
    arguments = parse_arguments(flags())
    assert isinstance(arguments, RunArguments)
    beam_options(arguments.beam_args, arguments.beam_lines)
    assert arguments.inputs == ("gs://BUCKET-raw/**.tar.gz",)
    assert arguments.filters.since == "4d"
    # Past --stop-after a night that is not extracted yet publishes nothing on engines elsewhere.
    bounds = arguments.bounds
    found = (bounds.stop_after_seconds, bounds.max_archives)
    assert found == ((None, 20_000) if flags is _flags_of_job else (5 * 3600, None))


def test_launch_has_fields_of_the_flex_template_api_only() -> None:
    launch = _launch()
    assert launch.keys() <= {"jobName", "containerSpecGcsPath", "parameters", "environment"}
    assert re.fullmatch(r"[a-z][-a-z0-9]{0,61}[a-z0-9]", launch["jobName"])
    # FlexTemplateRuntimeEnvironment of Dataflow's REST API v1b3.
    assert launch["environment"].keys() <= {
        "additionalExperiments", "autoscalingAlgorithm", "diskSizeGb", "flexrsGoal",
        "ipConfiguration", "launcherMachineType", "machineType", "maxWorkers", "network",
        "numWorkers", "sdkContainerImage", "serviceAccountEmail", "stagingLocation",
        "subnetwork", "tempLocation", "workerRegion", "workerZone",
    }  # fmt: skip
    assert "no_use_multiple_sdk_containers" in launch["environment"]["additionalExperiments"]


def test_launch_gives_what_the_template_takes() -> None:
    metadata = json.loads((ROOT / "configs" / "flex" / "metadata.json").read_text())
    takes = {parameter["name"]: parameter for parameter in metadata["parameters"]}
    given = _launch()["parameters"]
    wanted = {name for name, parameter in takes.items() if not parameter.get("isOptional")}
    assert wanted <= given.keys() <= takes.keys()
    for name, value in given.items():
        assert all(re.search(each, _filled(value)) for each in takes[name].get("regexes", ())), name


def test_dag_compiles_and_reads_what_is_beside_it() -> None:
    path = NIGHTLY / "airflow_dag.py"
    text = path.read_text()
    compile(text, str(path), "exec")
    (named,) = re.findall(r'with_name\("([^"]+)"\)', text)
    assert (NIGHTLY / named).is_file()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    for name in ("callpress.service", "callpress.timer"):
        text = (NIGHTLY / name).read_text()
        # What is named there is not installed here.
        (tmp_path / name).write_text(text.replace("/opt/callpress/bin/callpress", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", *sorted(map(str, tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- what the page lists --------------------------------------------------------------------------


def test_roles_cover_the_calls_of_cloud_storage() -> None:
    makers = ("bucket", "blob")  # ask for nothing
    known = {
        name
        for kind in (Blob, Bucket, Client)
        for name in dir(kind)
        if not name.startswith("_") and name not in makers
    }
    called: set[str] = set()
    for path in (ROOT / "transforms" / "storage").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "storage_client()" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                receiver = node.func.value
                is_other = isinstance(receiver, ast.Name) and receiver.id in (
                    "source",
                    "self",
                    "checksum",
                )
                if node.func.attr in known and not is_other:
                    called.add(node.func.attr)
    rows = _table("| call of Google's library")
    assert {_quoted(call)[0] for call, _, _ in rows} == called
    # What of its permissions each role has, by Google's pages on IAM roles for Cloud Storage.
    of_role = {
        "roles/storage.objectViewer": {"storage.objects.get", "storage.objects.list"},
        "roles/storage.objectUser": {
            f"storage.objects.{name}" for name in ("get", "list", "create", "delete", "update")
        },
        "roles/storage.legacyBucketReader": {"storage.buckets.get", "storage.objects.list"},
    }
    for _, permissions, roles in rows:
        for role in _quoted(roles):
            assert set(_quoted(permissions)) <= of_role[role]
    told = {_quoted(role)[0] for role, *_ in _table("| role | who")}
    assert set(of_role) <= told
    granted = set(re.findall(r"--role=(\S+)", PAGE))
    assert granted == told


@functools.cache
def _texts() -> tuple[str, ...]:
    """Returns every text in the source; what is put in when it is told is a NUL."""
    found: list[str] = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(_constants(node.values)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def _constants(parts: Iterable[ast.expr]) -> Iterator[str]:
    for part in parts:
        yield str(part.value) if isinstance(part, ast.Constant) else "\0"


@pytest.mark.parametrize("message", [_quoted(row[0])[0] for row in _table("| message | do")])
def test_message_of_the_page_stands_in_the_source(message: str) -> None:
    pieces = [piece for piece in message.split("...") if piece.strip()]
    assert max(map(len, pieces)) >= 12, "says too little to be found"
    pattern = re.compile(r".*?\0.*?".join(map(re.escape, pieces)), re.DOTALL)
    assert any(pattern.search(text) for text in _texts())


def test_counters_of_the_page_are_those_of_the_job() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    counted = set(re.findall(r'Metrics\.counter\(\s*\w+,\s*"(\w+)"', text))
    (row,) = [row for row in _table("| figure | where") if row[0].startswith("counters")]
    assert set(_quoted(row[1])) == counted


def test_reasons_of_the_page_are_all_there_are() -> None:
    assert [_quoted(row[0])[0] for row in _table("| reason | exit")] == [*map(str, Reason)]


def test_links_of_the_page_lead_somewhere() -> None:
    heads = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert links
    for link in links:
        name, _, anchor = link.partition("#")
        if name:
            assert (ROOT / "docs" / name).exists(), link
        else:
            assert anchor in anchors, link
    assert "docs/dataflow.md" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_figures_of_the_page_are_those_of_the_model_and_the_profiles() -> None:
    model = ScaleModel(json.loads(INPUTS.read_text(encoding="utf-8")), Assumptions())
    rows = _table("| archives a night")
    for size, (archives, cpu_hours, workers, wall_hours, *_) in zip(SIZES, rows, strict=True):
        found = model.estimate(size)
        assert (archives, cpu_hours, workers, wall_hours) == (
            f"{size:,}",
            f"{found.cpu_hours:,.1f}",
            str(found.workers),
            f"{found.wall_hours:.1f}",
        )
    large = model.estimate(10_000)
    words = " ".join(PAGE.split())
    assert (
        f"some {large.cpu_hours:.0f} CPU hours, {large.workers} workers of 4 cores for "
        f"{large.wall_hours:.0f} hours"
    ) in words
    for name in ("cheap", "sized"):
        text = (ROOT / "configs" / f"dataflow-{name}.flags").read_text(encoding="utf-8")
        cores = re.search(r"^--machine_type=.*-(\d+)$", text, re.MULTILINE)
        most = re.search(r"^--max_num_workers=(\d+)$", text, re.MULTILINE)
        assert cores is not None
        assert most is not None
        assert f"{int(cores[1]) * int(most[1])} in `dataflow-{name}`" in words
