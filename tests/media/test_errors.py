"""Messages: one line that is safe to show, whatever an archive put in it."""

from __future__ import annotations

import pickle

import pytest

from transforms.media.errors import ArchiveError, StorageError
from transforms.media.text import one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 🎧", "plain é 🎧"),
        ("\x1b[2Jx", "\\x1b[2Jx"),
        ("two\r\nlines", "two\\r\\nlines"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("nul\0", "nul\\x00"),
        ("\ud800", "\\ud800"),
        ("a\u2028b", "a\\u2028b"),
        ("\U000e0001", "\\U000e0001"),
    ],
    ids=["plain", "escape", "lines", "bidi", "nul", "surrogate", "separator", "tag"],
)
def test_what_a_terminal_would_obey_is_spelled_out(text: str, shown: str) -> None:
    assert one_line(text) == shown
    assert one_line(shown) == shown
    assert ArchiveError(text).message == shown


def test_messages_have_an_end() -> None:
    message = ArchiveError("begin " + "x" * 1_000_000 + " end").message
    assert message.startswith("begin xxx")
    assert message.endswith("xxx end")
    assert len(message) < 2_000


def test_errors_cross_processes_as_they_are() -> None:
    error = pickle.loads(pickle.dumps(ArchiveError("a\nb", member="m\n", byte_offset=5)))
    assert (error.message, error.member, error.byte_offset) == ("a\\nb", "m\n", 5)
    assert pickle.loads(pickle.dumps(StorageError("x"))).retryable
