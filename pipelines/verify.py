"""`callpress verify`: whether a catalog and the recordings it names agree. Writes nothing.

callpress verify --catalog ./pressed/catalog
callpress verify --output gs://bucket/pressed --fast
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pipelines.options import VerifyArguments
from transforms.catalog import lock, partitions
from transforms.catalog.partitions import CatalogFile
from transforms.catalog.schema import KEYS, TABLES
from transforms.elements import Row
from transforms.media.errors import RecordingError
from transforms.media.text import printable, printable_json
from transforms.storage import objects, uris

_BLOCK_BYTES = 1 << 20
_LEVELS_BELOW_OUTPUT = 5
"""`recordings/<call_type>/<call_id>/<call_session_id>/<file>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is not as it should be."""

    uri: str
    what: str


def verify(arguments: VerifyArguments) -> int:
    """Lists what is wrong with a catalog, a line each; returns the exit status, 1 when anything is.

    Raises:
      CallpressError: the catalog's place cannot be listed.
    """
    catalog = uris.absolute(arguments.catalog.rstrip("/"))
    output = uris.absolute(arguments.output.rstrip("/")) if arguments.output else None
    objects.find_credentials(filter(None, (catalog, output)))
    checked = Checked(catalog, output, fast=arguments.fast)
    problems = 0
    found: list[dict[str, str]] = []
    for problem in checked.problems():
        problems += 1
        if arguments.as_json:
            found.append({"uri": problem.uri, "what": problem.what})
        else:
            print(f"{printable(problem.uri)}: {printable(problem.what)}", flush=True)
    if (at_work := checked.run_at_work()) is not None:
        print(
            f"callpress: warning: {at_work} is at work: what it is replacing may look wrong",
            file=sys.stderr,
        )
    if arguments.as_json:
        result = {
            "exit_status": 1 if problems else 0,
            "catalog": catalog,
            "counts": {"rows": checked.row_counts, "files": checked.file_count},
            "size_bytes": checked.size_bytes,
            "hashed": not arguments.fast,
            "problems": found,
        }
        print(printable_json(json.dumps(result, indent=2, ensure_ascii=False)))
    else:
        how = "size" if arguments.fast else "size and SHA-256"
        verdict = f"{problems} wrong" if problems else f"all there, {how} as in the catalog"
        recordings = checked.row_counts.get("recordings", 0)
        print(
            f"callpress: {recordings} rows of recordings, {checked.file_count} files, "
            f"{checked.size_bytes / 1e6:.1f} MB, "
            f"{len(checked.row_counts)} tables: {verdict}"
        )
    return 1 if problems else 0


class Checked:
    """A catalog being looked at. Memory grows by some 8 bytes a row and a few hundred a file, and
    not with their sizes.
    """

    def __init__(self, catalog_uri: str, output_uri: str | None, *, fast: bool) -> None:
        """Args: catalog_uri, output_uri: absolute; fast: whether to leave the hashes out."""
        self._catalog_uri = catalog_uri
        self._output_uri = output_uri
        self._fast = fast
        self.row_counts: dict[str, int] = {}
        self.file_count = 0
        self.size_bytes = 0

    def run_at_work(self) -> str | None:
        """Returns the name of a run that holds the catalog, None when there is none."""
        held = lock.look(self._catalog_uri)
        return (
            f"run {held.run_id} on {held.host}" if held is not None and not held.is_dead() else None
        )

    def problems(self) -> Iterator[Problem]:
        """Yields what is wrong, table by table, then file by file."""
        tables = {table: self._table_files(table) for table in TABLES}
        for table, (files, strays) in tables.items():
            yield from strays
            if not files and not strays:
                yield Problem(uri=uris.join(self._catalog_uri, table), what="the table has no file")
            yield from self._check_keys(table, files)
        yield from self._check_recordings(tables["recordings"][0])

    def _table_files(self, table: str) -> tuple[list[CatalogFile], list[Problem]]:
        """Returns a table's objects, and what lies among them but is none."""
        folder = uris.join(self._catalog_uri, table)
        there = {listed.path for listed in objects.list_below(folder)}
        files = partitions.list_files(self._catalog_uri, table)
        strays = sorted(there - {file.uri for file in files})
        return files, [
            Problem(uri=uri, what="it is no object of the table; a killed run may have left it")
            for uri in strays
        ]

    def _read(
        self, file: CatalogFile, table: str, columns: Sequence[str]
    ) -> tuple[list[Row], Problem | None]:
        try:
            return partitions.read_table(file, table, columns).to_pylist(), None
        except RecordingError as error:
            return [], Problem(uri=file.uri, what=error.message.removeprefix(f"{file.uri}: "))

    def _check_keys(self, table: str, files: Sequence[CatalogFile]) -> Iterator[Problem]:
        hashes = []
        columns = KEYS[table]
        for file in files:
            rows, problem = self._read(file, table, columns)
            if problem:
                yield problem
            hashes.append(
                np.fromiter(
                    (_key_hash(row, columns) for row in rows), dtype=np.uint64, count=len(rows)
                )
            )
        everything = np.sort(np.concatenate(hashes)) if hashes else np.empty(0, dtype=np.uint64)
        self.row_counts[table] = len(everything)
        twice = set(everything[1:][everything[1:] == everything[:-1]].tolist())
        for file in files if twice else ():
            for row in self._read(file, table, columns)[0]:
                if _key_hash(row, columns) in twice:
                    key = ", ".join(
                        f"{name} {row[name]!r}" for name in columns if row[name] is not None
                    )
                    yield Problem(uri=file.uri, what=f"{table} has more than one row of {key}")

    def _check_recordings(self, files: Sequence[CatalogFile]) -> Iterator[Problem]:
        rows: dict[str, tuple[int, str]] = {}
        for file in files:
            for row in self._read(file, "recordings", ("uri", "size_bytes", "sha256"))[0]:
                if row["uri"] in rows:
                    yield Problem(uri=str(row["uri"]), what="two rows of recordings name it")
                rows[row["uri"]] = (row["size_bytes"], row["sha256"])
        there: dict[str, int] = {}
        for output in self._outputs(rows):
            for listed in objects.list_below(uris.join(output, "recordings")):
                there[listed.path] = listed.size_bytes
        self.file_count, self.size_bytes = len(there), sum(there.values())
        whole = []
        for uri, (size_bytes, sha256) in rows.items():
            if uri not in there:
                yield Problem(uri=uri, what="it is not there, a row of recordings names it")
            elif there[uri] != size_bytes:
                yield Problem(uri=uri, what=f"it has {there[uri]} bytes, its row says {size_bytes}")
            else:
                whole.append((uri, sha256))
        if not self._fast:
            yield from _check_hashes(whole)
        for uri in sorted(there.keys() - rows.keys()):
            yield Problem(uri=uri, what="it has no row in recordings")

    def _outputs(self, uris: Iterable[str]) -> list[str]:
        """Returns the folders that hold `recordings/`: as told, as the rows say, or beside the
        catalog.
        """
        found = {uri.rsplit("/", _LEVELS_BELOW_OUTPUT)[0] for uri in uris}
        if self._output_uri:
            found.add(self._output_uri)
        if not found and self._catalog_uri.endswith("/catalog"):
            found.add(self._catalog_uri.removesuffix("/catalog"))
        return sorted(found)


def _key_hash(row: Row, columns: Sequence[str]) -> int:
    text = repr(tuple(row[name] for name in columns)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _check_hashes(entries: Iterable[tuple[str, str]]) -> Iterator[Problem]:
    """Yields files whose content is not that of their rows, in the order of the entries; a few are
    read at a time.
    """
    threads = min(8, 2 * (os.cpu_count() or 1))
    pending: deque[Future[Problem | None]] = deque()
    stopped = threading.Event()
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        try:
            for uri, sha256 in entries:
                pending.append(pool.submit(_check_hash, uri, sha256, stopped))
                if (
                    len(pending) >= 4 * threads
                    and (problem := pending.popleft().result()) is not None
                ):
                    yield problem
            while pending:
                if (problem := pending.popleft().result()) is not None:
                    yield problem
        finally:
            stopped.set()  # Ctrl-C: the block waits for those that are being read


def _check_hash(uri: str, sha256: str, stopped: threading.Event) -> Problem | None:
    digest = hashlib.sha256()
    try:
        with objects.open_input(uri) as file:
            while not stopped.is_set() and (block := file.read(_BLOCK_BYTES)):
                digest.update(block)
    except RecordingError as error:
        return Problem(uri=uri, what=f"it cannot be read: {error.message.removeprefix(f'{uri}: ')}")
    if digest.hexdigest() == sha256:
        return None
    return Problem(uri=uri, what=f"its SHA-256 is {digest.hexdigest()}, its row says {sha256}")
