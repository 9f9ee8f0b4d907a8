"""Text made fit to be stored and shown: valid UTF-8, one line, nothing that a terminal would obey."""

from __future__ import annotations


def one_line(text: str) -> str:
    """Returns text that is safe to show on a terminal and in a log: one line, nothing hidden.

    Names and ids are chosen by whoever made an archive: what moves a cursor, begins a line or turns the writing direction is
    spelled out as an escape.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def utf8_text(text: str) -> str:
    """Returns text that has a UTF-8 form: lone surrogates (JSON can spell them, tar names yield them) become `?`."""
    return text.encode("utf-8", "replace").decode("utf-8")
