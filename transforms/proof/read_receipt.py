"""Reads a receipt that may be anything: JSON of a hostile writer, edited by hand, of a later
version.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from transforms.media.errors import ConfigError, StorageError
from transforms.media.text import has_utf8, printable
from transforms.proof.receipt import FORMAT, MOST_WHOLE, VERSION, Receipt, canonical
from transforms.storage import objects, uris

MOST_BYTES = 40_000_000
"""Of a receipt: each text in it is of bounded length, and so is what is named one by one."""
_DIGITS = len(str(MOST_WHOLE))


class NotAReceiptError(ConfigError):
    """What was given as a receipt is none, or none that this version can judge."""


@dataclass(slots=True)
class _Reader:
    """What `json` calls while it reads; keeps what no receipt has."""

    odd: list[str] = field(default_factory=list)

    def object(self, pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            self._keep("a key is there twice")
        return found

    def number(self, text: str) -> int:
        if len(text) > _DIGITS:
            self._keep(f"a number has {len(text)} digits")
            return 0
        return int(text)

    def other(self, text: str) -> int:
        self._keep(f"the number {text[:20]} is no integer")
        return 0

    def _keep(self, what: str) -> None:
        if what not in self.odd and len(self.odd) < 10:
            self.odd.append(what)


def read_receipt(uri: str) -> tuple[dict[str, Any], Receipt | None, list[str]]:
    """Returns a receipt as it was read, as a value where it is of the form of one, and else what is
    wrong with its form.

    Raises:
      NotAReceiptError: it is no receipt.
      StorageError: a store does not give it.
    """
    shown = printable(uris.shown(uri))
    reader = _Reader()
    try:
        content = json.loads(
            _read(uri, shown).decode("utf-8"),
            object_pairs_hook=reader.object,
            parse_int=reader.number,
            parse_float=reader.other,
            parse_constant=reader.other,
        )
    except (ValueError, RecursionError):
        raise NotAReceiptError(f"{shown}: is no JSON, expected a receipt") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise NotAReceiptError(
            f"{shown}: is JSON of something else, expected a receipt (`format` {FORMAT!r})"
        )
    version = content.get("version")
    if isinstance(version, int) and version > VERSION:
        raise NotAReceiptError(
            f"{shown}: is a receipt of version {version}, this callpress knows {VERSION}: a later "
            "one can check it"
        )
    try:
        canonical(content)
    except (UnicodeEncodeError, RecursionError):
        reader.odd.append("a text that is no Unicode")
    if reader.odd:
        return content, None, [f"{what}, which no receipt has" for what in reader.odd]
    try:
        return content, Receipt.model_validate(content), []
    except ValidationError as error:
        return content, None, [_describe(each) for each in error.errors()[:10]]


def _read(uri: str, shown: str) -> bytes:
    try:
        with objects.open_input(uris.absolute(uri)) as file:
            data = file.read(MOST_BYTES + 1)
    except StorageError as error:
        if objects.is_on_this_machine(uri):
            raise NotAReceiptError(f"{error.message}, expected a receipt") from None
        raise
    if len(data) > MOST_BYTES:
        raise NotAReceiptError(f"{shown}: has more than {MOST_BYTES:,} bytes, expected a receipt")
    return data


def _describe(error: Any) -> str:
    """Returns what is wrong with the form of a receipt; its keys may be of anybody's choice."""
    where = ".".join(str(part)[:40] for part in error["loc"])
    return printable(f"{where if has_utf8(where) else '?'}: {error['msg'][:100]}")
