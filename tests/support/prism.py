"""Beam's portable engine Prism, a pool of workers and a store, in a network that nobody else sees.

Prism and the pool listen on all interfaces and cannot be told not to; hence a network of their own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.go_programs import PRISM, go_program
from tests.support.loopback import LoopbackNetwork
from tests.support.processes import HOST, free_port, running_server, wait_until
from tests.support.storage_proxy import Faults, proxied
from tests.support.storage_servers import running_fake_gcs_server

_CANCEL = """
import sys
import grpc
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    jobs = beam_job_api_pb2_grpc.JobServiceStub(channel)
    jobs.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=sys.argv[2]))
"""
_SUBMIT = """
import sys
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.portable_runner import PortableRunner
from transforms.storage import objects
objects.find_credentials(("gs://any/object",))
count, *flags = sys.argv[1:]
job = beam_runner_api_pb2.Pipeline.FromString(sys.stdin.buffer.read())
options = PipelineOptions(flags)
for environment in job.components.environments.values():
    environment.CopyFrom(PortableRunner._create_environment(options).to_runner_api(None))
for _ in range(int(count)):
    print(PortableRunner().run_portable_pipeline(job, options).wait_until_finish())
"""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class PrismCluster:
    """An engine with workers outside of the launcher, all on gs://."""

    flags: tuple[str, ...]
    """What `callpress run` is told to run there."""
    own_flags: tuple[str, ...]
    """The same for an engine that the launcher starts, with workers in the launcher."""
    job_endpoint: str
    env: dict[str, str]
    """What launchers and workers need in their environment."""
    web_port: int
    faults: Faults
    """What is wrong between all of them and the store; nothing at first."""
    folder: Path
    """With `prism.log` and `pool.log`."""
    network: LoopbackNetwork
    servers: frozenset[int]

    def others(self) -> dict[int, str]:
        """Returns what runs in the network beside the servers: launchers, workers, codec
        processes.
        """
        return {
            pid: command
            for pid, command in self.network.processes().items()
            if pid not in self.servers
        }

    def worker_of(self, job_id: str) -> int:
        """Returns the worker process of a job: the pool names it on its command line."""
        (found,) = (
            pid for pid, command in self.others().items() if f'worker_id="{job_id}[' in command
        )
        return found

    def cancel(self, job_id: str) -> None:
        """Cancels a job, as anybody may who reaches the engine. In a process of its own: gRPC's
        threads would stay in the network that they were begun in.
        """
        subprocess.run([sys.executable, "-c", _CANCEL, self.job_endpoint, job_id], check=True)

    def submit(self, pipeline: bytes, count: int) -> list[str]:
        """Has a job that was translated for another engine be done so often, one after the other,
        on this one's workers; returns the states it ended in.

        Args:
          pipeline: as it was staged.
          count: how often.
        """
        done = subprocess.run(
            [sys.executable, "-c", _SUBMIT, str(count), *self.flags],
            input=pipeline,
            stdout=subprocess.PIPE,
            check=True,
            env={**os.environ, **self.env},
        )
        return done.stdout.decode().split()

    def check_nothing_is_left(self) -> None:
        """Raises: AssertionError: something but the servers still runs, or one of them does not."""
        wait_until(lambda: not self.others(), 15)
        assert not self.others()
        assert self.servers <= self.network.processes().keys()


@contextmanager
def running_prism_cluster(folder: Path) -> Iterator[PrismCluster]:
    """Runs all of it; this thread is in its network until the block ends.

    Skips the test without Go or root.
    """
    program = go_program(PRISM)
    network = LoopbackNetwork()
    with ExitStack() as stack:
        stack.callback(network.close)
        stack.enter_context(network.entered())
        faults = Faults()
        gcs = stack.enter_context(proxied(stack.enter_context(running_fake_gcs_server()), faults))
        job_port, web_port, pool_port = free_port(), free_port(), free_port()
        flags = (f"--job_port={job_port}", f"--web_port={web_port}", "--log_kind=text")
        stack.enter_context(running_server([program, *flags], job_port, log=folder / "prism.log"))
        env = {"STORAGE_EMULATOR_HOST": gcs, "NO_GCE_CHECK": "true"}
        pool = (sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main")
        stack.enter_context(
            running_server(
                [*pool, f"--service_port={pool_port}"],
                pool_port,
                # The pool starts plain `python`.
                env={
                    **env,
                    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                    "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
                },
                log=folder / "pool.log",
                stop_signal=signal.SIGINT,  # at which it ends its workers too
            )
        )
        lean = "--experiments=disable_logging_submission_environment"  # without `pip freeze`
        yield PrismCluster(
            own_flags=("--runner=PrismRunner", f"--prism_location={program}", lean),
            job_endpoint=f"{HOST}:{job_port}",
            flags=(
                "--runner=PortableRunner",
                f"--job_endpoint={HOST}:{job_port}",
                "--environment_type=EXTERNAL",
                f"--environment_config={HOST}:{pool_port}",
                lean,
            ),
            env=env,
            web_port=web_port,
            faults=faults,
            folder=folder,
            network=network,
            servers=frozenset(network.processes()),
        )
