"""Measures the telling of what was made: whether anything is lost or told twice, and what it costs.

.venv/bin/python -m benchmarks.telling            # some minutes
.venv/bin/python -m benchmarks.telling events
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.figures import Figure, at_most, none_of, print_table
from benchmarks.material import Material
from benchmarks.presses import Presses
from benchmarks.processes import run
from tests.support.certificates import Authority
from tests.support.processes import HOST
from tests.support.receiver import Receiver, make_catalog, read_table
from tests.support.tell_once import crm, tell, tell_and_be_killed
from tests.support.tls_site import Site, running_site
from transforms.storage import storage_options
from transforms.storage.storage_options import StorageOptions

EVENTS = 10_000
FAILING_PERCENT = 20
MISSING = 10
SMALL_CALLS = 200
ROUNDS = 3
TOLD = 2_000


@contextmanager
def _site() -> Iterator[Site]:
    """Runs a server that this process and its children believe."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder))
        os.environ["SSL_CERT_FILE"] = str(authority.certificate_file)
        with running_site(authority.server_context(HOST)) as site:
            storage_options.use(StorageOptions(named_hosts=frozenset({site.host_and_port})))
            yield site


@functools.cache
def _events() -> tuple[Receiver, dict[str, bytes], set[str], Counter[str]]:
    """Tells `EVENTS` to a receiver of which a fifth of the tries fail, by two processes that are
    killed and then by one that is not; returns the receiver, the events by id, those of which the
    file is not there, and how many rows have each state in the end.
    """
    with _site() as site, tempfile.TemporaryDirectory() as folder:
        rows = make_catalog(Path(folder), EVENTS, ["crm"])
        missing = rows[:: EVENTS // MISSING]
        for row in missing:
            Path(row["uri"]).unlink()
        receiver = Receiver(site, failing_percent=FAILING_PERCENT)
        try:
            tell_and_be_killed(folder, receiver, site.host_and_port, (EVENTS // 3, EVENTS * 2 // 3))
            tell(folder, crm(receiver.url), budget_seconds=300)
        finally:
            receiver.let_go()
        states = Counter(row["state"] for row in read_table(Path(folder), "notices"))
    bodies = {row["event_id"]: row["body"].encode() for row in rows}
    return receiver, bodies, {row["event_id"] for row in missing}, states


def _lost() -> Figure:
    receiver, bodies, missing, states = _events()
    lost = bodies.keys() - missing - receiver.taken.keys()
    told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return none_of(len(lost), len(bodies), f"lost; rows: {told}")


def _untrue() -> Figure:
    receiver, _, missing, _ = _events()
    return none_of(len(missing & receiver.taken.keys()), len(missing), "of missing files told")


def _changed() -> Figure:
    """Repeats are allowed where a process was killed, of the same bytes under the same id."""
    receiver, bodies, _, _ = _events()
    again = {event_id: taken for event_id, taken in receiver.taken.items() if len(taken) > 1}
    changed = sum({each.body for each in again[i]} != {bodies.get(i)} for i in again)
    return none_of(changed, len(again), "told again were told in other words")


@functools.cache
def _cpu_s_of_event() -> float:
    """Returns what each of `TOLD` events takes, by a process that tells them and one that tells a
    single one.
    """
    with _site() as site, tempfile.TemporaryDirectory() as folder:
        receiver = Receiver(site)
        least = {}
        for count in (1, TOLD + 1):
            found = []
            for number in range(ROUNDS):
                catalog = Path(folder) / f"{count}-{number}"
                make_catalog(catalog, count, ["crm"])
                command: list[str | Path] = [
                    sys.executable,
                    "-m",
                    "tests.support.tell_once",
                    catalog,
                    receiver.url,
                ]
                found.append(run([*command, site.host_and_port]).cpu_s)
            least[count] = min(found)
    return (least[TOLD + 1] - least[1]) / TOLD


def _share(presses: Presses, archives: Sequence[Path]) -> Figure:
    """Returns what telling one endpoint adds to the CPU of a run. Of two runs the difference would
    be lost in what else a machine does.
    """
    cpu_s = []
    for _ in range(ROUNDS):
        output = presses.new_path()
        cpu_s.append(run(presses.command(archives, output)).cpu_s)
        files = sum(path.is_file() for path in (output / "recordings").rglob("*"))
        shutil.rmtree(output)
    told = _cpu_s_of_event()
    detail = f" ({files} events, {1_000 * told:.2f} ms each, {min(cpu_s):.1f} s)"
    return at_most(100 * files * told / min(cpu_s), 2, "%", detail)


def main(argv: Sequence[str]) -> int:
    """Prints what words select; returns 1 when a figure is missed, else 0."""
    material = Material(folder=Path(tempfile.gettempdir()) / "callpress-benchmarks")
    with tempfile.TemporaryDirectory() as scratch:
        presses = Presses(material, Path(scratch))
        return print_table(
            {
                "events lost, two processes killed": _lost,
                "events of files that are not there": _untrue,
                "events told again": _changed,
                "cpu, 16 calls of 2 min": lambda: _share(presses, material.batch()),
                f"cpu, {SMALL_CALLS} calls of 3 s": lambda: _share(
                    presses, sorted(material.small().iterdir())[:SMALL_CALLS]
                ),
            },
            argv,
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
