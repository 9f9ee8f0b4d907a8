"""The files of flags that come with the program, by what Dataflow's translation makes of them:
offline, nothing is sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.internal.gcp import auth
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions, TypeOptions
from apache_beam.options.pipeline_options import TestOptions as DryRunOptions
from apache_beam.runners.dataflow.internal import apiclient

from pipelines import flags_file, press, worker_size
from pipelines.beam_options import beam_options, engine_of
from pipelines.options import RunArguments, parse_arguments
from tests.support.command import ROOT
from transforms.bounds import parse_size
from transforms.context import JobSettings
from transforms.media.errors import ConfigError
from transforms.media.settings import LimitSettings, PressSettings

_NAMES = ("dataflow-cheap", "dataflow-sized")
_IMAGE = "europe-docker.pkg.dev/lab-project/callpress/worker:1"
_GIB = 1 << 30
_MACHINES = {"e2-standard-4": (4, 16 * _GIB), "n2-highcpu-8": (8, 8 * _GIB)}
"""Cores and memory, by Google's list of machine types."""
_MIN_RAM = "beam:resources:min_ram_bytes:v1"


@pytest.fixture(scope="module")
def _quick() -> Iterator[None]:
    """Keeps Beam from looking for credentials, which takes 20 s where there are none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auth._Credentials, "_credentials_init", True)
        yield


def _arguments(name: str, *more: str) -> RunArguments:
    arguments = parse_arguments(
        [
            *("run", "--flags-file", name, "--input=gs://lab/raw/*", "--output=gs://lab/pressed"),
            *("--project=lab-project", "--region=europe-west1", "--temp_location=gs://lab/tmp"),
            *(f"--sdk_container_image={_IMAGE}", *more),
        ]
    )
    assert isinstance(arguments, RunArguments)
    return arguments


def _options(arguments: RunArguments) -> PipelineOptions:
    options = beam_options(arguments.beam_args, arguments.beam_lines)
    engine_of(options, arguments)
    return options


def _environment(name: str, proto_pipeline: Any = None) -> Any:
    """Returns what a job tells Dataflow of the machines that it wants."""
    return apiclient.Environment(
        packages=[],
        options=_options(_arguments(name)),
        environment_version="1",
        proto_pipeline_staged_url="gs://lab/tmp/pipeline.pb",
        proto_pipeline=proto_pipeline,
    ).proto


@pytest.fixture(scope="module")
def sized(_quick: None) -> Any:
    """The pipeline as Dataflow gets it, of the file that hints at memory."""
    arguments = _arguments("dataflow-sized")
    options = _options(arguments)
    options.view_as(DryRunOptions).dry_run = True
    options.view_as(TypeOptions).pipeline_type_check = False  # half of the time, and not our matter
    job = JobSettings(
        output_uri=arguments.output,
        catalog_uri=f"{arguments.output}/catalog",
        settings=PressSettings(),
        filters=arguments.filters,
        overwrite=False,
        worker_memory_bytes=arguments.worker_memory_bytes,
        staging_root="gs://lab/tmp/staging",
    )
    pipeline = beam.Pipeline(options=options)
    press.build(pipeline, arguments.inputs, job)
    pipeline.run()
    return pipeline.runner.proto_pipeline


def _given(name: str) -> dict[str, str | None]:
    return {line.name: line.value for line in flags_file.read(name)}


@pytest.mark.parametrize("name", _NAMES)
def test_flags_arrive_where_dataflow_reads_them(name: str) -> None:
    environment, given = _environment(name), _given(name)
    (pool,) = environment.worker_pools
    assert "no_use_multiple_sdk_containers" in environment.experiments
    assert "use_multiple_sdk_containers" not in environment.experiments
    assert pool.machine_type == given["--machine-type"]
    assert pool.disk_size_gb == int(given["--disk-size-gb"] or 0) > 0
    assert pool.disk_type == given["--disk-type"]
    assert pool.num_threads_per_worker == int(given["--number-of-worker-harness-threads"] or 0)
    assert pool.autoscaling_settings.algorithm == 2, "AUTOSCALING_ALGORITHM_BASIC"
    assert pool.autoscaling_settings.max_num_workers == int(given["--max-num-workers"] or 0)
    assert pool.ip_configuration == 2, "WORKER_IP_PRIVATE"
    assert pool.worker_harness_container_image == _IMAGE
    told = environment.sdk_pipeline_options["options"]
    timeout_minutes = int(given["--element-processing-timeout-minutes"] or 0)
    assert told["element_processing_timeout_minutes"] == timeout_minutes
    cores, _ = _MACHINES[str(pool.machine_type)]
    assert pool.num_threads_per_worker == cores


def test_the_cheap_one_is_flexible_and_hints_at_nothing() -> None:
    assert _environment("dataflow-cheap").flex_resource_scheduling_goal == 2, "COST_OPTIMIZED"
    arguments = _arguments("dataflow-cheap")
    assert arguments.worker_memory_bytes is None
    assert not _options(arguments).view_as(StandardOptions).resource_hints


def test_the_sized_one_asks_for_memory_where_it_unpacks_and_mixes(sized: Any) -> None:
    environment = _environment("dataflow-sized", sized)
    assert environment.flex_resource_scheduling_goal == 0
    (pool,) = environment.worker_pools
    images = [image.container_image for image in pool.sdk_harness_container_images]
    assert images == [_IMAGE, _IMAGE], "one for each kind of machine"
    components = sized.components
    hinted: set[str] = set()
    others: set[str] = set()
    for transform in components.transforms.values():
        if not transform.environment_id:
            continue
        step = transform.unique_name.split("/")[0]
        hints = components.environments[transform.environment_id].resource_hints
        if hints:
            assert dict(hints) == {_MIN_RAM: b"16000000000"}
        (hinted if hints else others).add(step)
    assert hinted == {"UnpackArchives", "UnpackRecalled", "MixCalls"}
    assert {"ExtractTracks", "WriteCatalog", "PlanCalls"} <= others


@pytest.mark.parametrize("name", _NAMES)
def test_no_worker_is_ended_over_work_that_is_allowed_to_go_on(name: str) -> None:
    # It may have waited for another, and be tried twice.
    least_seconds = 3 * LimitSettings().codec_seconds
    minutes = int(_given(name)["--element-processing-timeout-minutes"] or 0)
    assert minutes * 60 >= least_seconds + 1_800


@pytest.mark.parametrize("name", _NAMES)
def test_machines_fit_what_their_cores_take(name: str) -> None:
    given = _given(name)
    threads = int(given["--number-of-worker-harness-threads"] or 0)
    cores, memory_bytes = _MACHINES[str(given["--machine-type"])]
    day = worker_size.codec_process_bytes(segment_hours=24)
    assert worker_size.memory_bytes(cores, threads, day) <= memory_bytes
    if "--worker-memory" in given:
        memory_bytes = parse_size("--worker-memory", str(given["--worker-memory"]))
    worst = LimitSettings().codec_memory_bytes
    assert worker_size.memory_bytes(cores, threads, worst) <= memory_bytes
    disk_bytes = int(given["--disk-size-gb"] or 0) * 10**9
    assert worker_size.disk_bytes(cores, archive_bytes=7 * 10**9) <= disk_bytes


@pytest.mark.parametrize("name", _NAMES)
def test_every_flag_has_its_reason(name: str) -> None:
    lines = (ROOT / "configs" / f"{name}.flags").read_text().splitlines()
    for number, line in enumerate(lines):
        if line.startswith("--"):
            assert lines[number - 1].startswith("# "), line


def test_hints_and_flexible_machines_exclude_each_other() -> None:
    arguments = _arguments("dataflow-cheap", "--worker-memory=16GB")
    with pytest.raises(ConfigError, match="--worker-memory and --flexrs_goal"):
        _options(arguments)
    with pytest.raises(ConfigError, match="--worker-memory is for engines with machines"):
        _options(_arguments("dataflow-sized", "--runner=DirectRunner"))
