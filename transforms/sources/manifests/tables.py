"""Reads CSV (RFC 4180) with a header. A line is a row: none of our columns has one with an end of
line in it, and a quotation mark that is never closed costs its own line only.
"""

from __future__ import annotations

import csv

from transforms.sources.manifests.entries import (
    LEFT_OUT,
    RAW,
    Found,
    Unread,
    make_entry,
    wrong_kind,
)
from transforms.sources.manifests.entry import LeftOut, ManifestEntry

_PLACES = ("url", "uri")
_DELIMITERS = (",", ";", "\t")


class TableHeader:
    """The columns of a table."""

    def __init__(self, names: list[str], delimiter: str) -> None:
        self._delimiter = delimiter
        self._column_count = len(names)
        self._columns: dict[str, int] = {}
        for column, name in enumerate(names):
            self._columns.setdefault(name, column)

    def read_row(self, line: str, position: str) -> Found:
        """Returns what a row names."""
        try:
            return self._read_row(line)
        except csv.Error:
            why = "no row of CSV: a quotation mark in it is not closed, or not doubled"
        except ValueError as error:
            why = str(error)
        return Unread(position=position, why=why, is_known=True)

    def _read_row(self, line: str) -> ManifestEntry | LeftOut:
        (values,) = csv.reader([line], delimiter=self._delimiter, strict=True)
        if any(values[self._column_count :]):
            raise ValueError(f"{len(values)} values, the header has {self._column_count}")

        def value(name: str) -> str:
            column = self._columns.get(name, len(values))
            return values[column].strip() if column < len(values) else ""

        kind = value("recording_type")
        if kind in LEFT_OUT:
            return LEFT_OUT[kind]
        if kind not in ("", RAW):
            raise ValueError(wrong_kind(kind))
        return make_entry(
            next(filter(None, map(value, _PLACES)), ""),
            call_cid=value("call_cid"),
            call_session_id=value("session_id"),
            start_time=value("start_time"),
            end_time=value("end_time"),
        )


def read_header(line: str) -> TableHeader | None:
    """Returns the columns that the first line of a table names; None where it is no such line."""
    for delimiter in _DELIMITERS:
        try:
            rows = list(csv.reader([line], delimiter=delimiter, strict=True))
        except csv.Error:
            continue
        names = [name.strip().lower() for name in rows[0]] if rows else []
        if any(place in names for place in _PLACES):
            return TableHeader(names, delimiter)
    return None
