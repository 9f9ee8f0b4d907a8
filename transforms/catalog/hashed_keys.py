"""Very many keys, as four bytes each: a million URIs would be some hundred MB, in every worker that
looks for their rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from transforms.catalog import partitions
from transforms.catalog.partitions import CatalogFile
from transforms.elements import Row

_ROWS_AT_A_TIME = 10_000


def hash_of(key: str) -> int:
    """Returns what stands for a key: 32 bits, the same in every process."""
    return zlib.crc32(key.encode("utf-8", "surrogatepass"))


class HashedKeys:
    """The keys, to be found in the rows of one object or of many."""

    def __init__(self, hashes: bytes) -> None:
        """Args: hashes: of the keys, 32 bits each as this machine has them, in any order."""
        self._hashes = np.unique(np.frombuffer(hashes, dtype=np.uint32))

    def __bool__(self) -> bool:
        return bool(self._hashes.size)

    def scan(
        self, table: str, file: CatalogFile, key_column: str, columns: Sequence[str]
    ) -> Iterator[Row]:
        """Yields an object's rows whose key is among them, and of a million others 0.02 % per
        million keys: compare the keys. As `partitions.scan`.

        Raises:
          StorageError: it cannot be read.
        """
        found = partitions.read_table(file, table, columns)
        hashed = np.array([hash_of(key) for key in found.column(key_column).to_pylist()], np.uint32)
        wanted = found.filter(pa.array(np.isin(hashed, self._hashes)))
        for batch in wanted.to_batches(max_chunksize=_ROWS_AT_A_TIME):
            for row in batch.to_pylist():
                yield {**row, "call_date": file.call_date}
