"""One Parquet object, of which no more is read than what is asked for: its footer, then of the row
groups that can hold a wanted key the columns that are wanted, neighbours with one request.

Written so that this helps: in the order of the keys, in row groups of some thousand rows, each with
the least and the greatest value of every column, and a checksum for every page, as the store's
checksum of the whole object says nothing of a part of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from transforms.media.errors import StorageError
from transforms.media.positioned_file import PositionedFile
from transforms.storage import objects

_GROUP_ROWS = 12_500
"""Of 100,000 rows of `tracks` in 25 MB: 3 MB to find a call in, of which 0.1 MB are keys, and a
footer of 57 kB. Half as many rows halve the first and double the second.
"""
_WHOLE_BYTES = 2 << 20
"""An object up to this size is read as a whole: a second request takes longer than the bytes."""
_HOLE_BYTES = 1 << 20
"""So much that nobody wants is read rather than asking twice: in a bucket a request takes as long
as a megabyte or more.
"""
_RANGE_BYTES = 64 << 20
"""To be read with one request at most."""


class WantedKeys:
    """Keys to be found in the rows of one object or of many."""

    def __init__(self, columns: Sequence[str], keys: Collection[tuple[str, ...]]) -> None:
        """Args: columns: those that the keys are of."""
        self.columns = tuple(columns)
        self.keys = frozenset(keys)
        # In order: so Arrow compares them with what a row group's statistics say.
        self._values = [
            pa.array(sorted({key[number] for key in self.keys}), pa.string())
            for number in range(len(self.columns))
        ]

    def filter(self, schema: pa.Schema) -> ds.Expression | None:
        """Returns what rows with a wanted key fulfil, others perhaps too, as far as it can be told
        by the columns that an object has; None for nothing.
        """
        found: ds.Expression | None = None
        for name, values in zip(self.columns, self._values, strict=True):
            if name in schema.names and schema.field(name).type == pa.string():
                among = pc.field(name).isin(values)
                found = among if found is None else found & among
        return found

    def select(self, rows: pa.Table) -> pa.Table:
        """Returns those of some rows that have a wanted key."""
        keys = zip(*(rows.column(name).to_pylist() for name in self.columns), strict=True)
        return rows.filter(pa.array([key in self.keys for key in keys], type=pa.bool_()))


class ParquetObject:
    """An object of a table, open for reading until the end of a `with` block."""

    def __init__(self, uri: str, size_bytes: int, *, whole: bool = False) -> None:
        """Opens it, and reads its footer.

        Args:
          uri: of the object.
          size_bytes: its length as listed.
          whole: whether all of it will be read: then it is read at once, whatever its length.

        Raises:
          StorageError: it is not there, or is no Parquet object.
        """
        self._uri = uri
        self._file: PositionedFile | None = None
        source: pa.BufferReader | PositionedFile
        if whole or size_bytes <= _WHOLE_BYTES:
            source = pa.BufferReader(objects.read_bytes(uri))
        else:
            source = self._file = objects.open_ranges(uri)
        with self.reading():
            self._fragment = _FORMAT.make_fragment(source)
            self._schema: pa.Schema = self._fragment.physical_schema
            self.names: list[str] = self._schema.names
            if len(set(self.names)) < len(self.names):
                raise pa.ArrowInvalid("two columns have one name")
            self.row_count: int = self._fragment.metadata.num_rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, columns: Sequence[str], wanted: WantedKeys | None = None) -> pa.Table:
        """Returns some columns of the rows, with `wanted` of those that have a wanted key and
        perhaps of others.

        Raises:
          StorageError: they cannot be read.
        """
        with self.reading():
            return self._fragment.to_table(
                schema=self._schema,
                columns=list(columns),
                filter=None if wanted is None else wanted.filter(self._schema),
                use_threads=False,
            )

    def may_hold(self, wanted: WantedKeys) -> bool:
        """Whether there may be a row with a wanted key, by the columns of the keys alone: of an
        object of which it costs no request, True.

        Raises:
          StorageError: they cannot be read.
        """
        columns = [name for name in wanted.columns if name in self.names]
        return self._file is None or bool(self.read(columns, wanted).num_rows)

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Turns what Arrow says of a damaged object into a StorageError."""
        return _reading(self._uri)


@contextlib.contextmanager
def _reading(uri: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        why = str(error).split("\n", 1)[0]
        raise StorageError(
            f"{uri}: not a Parquet file ({why}); restore it, or remove it to lose its rows"
        ) from None


def may_hold_text(uri: str, column: str, text: str) -> bool:
    """Whether a row of an object may have a text in a column, as far as its footer tells, of which
    alone it reads. Raises: StorageError: it is not there, or is no Parquet object.
    """
    with objects.open_ranges(uri) as file, _reading(uri):
        footer = pq.read_metadata(file)
        if column not in footer.schema.names:
            return False
        number = footer.schema.names.index(column)
        groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
        return any(_may_hold(group.column(number).statistics, text) for group in groups)


def _may_hold(statistics: pq.Statistics | None, text: str) -> bool:
    if statistics is None or not isinstance(statistics.min, str):
        return True
    return bool(statistics.min <= text <= statistics.max)


_FORMAT = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(
        pre_buffer=True,
        cache_options=pa.CacheOptions(hole_size_limit=_HOLE_BYTES, range_size_limit=_RANGE_BYTES),
        page_checksum_verification=True,
    )
)


def write(uri: str, rows: pa.Table) -> None:
    """Writes an object of a table, rows and columns as they are. Raises: StorageError."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        rows, sink, compression="zstd", row_group_size=_GROUP_ROWS, write_page_checksum=True
    )
    objects.write_bytes(uri, sink.getvalue().to_pybytes())
