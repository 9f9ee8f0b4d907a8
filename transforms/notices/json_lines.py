"""Events as lines of objects in a folder of any store: for whoever reads files rather than listens.

<folder>/<run>_<call_date>_<shard>.jsonl
"""

from __future__ import annotations

from collections.abc import Sequence

from transforms.media.errors import CallpressError
from transforms.notices.sender import Answer, Notice, NoticeState
from transforms.storage import objects, uris
from transforms.storage.globs import quote
from transforms.targets import Target

_MOST_LINES = 20_000
"""Of one object: some 25 MB, and at most 80."""


class JsonLinesSender:
    """Writes an object for each shard of a run, and a further one where more of it is sent later.

    An object is written once, whole: it is never replaced with other lines, as those that were in
    it are not sent again.
    """

    most = _MOST_LINES
    at_a_time = 1

    def __init__(self, target: Target, sender_id: str) -> None:
        """Args: sender_id: what objects are named by, of a run or of one `callpress tell`."""
        self._folder = target.place
        self._sender_id = sender_id
        self._next: dict[str, int] = {}
        """By shard, the number of the next object."""

    def send(self, notices: Sequence[Notice]) -> Sequence[Answer]:
        """Writes events of one shard as an object."""
        lines = [notice for notice in notices if b"\n" not in notice.body]
        delivered = Answer(state=NoticeState.DELIVERED)
        if lines:
            try:
                self._write(lines[0].shard, b"".join(line.body + b"\n" for line in lines))
            except CallpressError as error:
                # A store was asked several times before it comes to this.
                failed = Answer(state=NoticeState.PENDING, why=str(error), ends_target=True)
                return [failed] * len(notices)
        torn = Answer(state=NoticeState.FAILED, why="its body in the table is no line of JSON")
        return [torn if b"\n" in notice.body else delivered for notice in notices]

    def _write(self, shard: str, data: bytes) -> None:
        """Writes an object under the first name that is free. One with just these lines is theirs:
        who wrote it was killed before it could say so.
        """
        number = self._next.get(shard, 1)
        while True:
            uri = uris.join(self._folder, _name_of(self._sender_id, shard, number))
            there = objects.match(quote(uri))
            if not there:
                objects.write_bytes(uri, data)
            elif there[0].size_bytes != len(data) or objects.read_bytes(uri) != data:
                number += 1
                continue
            self._next[shard] = number + 1
            return

    def close(self) -> None:
        """Has nothing to give up."""


def _name_of(sender_id: str, shard: str, number: int) -> str:
    """Returns the name of an object, by which `sources.own_files` knows it for ours."""
    return f"{sender_id}_{shard}{f'_{number}' if number > 1 else ''}.jsonl"
