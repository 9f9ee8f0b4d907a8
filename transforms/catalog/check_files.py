"""Whether the files that a catalog names are there, unchanged, and no others. Writes nothing."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from transforms.catalog import partitions
from transforms.catalog.output_names import call_folder, first_edition
from transforms.catalog.partitions import CatalogFile
from transforms.catalog.problems import PRESS_CALL, REMOVE, Problem, call_of
from transforms.catalog.sums import text_hashes
from transforms.elements import Row
from transforms.media.errors import RecordingError
from transforms.media.values import CallKey
from transforms.storage import objects, uris

_BLOCK_BYTES = 1 << 20
_LEVELS_BELOW_OUTPUT = 5
"""`recordings/<call_type>/<call_id>/<call_session_id>/<file>`."""
_COLUMNS = ("call_type", "call_id", "call_session_id", "uri", "size_bytes", "sha256")


class CheckedFiles:
    """The recordings of a catalog being looked at. Memory is one object's rows, some 8 bytes a row
    and a few hundred a file, and does not grow with their sizes.
    """

    def __init__(
        self,
        catalog_uri: str,
        output_uri: str | None,
        recordings: Sequence[CatalogFile],
        calls: Sequence[CatalogFile],
    ) -> None:
        """Lists the files.

        Args:
          catalog_uri, output_uri: absolute.
          recordings, calls: the objects of these tables.

        Raises:
          StorageError: they cannot be listed.
        """
        self._recordings = recordings
        self._calls = calls
        hashes = [np.empty(0, dtype=np.int64)]
        outputs = {output_uri} if output_uri else set()
        for file in recordings:
            names = [str(row["uri"]) for row in _rows(file, ("uri",))]
            hashes.append(text_hashes(names))
            outputs.update(uri.rsplit("/", _LEVELS_BELOW_OUTPUT)[0] for uri in names)
        if not outputs and catalog_uri.endswith("/catalog"):
            outputs.add(catalog_uri.removesuffix("/catalog"))
        self._named = np.sort(np.concatenate(hashes))
        self._sizes: dict[str, int] = {}
        for output in sorted(outputs):
            for listed in objects.list_below(uris.join(output, "recordings")):
                self._sizes[listed.path] = listed.size_bytes
        self.count, self.size_bytes = len(self._sizes), sum(self._sizes.values())
        self.kept = 0
        """How many files are no row's any more since another is in the place of them, which their
        store did not let be replaced; known once all problems are.
        """

    def problems(self, *, fast: bool) -> Iterator[Problem]:
        """Yields what is wrong, file by file. Args: fast: whether to leave the hashes out."""
        twice = self._named[1:][self._named[1:] == self._named[:-1]]
        for file in self._recordings:
            whole = []
            for row in _rows(file, _COLUMNS):
                if len(twice) and np.isin(text_hashes([str(row["uri"])]), twice)[0]:
                    yield _problem(row, file, "more than one row of recordings names it")
                if row["uri"] not in self._sizes:
                    yield _problem(row, file, "it is not there, a row of recordings names it")
                elif self._sizes[row["uri"]] != row["size_bytes"]:
                    what = f"it has {self._sizes[row['uri']]} bytes, its row says"
                    yield _problem(row, file, f"{what} {row['size_bytes']}")
                else:
                    whole.append(row)
            if not fast:
                yield from _check_hashes(whole, file)
        yield from self._without_rows()

    def _without_rows(self) -> Iterator[Problem]:
        """Yields files that no row names; with the call where they lie in the folder of one."""
        are_named = np.isin(text_hashes(self._sizes), self._named)
        named = dict(zip(self._sizes, are_named, strict=True))
        later = {
            first
            for uri, is_named in named.items()
            if is_named and (first := first_edition(uri)) != uri
        }
        """Of files whose row names a later edition, the names they would have had."""
        strays = []
        for uri in (uri for uri, is_named in named.items() if not is_named):
            first = first_edition(uri)
            if first in later or (first != uri and named.get(first)):
                self.kept += 1
            else:
                strays.append(uri)
        homes = self._homes({_folder(uri) for uri in strays})
        for uri in sorted(strays):
            call, call_date = homes.get(_folder(uri), (None, ""))
            yield Problem(
                uri=uri,
                what="it has no row in recordings",
                heal=REMOVE if call is None else f"{REMOVE}, or {PRESS_CALL}",
                call=call,
                call_date=call_date,
            )

    def _homes(self, folders: set[str]) -> dict[str, tuple[CallKey | None, str]]:
        """Returns which of some folders are of calls, and their dates."""
        found: dict[str, tuple[CallKey | None, str]] = {}
        for file in self._calls if folders else ():
            for row in _rows(file, ("call_type", "call_id", "call_session_id")):
                if (call := call_of(row)) is not None and (home := call_folder(call)) in folders:
                    found[home] = (call, file.call_date)
        return found


def _folder(uri: str) -> str:
    """Returns the folder of a recording below `recordings/`, as `call_folder` gives it."""
    return "/".join(uri.split("/")[-4:-1])


def _rows(file: CatalogFile, columns: Sequence[str]) -> list[Row]:
    """Returns an object's rows; none where it cannot be read, which is told with its table."""
    try:
        rows: list[Row] = partitions.read_table(file, _table_of(file), columns).to_pylist()
    except RecordingError:
        return []
    return rows


def _table_of(file: CatalogFile) -> str:
    """Returns the table of an object."""
    return file.uri.rsplit("/", 3)[1]


def _problem(row: Row, file: CatalogFile, what: str) -> Problem:
    return Problem(
        uri=str(row["uri"]),
        what=what,
        heal=PRESS_CALL,
        call=call_of(row),
        call_date=file.call_date,
    )


def _check_hashes(rows: Iterable[Row], file: CatalogFile) -> Iterator[Problem]:
    """Yields files whose content is not that of their rows, in the order of the rows; a few are
    read at a time.
    """
    threads = min(8, 2 * (os.cpu_count() or 1))
    pending: deque[Future[Problem | None]] = deque()
    stopped = threading.Event()
    with ThreadPoolExecutor(threads, thread_name_prefix="verify") as pool:
        try:
            for row in rows:
                pending.append(pool.submit(_check_hash, row, file, stopped))
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


def _check_hash(row: Row, file: CatalogFile, stopped: threading.Event) -> Problem | None:
    digest = hashlib.sha256()
    uri = str(row["uri"])
    try:
        with objects.open_input(uri) as recording:
            while not stopped.is_set() and (block := recording.read(_BLOCK_BYTES)):
                digest.update(block)
    except RecordingError as error:
        reason = error.message.removeprefix(f"{uri}: ")
        return _problem(row, file, f"it cannot be read: {reason}")
    if digest.hexdigest() == row["sha256"]:
        return None
    what = f"its SHA-256 is {digest.hexdigest()}, its row says {row['sha256']}"
    return _problem(row, file, what)
