"""FindPriorRows: keys -> what the catalog has of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam

from transforms.catalog import partitions
from transforms.catalog.parquet_objects import WantedKeys
from transforms.context import JobSettings
from transforms.engine.fusion_break import break_fusion


class FindPriorRows(beam.PTransform):
    """Input: keys, tuples of text. Output: by table, its rows of the catalog with these keys, and
    their `call_date`.

    Reads of each object the rows that can have a wanted key, in parallel over all objects, of the
    catalog as it is once all keys are there; the keys are a side input. Writes nothing; memory
    holds the keys and one object's columns.
    """

    def __init__(
        self, job: JobSettings, columns: Mapping[str, Sequence[str]], key_columns: Sequence[str]
    ) -> None:
        """Args: columns: those wanted of each table; key_columns: those that a key names, the same
        in all.
        """
        super().__init__()
        self._job = job
        self._columns = {table: tuple(names) for table, names in columns.items()}
        self._key_columns = tuple(key_columns)

    def expand(self, keys: beam.PCollection[tuple[str, ...]]) -> beam.pvalue.DoOutputsTuple:
        columns = self._columns
        # Behind the keys, and so behind all that is published before they are known: an engine does
        # at once what waits for nothing.
        files = (
            keys.pipeline
            | "Start" >> beam.Impulse()
            | "ListFiles"
            >> beam.ParDo(_ListFilesFn(self._job, tuple(columns)), beam.pvalue.AsIter(keys))
        )
        scan = beam.ParDo(_ScanFn(self._job, columns, self._key_columns), beam.pvalue.AsIter(keys))
        return break_fusion(files, "SpreadFiles", self._job) | "ScanFile" >> scan.with_outputs(
            *columns
        )


class _ListFilesFn(beam.DoFn):
    def __init__(self, job: JobSettings, tables: Sequence[str]) -> None:
        self._job = job
        self._tables = tables

    def process(
        self, _: bytes, keys: Iterable[tuple[str, ...]]
    ) -> Iterator[tuple[str, partitions.CatalogFile]]:
        if next(iter(keys), None) is None:
            return
        for table in self._tables:
            for file in partitions.list_files(self._job.catalog_uri, table):
                yield table, file


class _ScanFn(beam.DoFn):
    def __init__(
        self, job: JobSettings, columns: Mapping[str, Sequence[str]], key_columns: Sequence[str]
    ) -> None:
        self._job = job  # by which a worker knows how to reach the catalog's store
        self._columns = columns
        self._key_columns = key_columns

    def start_bundle(self) -> None:
        self._wanted: WantedKeys | None = None

    def process(
        self, found: tuple[str, partitions.CatalogFile], keys: Iterable[tuple[str, ...]]
    ) -> Iterator[Any]:
        if self._wanted is None:  # once for all objects: there may be many keys
            self._wanted = WantedKeys(self._key_columns, set(keys))
        table, file = found
        for row in partitions.scan(table, file, self._columns[table], self._wanted):
            yield beam.pvalue.TaggedOutput(table, row)
