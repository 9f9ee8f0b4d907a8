"""Counts what an archive costs in requests on each store: input, output, catalog and staging all
lie there. Of a run over `FEW` and one over `MANY` small calls the difference is what one costs.

    .venv/bin/python -m benchmarks.store_requests
"""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from benchmarks.presses import CALLPRESS, ROOT
from tests.support.builders import Participant, Segment, encode_opus, make_call_archive, noise
from tests.support.cloud_servers import CloudServer, running_azurite, running_moto
from tests.support.storage_proxy import Faults, proxied
from tests.support.storage_servers import forget_clients, running_emulator
from transforms.storage import objects

FEW, MANY = 2, 10


@contextmanager
def _cloud(server: CloudServer, faults: Faults) -> Iterator[tuple[str, Mapping[str, str]]]:
    server.make_bucket("counted")
    with proxied(server.url, faults) as url:
        yield f"{server.base}counted", server.environment(url)


@contextmanager
def _google(faults: Faults) -> Iterator[tuple[str, Mapping[str, str]]]:
    with running_emulator(bucket="counted") as server, proxied(server, faults) as url:
        yield "gs://counted", {"STORAGE_EMULATOR_HOST": url}


def requests_of_run(place: str, count: int, faults: Faults) -> Counter[str]:
    """Returns how many requests a run over so many calls makes, by method."""
    packets = encode_opus(noise(2))
    for number in range(count):
        people = [
            Participant(participant_id=f"p-{ssrc}", segments=[Segment(packets=packets, ssrc=ssrc)])
            for ssrc in (1, 2, 3)
        ]
        name = f"call-{number}"
        data = make_call_archive(people, call_id=name, call_session_id=name)
        objects.write_bytes(f"{place}/raw/{name}.tar.gz", data)
    found: Counter[str] = Counter()
    faults.before = lambda request: found.update([request.split(" ")[0]])
    subprocess.run(
        [CALLPRESS, "run", "--input", f"{place}/raw/*", "--output", f"{place}/out",
         f"--temp_location={place}/tmp"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    faults.before = None
    return found


def main() -> None:
    """Prints a row for each store."""
    faults = Faults()
    with running_moto() as moto, running_azurite() as azurite:
        for store in (_google(faults), _cloud(moto, faults), _cloud(azurite, faults)):
            with store as (place, environment):
                os.environ.update(environment)
                forget_clients()
                few = requests_of_run(f"{place}/few", FEW, faults)
                many = requests_of_run(f"{place}/many", MANY, faults)
            each = {
                method: round((many[method] - few[method]) / (MANY - FEW), 1)
                for method in sorted(few | many)
            }
            print(f"{place:40} {sum(each.values()):5.1f} an archive, {each}", flush=True)


if __name__ == "__main__":
    main()
