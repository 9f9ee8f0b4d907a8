"""FindArchiveRows: URIs of archives, as many as there may be -> their rows in the catalog."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam

from transforms.catalog import partitions
from transforms.catalog.hashed_keys import HashedKeys, hash_of
from transforms.catalog.partitions import CatalogFile
from transforms.context import JobSettings
from transforms.elements import Row
from transforms.engine.fusion_break import break_fusion

_TABLE = "archives"
_KEY = "archive_uri"


class FindArchiveRows(beam.PTransform):
    """Input: URIs. Output: rows of `archives`, of all dates: those of these URIs, and a few others.

    As `FindPriorRows`, for a million keys or more: workers hold four bytes of each, and read all
    rows of the table, in parallel over its objects. Writes nothing.
    """

    def __init__(self, job: JobSettings, columns: Sequence[str]) -> None:
        """Args: columns: those wanted, `archive_uri` among them."""
        super().__init__()
        self._job = job
        self._columns = tuple(columns)

    def expand(self, archive_uris: beam.PCollection[str]) -> beam.PCollection[Row]:
        keys = beam.pvalue.AsSingleton(
            archive_uris
            | "Hash" >> beam.Map(hash_of)
            | "GatherHashes" >> beam.CombineGlobally(_GatherFn())
        )
        files = (
            archive_uris.pipeline
            | "Start" >> beam.Impulse()
            | "ListFiles" >> beam.FlatMap(_list_files, keys, self._job)
        )
        return break_fusion(files, "SpreadFiles", self._job) | "ScanFile" >> beam.ParDo(
            _ScanFn(self._job, self._columns), keys
        )


class _GatherFn(beam.CombineFn):
    """Hashes -> all of them in a row, each as the machine has 32 bits."""

    def create_accumulator(self) -> array[int]:
        return array("I")

    def add_input(self, hashes: array[int], hashed: int) -> array[int]:
        hashes.append(hashed)
        return hashes

    def merge_accumulators(self, accumulators: Iterable[array[int]]) -> array[int]:
        merged = array("I")
        for hashes in accumulators:
            merged.extend(hashes)
        return merged

    def extract_output(self, hashes: array[int]) -> bytes:
        return hashes.tobytes()


def _list_files(_: bytes, keys: bytes, job: JobSettings) -> Iterator[CatalogFile]:
    if keys:
        yield from partitions.list_files(job.catalog_uri, _TABLE)


class _ScanFn(beam.DoFn):
    def __init__(self, job: JobSettings, columns: Sequence[str]) -> None:
        self._job = job  # by which a worker knows how to reach the catalog's store
        self._columns = columns

    def start_bundle(self) -> None:
        self._keys: HashedKeys | None = None

    def process(self, file: CatalogFile, keys: bytes) -> Iterator[Any]:
        if self._keys is None:  # once for all objects
            self._keys = HashedKeys(keys)
        yield from self._keys.scan(_TABLE, file, _KEY, self._columns)
