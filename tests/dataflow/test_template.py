"""A classic template, written by the real command against a storage emulator: what it says, what it
leaves behind, and what is in it. It is written once, and again by a process of another hash seed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from apache_beam.internal import pickler
from apache_beam.portability.api import beam_runner_api_pb2
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from tests.support.command import Finished, callpress, callpress_process
from tests.support.locks import other_state
from tests.support.storage_servers import running_emulator
from tests.support.translation import (
    BUCKET,
    FLAGS,
    IMAGE,
    MACHINES,
    payloads,
    traces_of_now,
)
from transforms.locking.lock import NAME

pytestmark = pytest.mark.slow

OUTPUT = f"gs://{BUCKET}/pressed"
COMMAND = ("run", "--input", f"gs://{BUCKET}/raw/**", "--output", OUTPUT, "--since", "36h")
LOCK = f"pressed/catalog/{NAME}"


@dataclass(frozen=True, kw_only=True)
class Written:
    """A template that was written."""

    done: Finished
    unix_s: float
    """When the command was started."""
    values: dict[str, Any]
    """What stands in it, by where."""
    pipeline: beam_runner_api_pb2.Pipeline
    staged: frozenset[str]
    """What was staged for its workers."""


def _flat(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yields what a JSON document holds, by where it stands: named by their keys."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _flat(each, f"{where}.{name}".lstrip("."))
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for number, each in enumerate(value):
            yield from _flat(each, f"{where}[{each.get('key') or each.get('name') or number}]")
    else:
        # Beam's plugins come in the order of a set.
        yield where, sorted(value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class Store:
    """The bucket, and two templates of one command in it."""

    env: dict[str, str]
    objects: dict[str, int]
    """What is there, and its generation; all but what Beam staged."""
    lock_generation: int
    templates: tuple[Written, Written]


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with running_emulator(BUCKET) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", url)
        client = storage.Client(project="anonymous", credentials=AnonymousCredentials())
        bucket = client.bucket(BUCKET)
        lock = bucket.blob(LOCK)
        lock.upload_from_string(other_state())  # a night is at work
        env = {"STORAGE_EMULATOR_HOST": url, "NO_GCE_CHECK": "true"}

        def write(number: int) -> tuple[Finished, float]:
            unix_s = time.time()
            flags = (*FLAGS, *MACHINES, f"--template_location=gs://{BUCKET}/templates/{number}")
            return callpress_process(
                *COMMAND, *flags, env={**env, "PYTHONHASHSEED": str(number)}
            ), unix_s

        with ThreadPoolExecutor(2) as pool:
            ended = list(pool.map(write, range(2)))
        found = {blob.name: blob for blob in bucket.list_blobs()}

        def read(number: int) -> Written:
            done, unix_s = ended[number]
            assert done.status == 0, done.err
            job = json.loads(found[f"templates/{number}"].download_as_bytes())
            staged = job["environment"]["sdkPipelineOptions"]["options"]["staging_location"]
            folder = staged.removeprefix(f"gs://{BUCKET}/")
            return Written(
                done=done,
                unix_s=unix_s,
                values=dict(_flat(job)),
                pipeline=beam_runner_api_pb2.Pipeline.FromString(
                    found[f"{folder}/pipeline.pb"].download_as_bytes()
                ),
                staged=frozenset(
                    name.removeprefix(f"{folder}/") for name in found if name.startswith(folder)
                ),
            )

        yield Store(
            env=env,
            objects={
                name: blob.generation
                for name, blob in found.items()
                if not name.startswith("code/")
            },
            lock_generation=lock.generation,
            templates=(read(0), read(1)),
        )


@pytest.fixture
def template(store: Store) -> Written:
    return store.templates[0]


# --- what is said, and what is left ---------------------------------------------------------------


def test_it_is_told_what_was_written_and_how_it_is_started(template: Written) -> None:
    assert template.done.out == ""
    assert template.done.err.splitlines() == [
        f"callpress: warning: gs://{BUCKET}/raw/** matches nothing",
        f"callpress: wrote the job's template gs://{BUCKET}/templates/0; nothing is pressed before "
        "it is started, as often as you like, with a name of your choice for NAME:",
        f"callpress: gcloud dataflow jobs run NAME --gcs-location=gs://{BUCKET}/templates/0 "
        "--region=europe-west1 --project=lab-project",
    ]


def test_nothing_is_taken_or_written_but_the_template(store: Store) -> None:
    """Also while a run is at work, and has the lock: it is another's."""
    assert store.objects == {
        LOCK: store.lock_generation,
        "templates/0": store.objects["templates/0"],
        "templates/1": store.objects["templates/1"],
    }


def test_only_the_job_is_staged(template: Written) -> None:
    """No main session: nothing of ours is defined in the module that was started."""
    assert template.staged == {"pipeline.pb", "submission_environment_dependencies.txt"}
    assert template.values["environment.sdkPipelineOptions.options.save_main_session"] is False


# --- what is in it --------------------------------------------------------------------------------


def test_machines_are_those_that_were_asked_for(template: Written) -> None:
    pool = "environment.workerPools[0]"
    values = template.values
    assert values[f"{pool}.machineType"] == "e2-standard-4"
    assert values[f"{pool}.autoscalingSettings.maxNumWorkers"] == 50
    assert values[f"{pool}.diskSizeGb"] == 100
    assert values[f"{pool}.numThreadsPerWorker"] == 6
    assert values[f"{pool}.ipConfiguration"] == "WORKER_IP_PRIVATE"
    assert values[f"{pool}.subnetwork"] == "regions/europe-west1/subnetworks/press"
    assert values["environment.flexResourceSchedulingGoal"] == "FLEXRS_COST_OPTIMIZED"
    assert values["environment.serviceAccountEmail"].startswith("press@")
    experiments = values["environment.experiments"]
    assert "no_use_multiple_sdk_containers" in experiments
    assert "use_multiple_sdk_containers" not in experiments


def test_workers_are_of_one_image(template: Written) -> None:
    (environment,) = template.pipeline.components.environments.values()
    payload = beam_runner_api_pb2.DockerPayload.FromString(environment.payload)
    assert payload.container_image == IMAGE
    images = {value for where, value in template.values.items() if where.endswith("ontainerImage")}
    assert images == {IMAGE}
    named = {each.environment_id for each in template.pipeline.components.transforms.values()}
    assert named <= {"", *template.pipeline.components.environments}


def test_no_payload_is_large(template: Written) -> None:
    size, step = max((len(each.stored), each.step) for each in payloads(template.pipeline))

    assert 1_000 < size <= 10_000, step


def test_nothing_of_a_run_is_in_any_payload(template: Written) -> None:
    found = list(payloads(template.pipeline))

    packed = [each for each in found if each.is_packed]
    assert len(packed) > 300
    assert any(b"36h" in each.content for each in packed)
    for each in found:
        assert not traces_of_now(each, template.unix_s), each.step


def test_every_step_is_unpickled_where_only_our_packages_are(template: Written) -> None:
    for each in payloads(template.pipeline):
        if each.is_packed:
            assert b"__main__" not in each.content, each.step
            pickler.loads(each.stored)


OF_BEAM = {
    # The name of the job, and folders named after it, have the time they were made at.
    "clientRequestId",
    "name",
    "environment.tempStoragePrefix",
    *(
        f"environment.sdkPipelineOptions.{where}"
        for name in ("job_name", "staging_location", "temp_location", "template_location")
        for where in (f"options.{name}", f"display_data[{name}].value")
    ),
    "environment.sdkPipelineOptions.options.pipelineProtoHash",
    "environment.sdkPipelineOptions.options.pipelineUrl",
    "environment.workerPools[0].packages[submission_environment_dependencies.txt].location",
}
PLUGINS = "environment.sdkPipelineOptions.display_data[beam_plugins].value"
"""A list as text, in the order of a set."""


def test_two_templates_of_a_command_differ_in_what_beam_names_after_the_time(store: Store) -> None:
    one, other = (template.values for template in store.templates)

    assert one.keys() == other.keys()
    assert {name for name in one if one[name] != other[name]} - {PLUGINS} == OF_BEAM


def test_two_jobs_of_a_command_are_the_same(store: Store) -> None:
    one, other = (template.pipeline for template in store.templates)

    for each in (one, other):
        for environment in each.components.environments.values():
            del environment.dependencies[:]  # their folder has the job's name
        for transform in each.components.transforms.values():
            if transform.spec.urn == "beam:transform:pardo:v1":
                # Side inputs are a map, which is written in any order.
                payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
                transform.spec.payload = payload.SerializeToString(deterministic=True)
    assert one == other


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (("/tmp/template",), 2, "expected a place that Dataflow can read, gs://bucket/folder/name"),
        ((f"gs://{BUCKET}",), 2, "expected a place that Dataflow can read"),
        ((f"gs://{BUCKET}/folder/",), 2, "expected a place that Dataflow can read"),
        (("gs://nowhere/template",), 1, "gs://nowhere/**: HTTP status 404"),
        (
            (f"gs://{BUCKET}/template", "--summary-json=end.json"),
            2,
            "expected none beside --template_location: what comes of each run will lie in "
            "<catalog>/results",
        ),
        # The launcher of flex templates starts what it asks for, and that once: as any other run.
        ((f"gs://{BUCKET}/launches/1/job_object",), 1, "nothing to press"),
    ],
)
def test_template_that_cannot_be_is_one_line(
    store: Store,
    flags: tuple[str, ...],
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for name, value in store.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    location, *others = flags

    done = callpress(*COMMAND, *FLAGS, f"--template_location={location}", *others)

    assert (done.status, done.out) == (status, "")
    assert message in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
