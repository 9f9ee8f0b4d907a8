"""`callpress verify`: whether a catalog, and the recordings it names, agree. Writes nothing but,
where `--repair` asks for it, notes of calls that the next run is to press anew.

callpress verify --catalog ./pressed/catalog
callpress verify --output gs://bucket/pressed --fast
callpress verify --catalog ./pressed/catalog --repair
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from pipelines.catalog_commands import VerifyArguments
from transforms.catalog.check_files import CheckedFiles
from transforms.catalog.check_tables import CheckedTables
from transforms.catalog.problems import Problem
from transforms.locking import lock
from transforms.locking.lease import holding
from transforms.media.errors import CallpressError
from transforms.media.text import printable, printable_json
from transforms.recovery import repair
from transforms.recovery.repair import Noted
from transforms.storage import objects, uris


class NoCatalogError(CallpressError):
    """There is no catalog where one was said to be."""


@dataclass(slots=True)
class _Told:
    """What was found, as it is told."""

    problems: int = 0
    as_json: list[dict[str, str]] = field(default_factory=list)
    broken: repair.BrokenCalls = field(default_factory=repair.BrokenCalls)
    """The calls to be pressed anew."""


def verify(arguments: VerifyArguments) -> int:
    """Lists what is wrong with a catalog, a line each; returns the exit status, 1 when anything is.

    Raises:
      NoCatalogError: there is no catalog.
      LockHeldError: with `--repair`, a run is at work.
      CallpressError: the catalog's place cannot be listed.
    """
    catalog = uris.absolute(arguments.catalog.rstrip("/"))
    output = uris.absolute(arguments.output.rstrip("/")) if arguments.output else None
    objects.find_credentials(filter(None, (catalog, output)))
    tables = tables_of(catalog)
    with _locked(catalog) if arguments.repair else contextlib.nullcontext():
        if arguments.repair:
            tables = CheckedTables(catalog)  # as it is now that nobody writes
        told = _Told()
        for problem in tables.problems():
            _tell(problem, told, arguments)
        files = CheckedFiles(catalog, output, tables.files["recordings"], tables.files["calls"])
        for problem in files.problems(fast=arguments.fast):
            _tell(problem, told, arguments)
        noted = repair.note(catalog, told.broken) if arguments.repair else Noted()
    if not arguments.repair and (at_work := run_at_work(catalog)) is not None:
        print(
            f"callpress: warning: {at_work} is at work: what it is replacing may look wrong",
            file=sys.stderr,
        )
    status = 1 if told.problems else 0
    if arguments.as_json:
        result = {
            "exit_status": status,
            "catalog": catalog,
            "counts": {"rows": tables.row_counts, "files": files.count, "kept": files.kept},
            "size_bytes": files.size_bytes,
            "hashed": not arguments.fast,
            "problems": told.as_json,
            "repair": {"calls_noted": noted.calls, "calls_not_noted": list(noted.not_noted)},
        }
        print(printable_json(json.dumps(result, indent=2, ensure_ascii=False)))
        return status
    how = "size" if arguments.fast else "size and SHA-256"
    verdict = f"{told.problems} wrong" if told.problems else f"all there, {how} as in the catalog"
    if arguments.repair:
        _tell_noted(noted)
    if files.kept:
        print(
            f"callpress: {files.kept} earlier files stay beside those of the rows, as their store "
            "did not let them be replaced"
        )
    print(
        f"callpress: {tables.row_counts['recordings']} rows of recordings, {files.count} files, "
        f"{files.size_bytes / 1e6:.1f} MB, {len(tables.row_counts)} tables: {verdict}"
    )
    return status


def tables_of(catalog: str) -> CheckedTables:
    """Returns the tables of a catalog. Raises: NoCatalogError, StorageError."""
    tables = CheckedTables(catalog)
    if not tables.exists():
        raise no_catalog(catalog)
    return tables


def no_catalog(catalog: str) -> NoCatalogError:
    """Returns what is said where no table has any object."""
    return NoCatalogError(
        f"--catalog {catalog}: there is no catalog, expected the folder with recordings/, "
        "calls/, archives/ and the other tables that a run wrote"
    )


def _tell(problem: Problem, told: _Told, arguments: VerifyArguments) -> None:
    told.problems += 1
    if arguments.repair and problem.call is not None:
        told.broken.add(problem.call, problem.call_date)
    if arguments.as_json:
        told.as_json.append({"uri": problem.uri, "what": problem.what, "heal": problem.heal})
    else:
        print(
            f"{printable(problem.uri)}: {printable(problem.what)}; to heal: {problem.heal}",
            flush=True,
        )


def _tell_noted(noted: Noted) -> None:
    for why in noted.not_noted:
        print(f"callpress: not noted: {printable(why)}")
    then = "; the next run over their archives presses them anew" if noted.calls else ""
    print(f"callpress: noted {noted.calls} calls{then}")


def run_at_work(catalog_uri: str) -> str | None:
    """Returns the name of a run that holds the catalog, None when there is none."""
    held = lock.look(catalog_uri)
    return held.name if held is not None and not held.is_dead() else None


@contextlib.contextmanager
def _locked(catalog_uri: str) -> Iterator[None]:
    """Holds the catalog's lock as a run does. Raises: LockHeldError, StorageError."""
    started = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    with holding(catalog_uri, f"verify-{started}-{secrets.token_hex(3)}"):
        yield
