"""Rows on their way to the catalog: small Parquet objects in staging, of which only references cross a shuffle.

A fragment holds rows of several tables: one row, one column per table, each a list of that table's rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from transforms import storage
from transforms.media.catalog import SCHEMAS, ReplacedKey, Row, to_table
from transforms.media.errors import StorageError


@dataclass(frozen=True, slots=True, kw_only=True)
class FragmentRef:
    """Rows that replace what one `call_date` of the catalog has of some calls or archives."""

    uri: str
    """Empty when rows are only removed."""
    call_date: str
    row_counts: tuple[tuple[str, int], ...]
    """Per table; also the tables in which rows are only removed."""
    replaced: tuple[ReplacedKey, ...]
    """All rows these own in that date of those tables go."""


def write_fragment(
    uri: str, call_date: str, rows: Mapping[str, Sequence[Row]], replaced: tuple[ReplacedKey, ...]
) -> FragmentRef:
    """Writes rows by table and returns the reference to them. Raises: StorageError."""
    arrays, fields = [], []
    for name, table_rows in rows.items():
        kind = pa.list_(pa.struct(list(SCHEMAS[name])))
        fields.append(pa.field(name, kind))
        arrays.append(pa.array([to_table(name, table_rows).to_pylist()], type=kind))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, schema=pa.schema(fields)), sink)
    storage.write_bytes(uri, sink.getvalue().to_pybytes())
    counts = tuple((name, len(table_rows)) for name, table_rows in rows.items())
    return FragmentRef(uri=uri, call_date=call_date, row_counts=counts, replaced=replaced)


def read_fragment(uri: str, table: str) -> list[Row]:
    """Returns a fragment's rows of one table; none when it has none. Raises: StorageError."""
    try:
        file = pq.ParquetFile(pa.BufferReader(storage.read_bytes(uri)))
    except pa.ArrowInvalid as error:
        raise StorageError(f"{uri}: not a Parquet file ({error})") from None
    if table not in file.schema_arrow.names:
        return []
    return cast("list[Row]", file.read(columns=[table]).column(0)[0].as_py())
