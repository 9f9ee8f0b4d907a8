"""What Dataflow cannot run is told at once, each thing in a line, with Beam not even imported."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apache_beam.internal.gcp import auth as beam_auth
from apache_beam.options.pipeline_options import PipelineOptions, SetupOptions
from apache_beam.runners.portability.stager import Stager
from apache_beam.runners.runner import _RUNNER_MAP

from pipelines.beam_options import beam_options
from pipelines.options import RunArguments, parse_arguments
from pipelines.parsing import UsageError
from pipelines.runners import dataflow_preflight
from pipelines.runners.dataflow_preflight import find_problems, is_dataflow, with_pins
from tests.support.command import ROOT, callpress
from transforms import stamp
from transforms.stamp import own_stamp
from transforms.storage import credentials, google_account

PLACES = ("--input=gs://raw-calls/**", "--output=gs://pressed/out")
CLOUD = (
    "--runner=DataflowRunner",
    "--project=lab-project",
    "--region=europe-west1",
    "--temp_location=gs://pressed/tmp",
)
SETUP_FILE = f"--setup_file={ROOT}/setup.py"
REPOSITORY = "europe-west1-docker.pkg.dev/lab-project/callpress/worker"


@pytest.fixture(autouse=True)
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that has credentials, as far as a look tells."""
    path = tmp_path / "key.json"
    path.write_text('{"type": "service_account"}')
    for name in ("STORAGE_EMULATOR_HOST", "CLOUDSDK_COMPUTE_REGION", "NO_GCE_CHECK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    return path


def _arguments(*flags: str) -> RunArguments:
    arguments = parse_arguments(["run", *flags])
    assert isinstance(arguments, RunArguments)
    return arguments


def _problems(*flags: str) -> tuple[str, ...]:
    """Returns what is told of a command line that is right otherwise."""
    changed = {flag.split("=")[0] for flag in flags}
    kept = [flag for flag in (*PLACES, *CLOUD) if flag.split("=")[0] not in changed]
    given = [flag for flag in flags if not flag.endswith("=")]  # without a value: left out
    return find_problems(_arguments(*kept, *given))


def test_command_line_that_is_right_has_no_problems() -> None:
    assert _problems(SETUP_FILE) == ()


def test_a_file_of_flags_is_looked_at_as_well(tmp_path: Path) -> None:
    file = tmp_path / "night.flags"

    def found(*flags: str, lines: tuple[str, ...]) -> tuple[str, ...]:
        file.write_text("\n".join(lines))
        return find_problems(_arguments(f"--flags-file={file}", *flags))

    assert found(lines=(*PLACES, *CLOUD, SETUP_FILE)) == ()
    assert found("--output=out", lines=(*PLACES, *CLOUD, SETUP_FILE))[0].startswith("--output out")
    (problem,) = found(*PLACES, lines=(*CLOUD[:3], SETUP_FILE))
    assert problem.startswith("--temp_location is needed")
    lines = (*CLOUD[:2], CLOUD[3], "--region=Europe", SETUP_FILE)
    assert found(*PLACES, lines=lines)[0].startswith("--region Europe")
    assert found(*PLACES, "--region=us-east1", lines=lines) == ()
    with pytest.raises(UsageError, match="line 4: unknown option --temp-locatoin, did you mean"):
        found(*PLACES, lines=(*CLOUD[:3], "--temp_locatoin=gs://pressed/tmp", SETUP_FILE))


def test_pins_are_added_to_flags_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "night.flags"
    file.write_text("\n".join((*PLACES, *CLOUD, SETUP_FILE)))
    arguments = with_pins(_arguments(f"--flags-file={file}"))
    options = beam_options(arguments.beam_args, arguments.beam_lines)
    assert options.view_as(SetupOptions).requirements_file == stamp.pins_path()


# --- the engine -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [*_RUNNER_MAP, *_RUNNER_MAP.values(), "Dataflow", "dataFLOWrunner"]
)
def test_dataflow_is_known_in_all_spellings_of_beam_and_no_other_engine(name: str) -> None:
    assert is_dataflow(name) == ("dataflow" in name.lower())


@pytest.mark.parametrize("runner", ["--runner=PrismRunner", "--runner=FlinkRunner", "-v"])
def test_other_engines_are_not_judged(runner: str) -> None:
    """Prism with workers in the launcher reads this machine's disks."""
    assert find_problems(_arguments("--input=/raw/*", "--output=/out", runner)) == ()


# --- what is missing, what is wrong ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--input=/raw/*"], "--input /raw/*: is on this machine, where workers of Dataflow"),
        (["--input=file:///raw"], "--input file:///raw: is on this machine"),
        (["--output=./pressed"], "--output ./pressed: is on this machine"),
        (["--catalog=~/catalog"], "--catalog ~/catalog: is on this machine"),
        (["--project="], "--project is needed with --runner=DataflowRunner"),
        (["--project=Lab Project"], "--project Lab Project: is no id of a project"),
        (["--project=123456789012"], "--project 123456789012: is no id of a project"),
        (["--region="], "--region is needed with --runner=DataflowRunner"),
        (["--region=europe-west1-b"], "--region europe-west1-b: is a zone, expected its region eu"),
        (["--region=Belgium"], "--region Belgium: expected one as europe-west1"),
        (["--temp_location="], "--temp_location is needed with --runner=DataflowRunner"),
        (
            ["--temp_location=/tmp"],
            "--temp_location /tmp: is not in a bucket, expected gs://BUCKET",
        ),
        (["--temp_location=gs://bucket"], "is a bucket, expected a place in it, such as gs://buck"),
        (["--temp_location=gs://B/tmp"], "--temp_location gs://B/tmp: 'B' is no name of a bucket"),
        (["--staging_location=./x"], "--staging_location ./x: is not in a bucket"),
        (["--template_location=gs://bucket"], "--template_location gs://bucket: expected a place"),
        (["--template_location=gs://bucket/x/"], "gs://bucket/x/: expected a place that Dataflow"),
        (["--template_location=./t"], "./t: expected a place that Dataflow can read, gs://bucket"),
        (["--setup_file="], "workers would not have this program: expected --sdk_container_image"),
        (["--setup_file=/nowhere/setup.py"], "--setup_file /nowhere/setup.py: no such file"),
        ([f"--setup_file={ROOT}/README.md"], "README.md: expected a file called setup.py or pypr"),
        (["--requirements_file=/nowhere"], "--requirements_file /nowhere: no such file"),
        (["--requirements_cache=/tmp"], "--requirements_cache /tmp: workers install the pinned v"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_each_fault_is_told_in_a_line(flags: list[str], told: str) -> None:
    set_up = [] if flags[0].startswith("--setup_file") else [SETUP_FILE]
    (problem,) = _problems(*set_up, *flags)

    assert told in problem
    assert "\n" not in problem


def test_setup_file_without_its_folder_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beam would go to the folder with no name."""
    monkeypatch.chdir(ROOT)

    (problem,) = _problems("--setup_file=setup.py")

    assert problem.startswith("--setup_file setup.py: ")
    assert problem.endswith("expected ./setup.py")
    assert _problems("--setup_file=./setup.py") == ()


@pytest.mark.parametrize(
    "region", ["us-east5", "europe-west12", "northamerica-northeast1", "u-germany-northeast1"]
)
def test_regions_are_taken_as_google_names_them(region: str) -> None:
    assert _problems(SETUP_FILE, f"--region={region}") == ()


def test_region_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSDK_COMPUTE_REGION", "europe-west1")

    assert _problems(SETUP_FILE, "--region=") == ()


def test_missing_option_that_is_there_misspelt_is_told_as_that() -> None:
    done = callpress("run", *PLACES, *CLOUD, "--sdk_container_imge=x:1")

    assert done.status == 2
    assert "unknown option --sdk-container-imge, did you mean --sdk-container-image?" in done.err


def test_no_other_option_of_beam_is_taken_for_a_misspelt_one() -> None:
    of_beam = {f"--{name}" for name in PipelineOptions().get_all_options()}

    assert len(of_beam) > 100
    assert not dataflow_preflight._misspelt(sorted(of_beam - dataflow_preflight._flags()))


# --- files of flags -------------------------------------------------------------------------------


def _problems_of_file(path: Path, text: str, *flags: str) -> tuple[str, ...]:
    path.write_text(text)
    return find_problems(_arguments(*PLACES, *flags, f"--flags-file={path}"))


def test_flags_of_a_file_count_and_the_command_line_wins(tmp_path: Path) -> None:
    path, text = tmp_path / "night.flags", "\n".join((*CLOUD, SETUP_FILE))

    assert _problems_of_file(path, text) == ()
    (problem,) = _problems_of_file(path, text, "--region=europe-west1-b")
    assert problem.startswith("--region europe-west1-b: is a zone")
    assert _problems_of_file(path, text.replace("europe-west1", "x"), CLOUD[2]) == ()
    arguments = with_pins(_arguments(*PLACES, f"--flags-file={path}"))
    assert f"--requirements_file={stamp.pins_path()}" in arguments.beam_args


def test_flag_of_a_file_without_its_value_is_told_by_its_line(tmp_path: Path) -> None:
    path, text = tmp_path / "night.flags", "\n".join(("--project", CLOUD[0], *CLOUD[2:]))

    with pytest.raises(UsageError, match="line 1: argument --project: expected one argument"):
        _problems_of_file(path, text)


@pytest.mark.parametrize("name", ["dataflow-cheap", "dataflow-sized"])
def test_files_of_flags_that_come_with_the_program_are_right(name: str) -> None:
    assert find_problems(_arguments(*PLACES, *CLOUD, SETUP_FILE, f"--flags-file={name}")) == ()


# --- images ---------------------------------------------------------------------------------------


def _image(tag: str) -> str:
    return f"--sdk_container_image={REPOSITORY}{tag}"


def test_image_with_the_launchers_stamp_is_taken() -> None:
    assert _problems(_image(f":{own_stamp().image_tag}")) == ()


@pytest.mark.parametrize(
    "tag",
    [":latest", "", ":2026-11-29", f"@sha256:{'0a' * 32}", f"@sha512:{'0a' * 64}", ":0.1.0"],
    ids=["latest", "none", "day", "sha256", "sha512", "version"],
)
def test_image_of_others_is_not_judged(tag: str) -> None:
    assert _problems(_image(tag)) == ()


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ({"callpress": "0.0.9"}, "callpress is 0.0.9 in the image, "),
        ({"python": "3.99"}, "Python is 3.99 in the image, 3."),
        ({"pins": "00000000"}, "worker-requirements.txt is 00000000 in the image, "),
    ],
    ids=["version", "python", "pins"],
)
def test_image_with_another_stamp_is_told(changed: dict[str, str], differs: str) -> None:
    tag = replace(own_stamp(), **changed).image_tag

    (problem,) = _problems(_image(f":{tag}"))

    assert problem.startswith(f"--sdk_container_image {REPOSITORY}:{tag}: {differs}")
    assert problem.endswith(f" here; expected the tag {own_stamp().image_tag}")


def test_image_may_be_named_by_the_old_option() -> None:
    old = f"--worker_harness_container_image={REPOSITORY}:"

    assert _problems(f"{old}{own_stamp().image_tag}") == ()
    (problem,) = _problems(f"{old}0.0.1-py3.11-00000000")
    assert problem.startswith("--worker_harness_container_image ")
    (problem,) = _problems(f"{old}one", _image(":two"))
    assert "and they differ; expected one of them" in problem


def test_image_may_take_the_place_of_beams_own() -> None:
    flags = ["--sdk_harness_container_image_overrides=.*python.*,host/image:1"]

    assert _problems(*flags) == ()
    assert _setup_options(*flags, SETUP_FILE).requirements_file is None


@pytest.mark.parametrize(
    "image", ["https://host/image:1", "host/Image:1", "host/image:", "host/im age", "host//image"]
)
def test_name_that_no_image_has_is_told(image: str) -> None:
    (problem,) = _problems(f"--sdk_container_image={image}")

    assert problem.startswith(f"--sdk_container_image {image}: is no name of an image")


# --- the pinned versions --------------------------------------------------------------------------


def _setup_options(*flags: str) -> Any:
    return PipelineOptions(list(with_pins(_arguments(*PLACES, *CLOUD, *flags)).beam_args)).view_as(
        SetupOptions
    )


@pytest.mark.parametrize("flag", [SETUP_FILE, "--extra_package=dist/callpress-0.1.0.whl"])
def test_program_that_is_sent_gets_the_pinned_versions(flag: str) -> None:
    options = _setup_options(flag)

    assert options.requirements_file == stamp.pins_path()
    assert options.requirements_cache == "skip"


@pytest.mark.parametrize(
    "flags",
    [
        [SETUP_FILE, "--requirements_file=own.txt"],
        [SETUP_FILE, _image(":latest")],
        [_image(":latest")],
        [SETUP_FILE, "--runner=FlinkRunner"],
    ],
    ids=["own requirements", "image and setup file", "image", "another engine"],
)
def test_what_says_itself_what_workers_have_gets_no_pins(flags: list[str]) -> None:
    runner = [] if "--runner=FlinkRunner" in flags else CLOUD
    arguments = _arguments(*PLACES, *runner, *flags)

    assert with_pins(arguments) is arguments


def test_pins_are_staged_as_they_are_and_nothing_is_downloaded(tmp_path: Path) -> None:
    """A worker's boot program has pip install the file of this name."""
    options = _setup_options("--extra_package=callpress.whl")
    options.view_as(SetupOptions).extra_packages = None  # a file that is not there

    def download(*_: object) -> None:
        raise AssertionError("downloaded")

    resources = Stager.create_job_resources(
        options,
        str(tmp_path),
        populate_requirements_cache=download,
        log_submission_env_dependencies=False,
    )
    ((path, name, _),) = Stager.extract_staging_tuple_iter(resources)

    assert name == "requirements.txt"
    assert Path(path).read_bytes() == Path(stamp.pins_path()).read_bytes()


@pytest.mark.parametrize(
    "flag", [SETUP_FILE, _image(f":{own_stamp().image_tag}")], ids=["setup file", "image"]
)
def test_pins_with_another_beam_than_the_launchers_are_told(
    flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stamp, "pinned_beam", lambda: "2.70.0")

    (problem,) = _problems(flag)

    assert f"workers would have Beam 2.70.0, and here is {own_stamp().beam}; expected" in problem


# --- credentials ----------------------------------------------------------------------------------


@pytest.fixture
def _without_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("GCE_METADATA_IP", "127.0.0.1")  # nothing listens on port 80 there
    monkeypatch.setattr(google_account, "_PRODUCT_NAME", tmp_path / "product_name")


@pytest.mark.usefixtures("_without_credentials")
def test_launcher_without_credentials_is_told_what_to_do() -> None:
    (problem,) = _problems(SETUP_FILE)

    assert problem == (
        "no Google credentials: run gcloud auth application-default login, or have "
        "GOOGLE_APPLICATION_CREDENTIALS name the key file of a service account"
    )


@pytest.mark.usefixtures("_without_credentials")
def test_user_without_a_home_is_told_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLOUDSDK_CONFIG", "HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # of a container: no user has this id

    (problem,) = _problems(SETUP_FILE)

    assert problem.startswith("no Google credentials: ")


@pytest.mark.usefixtures("_without_credentials")
@pytest.mark.parametrize("where", ["emulator", "gcloud", "machine of Google"])
def test_credentials_may_come_from_elsewhere(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "emulator":
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    elif where == "gcloud":
        (tmp_path / "application_default_credentials.json").write_text("{}")
    else:
        (tmp_path / "product_name").write_text("Google Compute Engine\n")

    assert _problems(SETUP_FILE) == ()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file or directory"),
        ("", "holds no credentials"),
        ("[1]", "holds no credentials"),
        (json.dumps({"private_key": "secret"}), "holds no credentials"),
    ],
    ids=["missing", "empty", "other JSON", "no type"],
)
def test_file_of_credentials_that_holds_none_is_told_and_not_shown(
    content: str | None, told: str, key_file: Path
) -> None:
    key_file.unlink()
    if content is not None:
        key_file.write_text(content)

    (problem,) = _problems(SETUP_FILE)

    assert problem.startswith(f"GOOGLE_APPLICATION_CREDENTIALS {key_file}: {told}")
    assert "secret" not in problem


@pytest.mark.usefixtures("_without_credentials")
def test_server_that_does_not_answer_is_not_waited_for_by_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Beam would have Google's library ask for it 20 s long, in each process."""
    asked: list[float] = []

    def connect(_address: object, timeout: float, *_: object) -> None:
        asked.append(timeout)
        raise TimeoutError

    def ask(*_: object, **__: object) -> None:
        raise AssertionError("Google's library looks for credentials")

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setattr("google.auth.default", ask)
    monkeypatch.setattr(beam_auth._Credentials, "_credentials_init", False)

    assert not credentials.have_credentials.__wrapped__()
    assert sum(asked) <= 2
    assert beam_auth._Credentials._credentials_init  # nor does Beam
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    asked.clear()
    assert google_account.why_no_credentials()
    assert not asked


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def no_beam(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that cannot import Beam, nor Google's libraries."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "for name in ('apache_beam', 'google.auth', 'google.cloud', 'pyarrow', 'numpy'):\n"
        "    sys.modules[name] = None\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path}


@pytest.mark.parametrize("how", [["--dry_run"], ["--template_location=/t/t"]])
def test_command_tells_all_at_once_and_imports_nothing_for_it(
    how: list[str], no_beam: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pipelines.cli", "run", "--runner=DataflowRunner"),
            *("--input=/raw", f"--output={tmp_path}/out", "--temp_location=/tmp", *how),
        ],
        env=no_beam,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 6 + ("template" in str(how))
    for line, flag in zip(
        lines,
        ("--project", "--region", "workers would", "--input", "--output", "--temp", "--template"),
        strict=False,
    ):
        assert line.startswith(f"callpress: {flag}")
    assert not (tmp_path / "out").exists()


def test_summary_has_the_reason(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"

    done = callpress("run", "--input=/raw", *PLACES[1:], *CLOUD, f"--summary-json={summary}")

    assert done.status == 2
    assert json.loads(summary.read_text())["reason"] == "usage"
