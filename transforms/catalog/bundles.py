"""Rows on their way to the catalog, those of some hundred calls or archives together, and notes
about them: one object in staging, of which only references cross a shuffle.

    <staging>/bundles/<hash of all that is in it>.jsonl

A line for each owner of each table and date, `[key, [row, ...]]`, with times as Unix microseconds:
also without rows, as what the catalog has of the owner goes. Lines of one table and date lie
together, in the order of the hashes of their owners: one read gives what a table needs, or what one
shard of it needs. Behind them notes, a line each, for whoever takes up what a dead run had done;
then what lies where.

A bundle that is written again under other circumstances is another object, and nobody's whose
references did not cross a shuffle. Parquet would cost many times as much: a call has a handful of
rows, and each column of each table its own pages.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from transforms.catalog.fragments import dump_rows, load_rows
from transforms.catalog.schema import shard_hash
from transforms.elements import ReplacedKey, Row, SectionRef
from transforms.media.errors import StorageError
from transforms.storage import objects, uris

FOLDER = "bundles"
_BUCKET_BITS = 5
"""Leading bits of an owner's hash by which a section is divided: a shard's share of it is one read
of no more than it needs, up to 32 shards.
"""
_BUCKETS = 1 << _BUCKET_BITS
Span = tuple[str, int, int]
"""A part of an object: its URI, the first byte, and that after the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnedRows:
    """What one owner has of one table under one date."""

    table: str
    call_date: str
    key: ReplacedKey
    row_count: int
    line: bytes
    """As it stands in a bundle."""
    only_removes: bool = False
    """Whether it takes rows away under a date where none take their place."""


def owned(
    call_date: str, rows: Mapping[str, Sequence[Row]], key: ReplacedKey
) -> tuple[OwnedRows, ...]:
    """Returns an owner's rows by table, as they go into a bundle; also of tables where it has none
    any more.

    Raises:
      ValueError: a row has a column its table does not have, or a value of another type.
    """
    return tuple(
        OwnedRows(
            table=table,
            call_date=call_date,
            key=key,
            row_count=len(found),
            line=_line(key, dump_rows(table, found)),
        )
        for table, found in rows.items()
    )


def removed(call_date: str, tables: Iterable[str], key: ReplacedKey) -> tuple[OwnedRows, ...]:
    """Returns what takes an owner's rows out of some tables under a date."""
    return tuple(
        OwnedRows(
            table=table,
            call_date=call_date,
            key=key,
            row_count=0,
            line=_line(key, "[]"),
            only_removes=True,
        )
        for table in tables
    )


def _line(key: ReplacedKey, rows: str) -> bytes:
    return f"[{json.dumps(key, ensure_ascii=False)},{rows}]\n".encode()


class Bundle:
    """Rows and notes that are being gathered."""

    def __init__(self) -> None:
        self._sections: dict[tuple[bool, str, str], list[OwnedRows]] = defaultdict(list)
        self._notes: dict[str, list[bytes]] = defaultdict(list)
        self.count = 0
        """Pieces that were put in."""
        self.size_bytes = 0
        """Of their rows and notes."""

    def add(self, rows: Iterable[OwnedRows] = (), notes: Mapping[str, bytes] | None = None) -> None:
        """Puts a piece in. Args: notes: JSON without line ends, by what it is a note of."""
        for each in rows:
            self._sections[each.only_removes, each.table, each.call_date].append(each)
            self.size_bytes += len(each.line)
        for kind, note in (notes or {}).items():
            self._notes[kind].append(note)
            self.size_bytes += len(note)
        self.count += 1

    def write(self, staging_uri: str) -> list[SectionRef]:
        """Writes all of it into a run's staging; returns the references to its rows. Raises:
        StorageError.
        """
        lines: list[bytes] = []
        position = 0
        sections = []
        for (only_removes, table, call_date), found in sorted(self._sections.items()):
            buckets: list[list[tuple[int, ReplacedKey, bytes]]] = [[] for _ in range(_BUCKETS)]
            for each in found:
                hashed = shard_hash(each.key)
                buckets[hashed >> (32 - _BUCKET_BITS)].append((hashed, each.key, each.line))
            starts = [position]
            for bucket in buckets:
                ordered = [line for _, _, line in sorted(bucket)]
                lines += ordered
                position += sum(map(len, ordered))
                starts.append(position)
            sections.append(
                SectionRef(
                    table=table,
                    call_date=call_date,
                    uri="",
                    starts=tuple(starts),
                    row_count=sum(each.row_count for each in found),
                    only_removes=only_removes,
                )
            )
        notes = {}
        for kind, written in sorted(self._notes.items()):
            own = [note + b"\n" for note in sorted(written)]
            lines += own
            notes[kind] = position, position + sum(map(len, own))
            position = notes[kind][1]
        index = {
            "sections": [
                (each.table, each.call_date, each.only_removes, each.starts[0], each.starts[-1])
                for each in sections
            ],
            "notes": notes,
        }
        data = b"".join((*lines, json.dumps(index).encode()))
        uri = _name(staging_uri, data)
        objects.write_staged(uri, data)
        return [replace(each, uri=uri) for each in sections]


def _name(staging_uri: str, data: bytes) -> str:
    return uris.join(staging_uri, FOLDER, f"{hashlib.sha256(data).hexdigest()[:24]}.jsonl")


# --- reading --------------------------------------------------------------------------------------


def span_of(section: SectionRef, bits: int = 0, shard: int = 0) -> Span:
    """Returns the part of a section that has all of a shard, and perhaps some of its neighbours.

    Args:
      section: of a bundle.
      bits, shard: of which the owners' hashes have these leading bits.
    """
    if bits <= _BUCKET_BITS:
        first, count = shard << (_BUCKET_BITS - bits), 1 << (_BUCKET_BITS - bits)
    else:
        first, count = shard >> (bits - _BUCKET_BITS), 1
    return section.uri, section.starts[first], section.starts[first + count]


def read_rows(span: Span, table: str) -> Iterator[tuple[ReplacedKey, list[Row]]]:
    """Yields owners and their rows, with all columns of the table.

    Raises:
      StorageError: it cannot be read, or is not what was written.
    """
    for line in _lines(span):
        with _parsing(span[0], table):
            key, rows = json.loads(line)
            found = load_rows(table, rows)
        yield tuple(key), found


def read_keys(span: Span, table: str) -> Iterator[ReplacedKey]:
    """Yields owners alone. Raises: as `read_rows`."""
    decoder = json.JSONDecoder()
    for line in _lines(span):
        with _parsing(span[0], table):
            key, _ = decoder.raw_decode(line.decode("utf-8", "surrogatepass"), 1)
        yield tuple(key)


def _lines(span: Span) -> list[bytes]:
    uri, start, stop = span
    if start == stop:
        return []
    return objects.read_range(uri, start, stop - start).removesuffix(b"\n").split(b"\n")


@contextlib.contextmanager
def _parsing(uri: str, table: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise DamagedBundleError(
            f"{uri}: rows of {table} are cut short or damaged ({error})"
        ) from None


class DamagedBundleError(StorageError):
    """A bundle is not what was written: no other look at it will find more."""


class WrittenBundle:
    """A bundle that a dead run has left, all of it."""

    def __init__(self, uri: str) -> None:
        """Reads it. Raises: DamagedBundleError; StorageError: it cannot be read now."""
        self._uri = uri
        self._data = objects.read_bytes(uri)
        if uri != _name(uri.rsplit("/", 2)[0], self._data):
            raise DamagedBundleError(
                f"{uri}: not as it was written; a power cut may have left a part"
            )
        with _parsing(uri, "a bundle"):
            index = json.loads(self._data[self._data.rindex(b"\n") + 1 :])
            self._sections = [
                (str(t), str(d), bool(r), int(a), int(b)) for t, d, r, a, b in index["sections"]
            ]
            self._notes = {str(kind): (int(a), int(b)) for kind, (a, b) in index["notes"].items()}

    def notes(self, kind: str) -> list[bytes]:
        """Returns the notes of a kind, as they were put in."""
        return self._between(*self._notes.get(kind, (0, 0)))

    def rows(self, table: str) -> dict[ReplacedKey, list[Row]]:
        """Returns the rows of a table by owner. Raises: StorageError: they are damaged."""
        found: dict[ReplacedKey, list[Row]] = {}
        for name, _, only_removes, start, stop in self._sections:
            if name == table and not only_removes:
                for line in self._between(start, stop):
                    with _parsing(self._uri, table):
                        key, rows = json.loads(line)
                        found[tuple(key)] = load_rows(table, rows)
        return found

    def owned_by(self, keys: Collection[ReplacedKey]) -> dict[ReplacedKey, list[OwnedRows]]:
        """Returns what some owners have, as it goes into another bundle. Raises: StorageError: it
        is damaged.
        """
        owned_rows: dict[ReplacedKey, list[OwnedRows]] = {key: [] for key in keys}
        for table, call_date, only_removes, start, stop in self._sections:
            for line in self._between(start, stop):
                with _parsing(self._uri, table):
                    names, rows = json.loads(line)
                    key, count = tuple(names), len(load_rows(table, rows))
                if key in owned_rows:
                    owned_rows[key].append(
                        OwnedRows(
                            table=table,
                            call_date=call_date,
                            key=key,
                            row_count=count,
                            line=line + b"\n",
                            only_removes=only_removes,
                        )
                    )
        return owned_rows

    def _between(self, start: int, stop: int) -> list[bytes]:
        return self._data[start:stop].removesuffix(b"\n").split(b"\n") if start < stop else []
