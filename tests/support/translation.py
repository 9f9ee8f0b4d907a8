"""A job as Dataflow is given it, and what is pickled into it. Offline: Beam translates it, and
submits nothing (`--dry_run`).
"""

from __future__ import annotations

import base64
import binascii
import bz2
import pickletools
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, TestOptions
from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2

from pipelines import press
from pipelines.beam_options import beam_options
from transforms.context import JobSettings
from transforms.storage import objects

BUCKET = "calls"
IMAGE = "europe-docker.pkg.dev/lab-project/tools/callpress:1"
FLAGS = (
    "--runner=DataflowRunner",
    "--project=lab-project",
    "--region=europe-west1",
    f"--temp_location=gs://{BUCKET}/tmp",
    f"--staging_location=gs://{BUCKET}/code",
    f"--sdk_container_image={IMAGE}",
)
MACHINES = (
    "--worker_machine_type=e2-standard-4",
    "--max_num_workers=50",
    "--disk_size_gb=100",
    "--number_of_worker_harness_threads=6",
    "--experiments=no_use_multiple_sdk_containers",
    "--flexrs_goal=COST_OPTIMIZED",
    "--service_account_email=press@lab-project.iam.gserviceaccount.com",
    "--subnetwork=regions/europe-west1/subnetworks/press",
    "--no_use_public_ips",
)

_PARSED = {
    common_urns.primitives.PAR_DO.urn: beam_runner_api_pb2.ParDoPayload,
    common_urns.composites.COMBINE_PER_KEY.urn: beam_runner_api_pb2.CombinePayload,
    common_urns.combine_components.COMBINE_GROUPED_VALUES.urn: beam_runner_api_pb2.CombinePayload,
}
"""Payloads that are messages, and have payloads of their own."""


class Payload(NamedTuple):
    """What one function, step or coder of a job is given to work with."""

    step: str
    urn: str
    stored: bytes
    """As the job has it."""
    content: bytes
    """What Beam packed into it, if it did."""
    is_packed: bool


def translate(
    patterns: Sequence[str], job: JobSettings, *flags: str
) -> beam_runner_api_pb2.Pipeline:
    """Returns a job as Beam would stage it for Dataflow."""
    objects.find_credentials((f"gs://{BUCKET}/tmp",))
    lean = "--experiments=disable_logging_submission_environment"  # without `pip freeze`
    options: PipelineOptions = beam_options([*FLAGS, lean, *flags])
    options.view_as(TestOptions).dry_run = True
    pipeline = beam.Pipeline(options=options)
    press.build(pipeline, patterns, job)
    pipeline.run(test_runner_api=False)  # which builds all of it twice
    return pipeline.runner.proto_pipeline


def steps_behind(proto: beam_runner_api_pb2.Pipeline, name: str) -> set[str]:
    """Returns the names of all steps that wait for one, by its name as we gave it."""
    steps = proto.components.transforms.values()
    found: set[str] = set()
    made = {
        out
        for step in steps
        if re.sub(r"/ParDo\(\w+\)$", "", step.unique_name) == name
        for out in step.outputs.values()
    }
    while new := [
        step
        for step in steps
        if step.unique_name not in found
        and not step.subtransforms
        and made.intersection(step.inputs.values())
    ]:
        found.update(step.unique_name for step in new)
        made.update(out for step in new for out in step.outputs.values())
    return {re.sub(r"/ParDo\(\w+\)$", "", each) for each in found}


def payloads(proto: beam_runner_api_pb2.Pipeline) -> Iterator[Payload]:
    """Yields all payloads of a job, those too that lie in others."""
    components = proto.components
    for transform in components.transforms.values():
        yield from _within(transform.unique_name, transform)
    for name in ("pcollections", "coders", "windowing_strategies", "environments"):
        for key, each in getattr(components, name).items():
            yield from _within(key, each)


def _within(step: str, message: Any) -> Iterator[Payload]:
    if {"urn", "payload"} <= set(message.DESCRIPTOR.fields_by_name):
        content, is_packed = _unpacked(message.payload)
        yield Payload(step, message.urn, message.payload, content, is_packed)
        if message.urn in _PARSED:
            yield from _within(step, _PARSED[message.urn].FromString(message.payload))
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        if field.message_type.GetOptions().map_entry:
            found = [each for each in value.values() if hasattr(each, "DESCRIPTOR")]
        else:
            found = list(value) if field.is_repeated else [value]
        for each in found:
            yield from _within(step, each)


def _unpacked(payload: bytes) -> tuple[bytes, bool]:
    """Returns what a payload holds, and whether it was compressed; Beam does that to what it
    pickles.
    """
    try:
        packed = base64.b64decode(payload, validate=True)
    except binascii.Error:
        return payload, False
    if packed.startswith(b"BZh"):
        return bz2.decompress(packed), True
    try:
        return zlib.decompress(packed), True
    except zlib.error:
        return payload, False


_NUMBER = re.compile(r"\d{10,}")
_OF_A_RUN = re.compile(r"\d{8}T\d{6}|\b[0-9a-f]{32}\b")
"""How ids of runs and tokens of locks look."""


def traces_of_now(payload: Payload, unix_s: float) -> list[object]:
    """Returns what in a payload may be a time of today, a run's id or a lock's token.

    Args:
      payload: of a job.
      unix_s: when the job was built.
    """
    day = re.compile(beam.utils.timestamp.Timestamp(unix_s).to_rfc3339()[:10].replace("-", "-?"))
    if not payload.is_packed:
        values: list[object] = [payload.content.decode("latin-1")]
    else:
        values = [argument for _, argument, _ in pickletools.genops(payload.content)]
    found: list[object] = []
    for value in values:
        text = value.decode("latin-1") if isinstance(value, bytes) else value
        if isinstance(text, str):
            numbers: list[float] = [int(number) for number in _NUMBER.findall(text)]
            found += [text] if day.search(text) or _OF_A_RUN.search(text) else []
        else:
            numbers = [text] if isinstance(text, (int, float)) else []
        found += [
            number
            for number in numbers
            if any(abs(number / unit - unix_s) < 86_400 for unit in (1, 1e3, 1e6, 1e9))
        ]
    return found
