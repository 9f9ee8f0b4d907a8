"""Names of copied recordings, for people: whose they are, and when, can be read in them.

They are fit for every file system: letters and digits of any script and `. - _ @ +`. None is
hidden, a device of Windows or longer than 140 bytes (eCryptfs takes 143), and no two of a call
differ only by case, or by how a letter is composed. Where an id cannot be read back from a name,
eight hex digits of a hash set it apart.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from datetime import UTC

from transforms.elements import Row

_MOST_BYTES = 140
_TYPE_BYTES, _ID_BYTES = 16, 40
_KEPT = frozenset("._-@+")
_ENDING = re.compile(r"\.[a-z0-9]{1,8}\Z")
_HASHED = re.compile(r"-[0-9a-f]{8}\Z")
_IDS = ("call_type", "call_id", "call_session_id", "participant_id", "user_session_id")


def call_name(cid: str) -> str:
    """Returns a name for a call, by which names of what is of it begin."""
    call_type, _, call_id = cid.partition(":")
    # Windows takes what is before a dot for a device, as in `con.x`.
    readable_type = _readable(call_type, _TYPE_BYTES).replace(".", "_")
    name = f"{readable_type}_{_readable(call_id, _ID_BYTES)}"
    is_plain = (
        name == f"{call_type}_{call_id}" == _folded(name)
        and "_" not in call_type  # `a_b:c` and `a:b_c` would share a name
        and not _HASHED.search(name)
    )
    return name if is_plain else f"{name}-{_hash([cid])}"


def file_names(cid: str, rows: Sequence[Row]) -> list[str]:
    """Returns a name for each of a call's recordings, by their rows: the same each time."""
    stems = [_stem(cid, row) for row in rows]
    counts = Counter(map(_folded, stems))
    names: list[str] = []
    taken: set[str] = set()
    for stem, row in zip(stems, rows, strict=True):
        ending = _ending(row)
        is_own = counts[_folded(stem)] == 1 and len((stem + ending).encode()) <= _MOST_BYTES
        name = f"{stem if is_own else _hashed(stem, row)}{ending}"
        number = 1
        while _folded(name) in taken:  # an id that is spelled as the hash of another
            number += 1
            name = f"{_hashed(stem, row)}_{number}{ending}"
        taken.add(_folded(name))
        names.append(name)
    return names


def _stem(cid: str, row: Row) -> str:
    begins = row["start_time"].astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    stem = f"{call_name(cid)}_{begins}"
    if row["recording_type"] == "composite":
        return f"{stem}_everybody"
    participant = row["participant_id"] or ""
    name = _readable(participant, _ID_BYTES)
    stem += f"_{name}"
    if (row["output_type"] or "").startswith("screenshare"):
        stem += "_screenshare"
    if row["part"]:
        stem += f"_part{row['part']}"
    return stem if name == participant else _hashed(stem, row)


def _hashed(stem: str, row: Row) -> str:
    texts = [*(row[name] or "" for name in _IDS), row["output_type"] or "", str(row["part"])]
    hashed = _hash(texts)
    room = _MOST_BYTES - len(f"-{hashed}_999{_ending(row)}")
    return f"{_cut(stem, room)}-{hashed}"


def _readable(text: str, most_bytes: int) -> str:
    """Returns what can be read of an id: what is no letter, mark or digit of any script, and none
    of a few signs, becomes `_`, and what is too long is cut.
    """
    kept = "".join(
        c if c in _KEPT or unicodedata.category(c)[0] in "LMN" else "_"
        for c in unicodedata.normalize("NFC", text)
    )
    return _cut(kept, most_bytes).strip("._-@+") or "unnamed"


def _cut(text: str, most_bytes: int) -> str:
    return text.encode()[:most_bytes].decode(errors="ignore")


def _folded(name: str) -> str:
    """Returns what names have in common that a file system may take for one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _ending(row: Row) -> str:
    found = _ENDING.search(row["filename"])
    return found[0] if found else ""


def _hash(texts: Sequence[str]) -> str:
    spelled = json.dumps(texts, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(spelled.encode("utf-8", "surrogatepass")).hexdigest()[:8]
