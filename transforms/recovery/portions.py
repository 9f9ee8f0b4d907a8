"""Portions of a run: a large night is pressed in some, each published whole, so that a run killed
near its end has most of its tables. What one has found and later ones need lies in staging.

    <staging>/portions/archives-00002.jsonl    the archives of the second one, a line each
    <staging>/portions/found-00001.json        what came of the first one
    <staging>/portions/links-0123456789ab.jsonl    what opens archives that manifests name
    <staging>/portions/named-0123456789ab.jsonl    these archives (`named_recordings`)
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from transforms.bounds import PortionSize
from transforms.context import JobSettings, RunIdentity
from transforms.elements import ArchiveRef
from transforms.storage import globs, objects

FOLDER = "portions"
_LINKS = "links-"
Found = dict[str, Any]
"""What came of a run, or of a portion of it: counts, what is pressed anew, what is nowhere, the
first failures.
"""


def divide(archives: Sequence[ArchiveRef], size: PortionSize) -> list[Sequence[ArchiveRef]]:
    """Returns the archives of each portion, in order; at least one portion."""
    most_archives, most_bytes = size.archives, size.size_bytes
    if size.most_portions is not None:
        most_archives = max(most_archives, -(-len(archives) // size.most_portions))
        if most_bytes is not None:
            all_bytes = sum(ref.size_bytes for ref in archives)
            most_bytes = max(most_bytes, -(-all_bytes // size.most_portions))
    starts, size_bytes = [0], 0
    for number, ref in enumerate(archives):
        size_bytes += ref.size_bytes
        is_full = number - starts[-1] >= most_archives
        if most_bytes is not None and number > starts[-1]:
            is_full |= size_bytes > most_bytes
        if is_full:
            starts.append(number)
            size_bytes = ref.size_bytes
    return [archives[start:stop] for start, stop in zip(starts, [*starts[1:], None], strict=True)]


def write_lists(run: RunIdentity, portions: Sequence[Sequence[ArchiveRef]]) -> None:
    """Writes which archives the portions behind the first one have. Raises: StorageError."""
    for number, archives in enumerate(portions[1:], 2):
        lines = "".join(f"{json.dumps(_plain(ref))}\n" for ref in archives)
        objects.write_staged(_list_of(run, number), lines.encode())


def read_list(run: RunIdentity, number: int) -> Iterator[ArchiveRef]:
    """Yields the archives of a portion. Raises: StorageError."""
    for line in objects.read_bytes(_list_of(run, number)).splitlines():
        yield ArchiveRef(**json.loads(line))


def write_links(run: RunIdentity, links: Mapping[str, str]) -> None:
    """Writes what opens some archives, by their URIs: later portions may recall them. Raises:
    StorageError.
    """
    data = "".join(f"{json.dumps(each)}\n" for each in sorted(links.items())).encode()
    name = f"{_LINKS}{hashlib.sha256(data).hexdigest()[:12]}.jsonl"
    objects.write_staged(run.staged(FOLDER, name), data)


def list_links(run: RunIdentity) -> list[str]:
    """Returns the objects that have them. Raises: StorageError."""
    return [listed.path for listed in objects.match(globs.quote(run.staged(FOLDER, _LINKS)) + "*")]


def read_links(uri: str) -> Iterator[tuple[str, str]]:
    """Yields by URI what opens an archive. Raises: StorageError."""
    for line in objects.read_bytes(uri).splitlines():
        archive_uri, link = json.loads(line)
        yield archive_uri, link


def is_last(job: JobSettings, run: RunIdentity) -> bool:
    """Whether no portion comes behind the one at work. Raises: StorageError."""
    following = _list_of(run, run.portion_number + 1)
    return job.portion is None or not objects.match(globs.quote(following))


def keep(run: RunIdentity, found: Found) -> None:
    """Keeps what came of the portion at work for the last one. Raises: StorageError."""
    objects.write_staged(_found_of(run, run.portion_number), json.dumps(found).encode())


def total(run: RunIdentity, last: Found, order: Callable[[Found], Any], most: int) -> Found:
    """Returns what came of a whole run.

    Args:
      run: with its last portion at work.
      last: what came of that.
      order: of failures.
      most: how many failures are wanted.

    Raises:
      StorageError: what came of the others cannot be read.
    """
    if run.portion_number == 1:
        return last
    kept = [listed.path for listed in objects.list_below(run.staged(FOLDER))]
    found = [
        json.loads(objects.read_bytes(uri))
        for uri in sorted(kept)
        if uri.rpartition("/")[2].startswith("found-")
    ]
    found.append(last)
    counts: Counter[str] = Counter()
    for each in found:
        counts.update(each["counts"])
    # A name is nowhere when no portion has it.
    nowhere = [
        name
        for name in last["unmatched"]
        if all(_is_among(name, each["unmatched"]) for each in found)
    ]
    return {
        "counts": dict(counts),
        "repress": next((each["repress"] for each in found if each["repress"]), None),
        "unmatched": nowhere,
        "failures": sorted((one for each in found for one in each["failures"]), key=order)[:most],
    }


def sweep(run: RunIdentity) -> None:
    """Deletes what a portion that is published has in staging. Raises: StorageError."""
    begin = len(run.staging_uri) + 1
    folders = {
        listed.path[begin:].split("/", 1)[0] for listed in objects.list_below(run.staging_uri)
    }
    for folder in sorted(folders - {FOLDER}):
        objects.delete_below(run.staged(folder))


def _is_among(name: Found, others: Sequence[Found]) -> bool:
    return any((name["flag"], name["value"]) == (each["flag"], each["value"]) for each in others)


def _plain(ref: ArchiveRef) -> dict[str, Any]:
    found = asdict(ref)
    del found["recalled_for"]  # these are archives of this run
    return found


def _list_of(run: RunIdentity, number: int) -> str:
    return run.staged(FOLDER, f"archives-{number:05}.jsonl")


def _found_of(run: RunIdentity, number: int) -> str:
    return run.staged(FOLDER, f"found-{number:05}.json")
