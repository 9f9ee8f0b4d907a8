"""Beam's portable engine Prism, a pool of workers and a store, in a network that nobody else sees.

Prism and the pool listen on all interfaces and cannot be told not to; hence a network of their own.
"""

from __future__ import annotations

import os
import signal
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

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class PrismCluster:
    """An engine with workers outside of the launcher, all on gs://."""

    flags: tuple[str, ...]
    """What `callpress run` is told to run there."""
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

    def workers(self) -> list[int]:
        """Returns the worker processes of the pool."""
        return [pid for pid, command in self.others().items() if "SdkHarness" in command]

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
        yield PrismCluster(
            flags=(
                "--runner=PortableRunner",
                f"--job_endpoint={HOST}:{job_port}",
                "--environment_type=EXTERNAL",
                f"--environment_config={HOST}:{pool_port}",
            ),
            env=env,
            web_port=web_port,
            faults=faults,
            folder=folder,
            network=network,
            servers=frozenset(network.processes()),
        )
