"""Names of copied recordings, for people: who and when can be read in them.

They are fit for every file system: letters and digits of any script, `.`, `-` and `_`; no name is a
device of Windows or ends in a dot, none has more than 140 bytes (eCryptfs takes 143), and no two of
a call differ by case or by how a letter is composed alone.
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

_TYPE_BYTES, _ID_BYTES = 16, 32
_ENDING = re.compile(r"\.[a-z0-9]{1,8}$")
_IDS = ("call_type", "call_id", "call_session_id", "participant_id", "user_session_id")


def call_name(cid: str) -> str:
    """Returns a name for a call, by which names of what is of it begin."""
    call_type, _, call_id = cid.partition(":")
    name = f"{_readable(call_type, _TYPE_BYTES)}_{_readable(call_id, _ID_BYTES)}"
    # `_` in the name of a type might be the one between both: `a_b:c` and `a:b_c`.
    is_plain = name == f"{call_type}_{call_id}" and name.count("_") == 1 and name == name.lower()
    return name if is_plain else f"{name}-{_hash([cid])}"


def file_names(cid: str, rows: Sequence[Row]) -> list[str]:
    """Returns a name for each of a call's recordings, by their rows: the same each time."""
    stems = [_stem(cid, row) for row in rows]
    folded = Counter(map(_folded, stems))
    return [
        (stem if folded[_folded(stem)] == 1 else f"{stem}-{_hash(_key(row))}") + _ending(row)
        for stem, row in zip(stems, rows, strict=True)
    ]


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
    return stem if name == participant else f"{stem}-{_hash(_key(row))}"


def _key(row: Row) -> list[str]:
    return [*(row[name] or "" for name in _IDS), row["output_type"] or "", str(row["part"])]


def _readable(text: str, most_bytes: int) -> str:
    """Returns what can be read of an id: what is no letter, mark or digit of any script, `.`, `-`
    or `_` becomes `_`, and what is too long is cut.
    """
    kept = "".join(
        c if c in "._-" or unicodedata.category(c)[0] in "LMN" else "_"
        for c in unicodedata.normalize("NFC", text)
    )
    while len(kept.encode("utf-8", "replace")) > most_bytes:
        kept = kept[:-1]
    return kept.strip("._-") or "unnamed"


def _folded(name: str) -> str:
    """Returns what names have in common that a file system may take for one."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _ending(row: Row) -> str:
    found = _ENDING.search(row["filename"])
    return found[0] if found else ""


def _hash(texts: Sequence[str]) -> str:
    spelled = json.dumps(texts, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(spelled.encode("utf-8", "surrogatepass")).hexdigest()[:8]
