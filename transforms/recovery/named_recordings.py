"""The recordings that a run's manifests name, kept in its staging until its last step tells what
became of each: the manifests may be others by then. No link stands there.

    <staging>/portions/named-0123456789ab.jsonl    some thousand recordings, a line each
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

from transforms.context import RunIdentity
from transforms.proof.listing import ListedRecording
from transforms.recovery.portions import FOLDER
from transforms.storage import globs, objects

_NAMED = "named-"


def write(run: RunIdentity, recordings: Sequence[ListedRecording]) -> None:
    """Writes some recordings. Done again, it writes the same object. Raises: StorageError."""
    data = "".join(f"{json.dumps(_spell(each))}\n" for each in recordings).encode()
    name = f"{_NAMED}{hashlib.sha256(data).hexdigest()[:12]}.jsonl"
    objects.write_staged(run.staged(FOLDER, name), data)


def read(run: RunIdentity) -> Iterator[ListedRecording]:
    """Yields all that were written; one of a step that was done again may come twice. Raises:
    StorageError.
    """
    for listed in objects.match(globs.quote(run.staged(FOLDER, _NAMED)) + "*"):
        for line in objects.read_bytes(listed.path).splitlines():
            uri, call_cid, call_session_id, ended_unix_ns, expires_unix_ns = json.loads(line)
            yield ListedRecording(
                uri=uri,
                call_cid=call_cid,
                call_session_id=call_session_id,
                ended_unix_ns=ended_unix_ns,
                expires_unix_ns=expires_unix_ns,
            )


def _spell(each: ListedRecording) -> list[str | int | None]:
    return [
        *(each.uri, each.call_cid, each.call_session_id),
        *(each.ended_unix_ns, each.expires_unix_ns),
    ]
