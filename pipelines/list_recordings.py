"""`callpress recordings`: which recordings a catalog has, and what opens them. Writes nothing.

callpress recordings default:weekly --catalog ./pressed/catalog
callpress recordings --catalog gs://bucket/pressed/catalog --since 1d --signed-urls 1h --json
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.options import EXIT_FAILED
from pipelines.recording_commands import RecordingsArguments, Shape
from pipelines.verify import no_catalog
from transforms.catalog import partitions
from transforms.elements import Row
from transforms.media.errors import ConfigError, StorageError
from transforms.media.text import printable, printable_json
from transforms.media.wall_time import from_time, spell_time
from transforms.retrieval import find
from transforms.retrieval.entry import CSV_COLUMNS, Urls, csv_cells, vendor_entry
from transforms.retrieval.wanted import Wanted
from transforms.storage import objects, uris

_MOST_IN_TABLE = 1_000
"""Rows of which people are shown a table: it is laid out as a whole."""
_MOST_CHARACTERS = 48
"""Of an id in the table."""
Listed = Iterable[tuple[Row, str]]
"""Recordings, with what opens each."""


class Problems:
    """Tells what cannot be read, each thing once."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def tell(self, line: str) -> None:
        """Prints a line on standard error."""
        if line not in self.told:
            self.told.add(line)
            print(f"callpress: {printable(line)}", file=sys.stderr)


def list_recordings(arguments: RecordingsArguments) -> int:
    """Lists recordings; returns the exit status: 1 when the call that was named has none, or when
    not all of the catalog can be read.

    Raises:
      NoCatalogError: there is no catalog.
      ConfigError: links cannot be signed.
      CallpressError: the catalog's place cannot be listed.
    """
    began = time.monotonic()
    wanted, problems = arguments.wanted, Problems()
    catalog, found = look(arguments.catalog, wanted, problems)
    urls = Urls(base=arguments.url_base, signed_seconds=arguments.signed_seconds)
    listed = _opened(found, urls, problems)
    first = next(listed, None)  # what cannot be signed is told before anything is printed
    if first is not None:
        listed = itertools.chain([first], listed)
    _PRINTERS[arguments.shape](listed, began)
    if first is None and not problems.told:
        tell_none(catalog, wanted, problems)
    return EXIT_FAILED if problems.told else 0


def look(catalog_uri: str, wanted: Wanted, problems: Problems) -> tuple[str, Iterator[Row]]:
    """Returns the absolute URI of a catalog, and its recordings that are wanted.

    Raises:
      NoCatalogError: there is no catalog.
      CallpressError: its place cannot be listed.
    """
    catalog = uris.absolute(catalog_uri.rstrip("/"))
    objects.find_credentials((catalog,))
    files = partitions.list_files(catalog, "recordings")
    if not files:
        raise no_catalog(catalog)
    return catalog, find.find(catalog, files, wanted, problems.tell)


def tell_none(catalog: str, wanted: Wanted, problems: Problems) -> None:
    """Tells why nothing is found; it is a problem only where a call was named that has nothing."""
    if not wanted.names_call:
        _say(f"no recording{' of that' if wanted != Wanted() else ''} in {catalog}")
        return
    sessions = find.sessions_of(catalog, wanted.call, problems.tell)
    if not sessions:
        problems.tell(f"{wanted.call}: the catalog {catalog} has no such call")
    elif wanted.narrows:
        _say(
            f"{wanted.call}: is there, and has no recording that is also of what else is asked for"
        )
    for row in () if wanted.narrows else sessions:
        problems.tell(
            f"{wanted.call}: no recording of its session {row['call_session_id']} of "
            f"{row['call_date']}, which is {row['status']}; the table failures says why"
        )


def _say(line: str) -> None:
    print(f"callpress: {printable(line)}", file=sys.stderr)


def _opened(found: Iterator[Row], urls: Urls, problems: Problems) -> Iterator[tuple[Row, str]]:
    """Yields recordings with what opens them; tells of those that nothing can. Raises: ConfigError:
    nothing can open the first one.
    """
    has_begun = False
    for row in found:
        try:
            url = urls.open(row["uri"])
        except ConfigError as error:
            if not has_begun:
                raise
            problems.tell(str(error))
            continue
        except StorageError as error:  # as it would be for all others
            problems.tell(error.message)
            return
        has_begun = True
        yield row, url


# --- in each shape --------------------------------------------------------------------------------


def _print_json(listed: Listed, began: float) -> None:
    """Prints the vendor's answer to a list, entry by entry: there may be a million."""
    print('{\n  "recordings": [', end="")
    comma = ""
    for row, url in listed:
        text = json.dumps(vendor_entry(row, url), indent=2, ensure_ascii=False)
        indented = printable_json(text).replace("\n", "\n    ")
        print(f"{comma}\n    {indented}", end="")
        comma = ","
    took = f"{(time.monotonic() - began) * 1_000:.2f}ms"
    print("\n  ]" if comma else "]", end=f',\n  "duration": "{took}"\n}}\n')


def _print_csv(listed: Listed, _began: float) -> None:
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(CSV_COLUMNS)
    for row, url in listed:
        out.writerow(csv_cells(row, url))


def _print_table(listed: Listed, _began: float) -> None:
    rows = list(itertools.islice(listed, _MOST_IN_TABLE + 1))
    if not rows:
        return
    table = Table(box=None, header_style="", pad_edge=False)
    for name in ("call", "begins (UTC)", "length", "participant", "type", "status", "size", "url"):
        table.add_column(name, justify="right" if name in ("length", "size") else "left")
    for row, url in rows[:_MOST_IN_TABLE]:
        table.add_row(*(Text(cell) for cell in (*_cells(row), printable(url))))
    console = Console(highlight=False)
    # No cell is cut or folded: the last of them is to be copied.
    console.width = console.measure(table, options=console.options.update(width=1 << 20)).maximum
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line.rstrip())
    if len(rows) > _MOST_IN_TABLE:
        _say(
            f"these are the newest {_MOST_IN_TABLE}; --until tells of older ones, --csv and --json "
            "of all"
        )


_PRINTERS: dict[Shape, Callable[[Listed, float], None]] = {
    Shape.TABLE: _print_table,
    Shape.CSV: _print_csv,
    Shape.JSON: _print_json,
}


def _cells(row: Row) -> Iterator[str]:
    is_mix = row["recording_type"] == "composite"
    yield _short(row["call_cid"])
    yield (spell_time(from_time(row["start_time"])) or "")[:19].replace("T", " ")
    yield _length(row["duration_ms"])
    yield "" if is_mix else _short(row["participant_id"] or "")
    yield _short(row["recording_type"]) + _which(row)
    yield _status(row)
    yield size(row["size_bytes"])


def _which(row: Row) -> str:
    """Returns what sets a track's file apart from the others of the same participant."""
    what = ["screen share"] if (row["output_type"] or "").startswith("screenshare") else []
    what += [f"part {row['part']}"] if row["part"] else []
    return f" ({', '.join(what)})" if what else ""


def _status(row: Row) -> str:
    status, missing_ms = row["status"], row["missing_ms"]
    if status is None:
        return "not known"
    return _short(status) + (f" ({missing_ms / 1_000:.1f} s missing)" if missing_ms else "")


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"


def _length(duration_ms: int) -> str:
    seconds = round(duration_ms / 1_000)
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def size(size_bytes: int) -> str:
    """Returns a number of bytes as people read it."""
    return f"{size_bytes / 1e6:.1f} MB" if size_bytes >= 1_000_000 else f"{size_bytes / 1e3:.1f} kB"
