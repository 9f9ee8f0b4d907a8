"""Tells what is pending in a catalog, as a process of its own that can be killed.

python -m tests.support.tell_once CATALOG URL HOST:PORT
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.receiver import Receiver
from transforms.notices.pace import Pace
from transforms.notices.tell import Told, tell_pending
from transforms.storage import storage_options
from transforms.storage.storage_options import StorageOptions
from transforms.targets import Notify, Target, TargetKind

ROOT = Path(__file__).parents[2]
QUICK = Pace(first_wait_seconds=0.02, most_wait_seconds=0.2, mark_seconds=0.1)


def crm(url: str, **changed: object) -> Target:
    """Returns a target behind an URL, which answers at once or not at all."""
    settings: dict[str, object] = {"timeout_seconds": 0.3, **changed}
    return Target(name="crm", kind=TargetKind.HTTPS, place=url, **settings)  # type: ignore[arg-type]


def tell(
    catalog: str, *targets: Target, budget_seconds: float = 60, pace: Pace = QUICK
) -> list[Told]:
    """Tells some targets what is pending for them."""
    notify = Notify(targets=targets, budget_seconds=budget_seconds)
    return tell_pending(catalog, notify, "r1", lambda: None, pace=pace)


def tell_and_be_killed(
    catalog: str, receiver: Receiver, host_and_port: str, counts: Sequence[int]
) -> None:
    """Has processes tell it one after the other, each of which is killed once the receiver has
    taken so many events; what it is asked from then on it answers nobody.
    """
    command = [sys.executable, "-m", "tests.support.tell_once"]
    for count in counts:
        receiver.hold_after = count
        process = subprocess.Popen([*command, catalog, receiver.url, host_and_port], cwd=ROOT)
        try:
            receiver.wait_until_holding()
        finally:
            process.kill()
            process.wait()
            receiver.let_go()


if __name__ == "__main__":
    given_catalog, given_url, host_and_port = sys.argv[1:]
    storage_options.use(StorageOptions(named_hosts=frozenset({host_and_port})))
    tell(given_catalog, crm(given_url))
