"""Weighs two ways to S3 and Azure: our own stores over obstore, and Beam's file systems over boto3
and azure-storage-blob. Counts requests at a proxy before moto and Azurite, takes times, and has the
proxy fail.

    pip install 'apache-beam[aws,azure]'
    .venv/bin/python -m benchmarks.store_libraries

Both are called as `transforms.storage` calls any store, by one thread; where errors may pass, by
the one retry of the program. Times are those of servers on the same machine in Python and Node:
they tell the libraries apart, and nothing of a network. CPU time has that of the proxy in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from tests.support.cloud_servers import (
    AZURITE_ACCOUNT,
    AZURITE_KEY,
    CloudServer,
    running_azurite,
    running_moto,
)
from tests.support.storage_proxy import Faults, proxied
from transforms.media.errors import StorageError
from transforms.storage.beam import BeamStore
from transforms.storage.registry import store_of
from transforms.storage.retry import retried
from transforms.storage.store import Store

SMALL = bytes(range(256)) * 16
"""4 kB."""
ARCHIVE = bytes(range(256)) * (40 << 12)
"""40 MB."""
OBJECTS = 40
"""Few enough for Beam's file systems; a thousand take 25 times as long."""
_READ_BYTES = 1 << 20


@dataclass
class Rows:
    """Prints what is found of one library and one store."""

    title: str
    faults: Faults

    @contextmanager
    def measured(self, what: str) -> Iterator[Callable[[str], None]]:
        """Measures a block; it may add words to its row."""
        self.faults.counts.clear()
        words: list[str] = []
        began, cpu_began = time.monotonic(), time.process_time()
        yield words.append
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu_began
        requests = self.faults.counts["requests"]
        told = f"{seconds:.1f} s, {cpu:.1f} s of CPU, {requests:,} requests"
        print(f"{self.title} {what:28} {', '.join([told, *words])}", flush=True)


def weigh(store: Store, place: str, faults: Faults, title: str) -> None:
    """Prints what a store takes for what we do with one."""
    rows = Rows(title, faults)
    names = [f"{place}/small/{number:04}" for number in range(OBJECTS)]
    with rows.measured("40 objects of 4 kB written"):
        for name in names:
            store.write(name, SMALL)
    with rows.measured("... read"):
        for name in names:
            assert store.read(name) == SMALL
    with rows.measured("... listed"):
        assert sum(1 for _ in store.match(f"{place}/small/**")) == OBJECTS
    with rows.measured("an archive of 40 MB written"):
        store.write(f"{place}/archive", ARCHIVE)
    with rows.measured("... read from start to end"):
        _read_through(store, f"{place}/archive")
    faults.unavailable_ratio = 0.05
    with rows.measured("... read, 5 % of answers 503") as add:
        add(_failed(retried(store.read), names))
    faults.unavailable_ratio, faults.short_ratio = 0.0, 1.0
    with rows.measured("20 reads, half a body each") as add:
        add(_failed(store.read, names[:20]))
    faults.short_ratio = 0.0
    with rows.measured("40 objects deleted"):
        store.delete_many(names)


def _read_through(store: Store, uri: str) -> None:
    with closing(store.open(uri)) as file:
        step = store.read_buffer_bytes
        for start in range(0, file.size_bytes, step):
            assert file.read_at(start, step) == ARCHIVE[start : start + step]


def _failed(read: Callable[[str], bytes], names: Iterable[str]) -> str:
    """Returns how many reads failed, and how many gave other bytes without a word."""
    failed = wrong = 0
    for name in names:
        try:
            wrong += read(name) != SMALL
        except (OSError, StorageError):
            failed += 1
    return f"{failed} failed, {wrong} gave other bytes without a word"


def _set_up_beam(url: str) -> None:
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={AZURITE_ACCOUNT};AccountKey={AZURITE_KEY};"
        f"BlobEndpoint={url}/{AZURITE_ACCOUNT};"
    )
    flags = [
        f"--s3_endpoint_url={url}", "--s3_access_key_id=testing", "--s3_secret_access_key=testing",
        "--s3_region_name=us-east-1", f"--azure_connection_string={connection}",
    ]  # fmt: skip
    FileSystems.set_options(PipelineOptions(flags))


def _weigh_both(server: CloudServer) -> None:
    server.make_bucket("weighed")
    for name, store in (("obstore", store_of(server.base)), ("Beam", BeamStore())):
        faults = Faults()
        with proxied(server.url, faults) as url:
            os.environ.update(server.environment(url))
            _set_up_beam(url)
            place = f"{server.base}weighed/{name.lower()}"
            weigh(store, place, faults, f"{server.base:24} {name:8}")


def main() -> None:
    """Prints the rows of both stores."""
    for running in (running_moto, running_azurite):
        with running() as server:
            _weigh_both(server)


if __name__ == "__main__":
    main()
