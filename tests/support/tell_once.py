"""Tells what is pending in a catalog, as a process of its own that can be killed.

python -m tests.support.tell_once CATALOG URL HOST:PORT
"""

from __future__ import annotations

import sys

from transforms.notices.sending import Pace
from transforms.notices.tell import Told, tell_pending
from transforms.storage import storage_options
from transforms.storage.storage_options import StorageOptions
from transforms.targets import Notify, Target, TargetKind

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


if __name__ == "__main__":
    given_catalog, given_url, host_and_port = sys.argv[1:]
    storage_options.use(StorageOptions(named_hosts=frozenset({host_and_port})))
    tell(given_catalog, crm(given_url))
