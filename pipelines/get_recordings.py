"""`callpress get`: copies the recordings of a call into a folder, and what the tables say of it.

callpress get default:weekly --catalog ./pressed/catalog --output ./ticket-4711
callpress get default:weekly --participant alice --catalog gs://bucket/pressed/catalog --output .
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.list_recordings import Problems, look, size, tell_none
from pipelines.options import EXIT_FAILED
from pipelines.recording_commands import GetArguments
from pipelines.verify import run_at_work
from transforms.elements import Row
from transforms.media.text import printable, printable_json
from transforms.retrieval import find
from transforms.retrieval.copy_files import Became, Copy, copy_all, write
from transforms.retrieval.names import call_name, file_names
from transforms.retrieval.wanted import Wanted
from transforms.storage import objects


def get_recordings(arguments: GetArguments) -> int:
    """Copies a call's recordings, and tells each; returns the exit status, 1 when one could not be
    copied or there is none. The others are copied all the same.

    Raises:
      NoCatalogError: there is no catalog.
      CallpressError: the catalog's place cannot be listed, or the folder not be written.
    """
    wanted, problems = arguments.wanted, Problems()
    catalog, found = look(arguments.catalog, wanted, problems)
    rows = list(found)
    if not rows:
        tell_none(catalog, wanted, problems)
        return EXIT_FAILED
    others = [] if wanted.narrows else find.sessions_of(catalog, wanted.call, problems.tell)
    tables = find.tables_of(catalog, [*rows, *others], wanted.participants, problems.tell)
    objects.prepare_folder(arguments.output)
    folder = Path(arguments.output)
    named = list(zip(file_names(wanted.call, rows), rows, strict=True))
    copies: list[Copy] = []
    for copy in copy_all(folder, named):
        copies.append(copy)
        if copy.became is Became.FAILED:
            problems.tell(f"{copy.name}: {copy.why}")
        else:
            told = f"{copy.name}  {size(copy.row['size_bytes'])}"
            there = f"  {copy.became}" if copy.became is Became.THERE else ""
            print(printable(told + there), flush=True)
    name = f"{call_name(wanted.call)}.json"
    write(folder, name, _as_json(catalog, wanted, copies, tables))
    print(printable(name))
    failed = sum(copy.became is Became.FAILED for copy in copies)
    if failed and (at_work := run_at_work(catalog)) is not None:
        problems.tell(f"{at_work} is at work, which may be replacing them: try again when it ends")
    return EXIT_FAILED if problems.told else 0


def _as_json(
    catalog: str, wanted: Wanted, copies: Sequence[Copy], tables: dict[str, list[Row]]
) -> bytes:
    """Returns what is told of the call: its files, and its rows as in the tables."""
    told = {
        "catalog": catalog,
        "call_cid": wanted.call,
        "files": [
            {
                "file": copy.name,
                "is_here": copy.became is not Became.FAILED,
                **{name: copy.row[name] for name in ("uri", "sha256", "size_bytes")},
            }
            for copy in copies
        ],
        "tables": {
            table: [{name: _plain(value) for name, value in row.items()} for row in rows]
            for table, rows in tables.items()
        },
    }
    return (
        printable_json(json.dumps(told, indent=2, ensure_ascii=False)).encode("utf-8", "replace")
        + b"\n"
    )


def _plain(value: Any) -> Any:
    """Returns a value of a table as JSON has it."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds").replace("+00:00", "Z")
    return None if isinstance(value, float) and not math.isfinite(value) else value
