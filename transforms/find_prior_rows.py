"""FindPriorRows: keys -> what the catalog has of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam

from transforms.catalog import partitions
from transforms.context import JobSettings


class FindPriorRows(beam.PTransform):
    """Input: keys, tuples of text. Output: by table, its rows of the catalog with these keys, and
    their `call_date`.

    Scans each table's key columns once, in parallel over all objects; the keys are a side input.
    Writes nothing; memory holds one object's columns and the keys.
    """

    def __init__(
        self, job: JobSettings, columns: Mapping[str, Sequence[str]], key_columns: Sequence[str]
    ) -> None:
        """Args: columns: those wanted of each table; key_columns: those that a key names, the same
        in all.
        """
        super().__init__()
        self._catalog_uri = job.catalog_uri
        self._columns = {table: tuple(names) for table, names in columns.items()}
        self._key_columns = tuple(key_columns)

    def expand(self, keys: beam.PCollection[tuple[str, ...]]) -> beam.pvalue.DoOutputsTuple:
        catalog_uri, columns, key_columns = self._catalog_uri, self._columns, self._key_columns

        def list_files(_: bytes) -> Iterator[tuple[str, partitions.CatalogFile]]:
            for table in columns:
                for file in partitions.list_files(catalog_uri, table):
                    yield table, file

        def scan(
            found: tuple[str, partitions.CatalogFile], wanted: Iterable[tuple[str, ...]]
        ) -> Iterator[Any]:
            table, file = found
            if keys := set(wanted):
                for row in partitions.scan(
                    catalog_uri, table, file, columns[table], key_columns, keys
                ):
                    yield beam.pvalue.TaggedOutput(table, row)

        return (
            keys.pipeline
            | "Start" >> beam.Impulse()
            | "ListFiles" >> beam.FlatMap(list_files)
            | "SpreadFiles" >> beam.Reshuffle()
            | "ScanFile"
            >> beam.FlatMap(scan, wanted=beam.pvalue.AsIter(keys)).with_outputs(*columns)
        )
