"""What a command tells on standard error: lines for people, or with `--log-format json` an object a
line for programs.

The fields are those that Cloud Logging knows of structured logs (`time`, `severity`, `message`,
`stack_trace`), and `logger` and `run_id`, where the run has a name. Whatever a library prints comes
as such an object, too; what other programs print, as a Prism does, does not.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from transforms.media.text import printable, printable_json, without_secrets

_OURS = "callpress"
_PREFIX = "callpress: "
_WARNING = "warning: "
_SEVERITIES = frozenset({"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"})


class JsonLines(io.TextIOBase):
    """A text stream that writes each line as an object."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        """Where they go."""
        self.run_id: str | None = None
        """Known once the run has one."""
        self._begun = threading.local()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self.stream.fileno()

    def write(self, text: str) -> int:
        *lines, rest = (getattr(self._begun, "text", "") + text).split("\n")
        self._begun.text = rest
        self.stream.write("".join(map(self.entry_of_line, lines)))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()

    def end(self) -> None:
        """Writes the line that was begun."""
        if getattr(self._begun, "text", ""):
            self.write("\n")
        self.flush()

    def tell_entry(self, entry: str) -> None:
        """Writes an entry at once."""
        self.stream.write(entry)
        self.flush()

    def entry_of_line(self, line: str, severity: str = "INFO") -> str:
        """Returns the entry of a line as people would be told it, none of an empty one."""
        line = line.strip("\r")
        if not line.strip():
            return ""
        line = line.removeprefix(_PREFIX)
        if line.startswith(_WARNING):
            line, severity = line.removeprefix(_WARNING), "WARNING"
        return self.entry(line, severity)

    def entry(
        self,
        message: str,
        severity: str,
        *,
        logger: str = _OURS,
        unix_seconds: float | None = None,
        stack_trace: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> str:
        """Returns a line with an object in it."""
        at = datetime.fromtimestamp(time.time() if unix_seconds is None else unix_seconds, UTC)
        fields: dict[str, Any] = {
            "time": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "severity": severity if severity in _SEVERITIES else "DEFAULT",
            "logger": logger,
            "message": _clean(message),
        }
        if self.run_id is not None:
            fields["run_id"] = self.run_id
        if stack_trace is not None:
            fields["stack_trace"] = _clean(stack_trace)
        return printable_json(json.dumps({**fields, **(more or {})}, ensure_ascii=False)) + "\n"


@contextlib.contextmanager
def telling_in(log_format: str | None) -> Iterator[None]:
    """Has the block tell in a format. Args: log_format: `json`; anything else is text."""
    if log_format != "json":
        yield
        return
    before: Any = sys.stderr
    lines: Any = JsonLines(before)
    sys.stderr = lines
    try:
        yield
    finally:
        lines.end()
        sys.stderr = before


def json_lines() -> JsonLines | None:
    """Returns what objects are written with; None where lines are told."""
    stream: Any = sys.stderr
    return stream if isinstance(stream, JsonLines) else None


def tell(line: str, severity: str = "INFO") -> None:
    """Tells a line of ours."""
    if lines := json_lines():
        lines.tell_entry(lines.entry_of_line(line, severity))
    else:
        print(f"{_PREFIX}{line}", file=sys.stderr, flush=True)


def tell_bug(error: Exception) -> bool:
    """Tells of an error that nobody expected; returns False where Python's own words are to do."""
    lines = json_lines()
    if lines is None:
        return False
    import traceback  # late, as it is seldom needed and the command is to answer at once

    said = "".join(traceback.format_exception(error))
    lines.tell_entry(lines.entry(f"{type(error).__name__}: {error}", "CRITICAL", stack_trace=said))
    return True


def shaped(text: str, severity: str) -> str:
    """Returns lines as they are told, to be written where standard error cannot be used."""
    lines = json_lines()
    if lines is None:
        return text
    return "".join(lines.entry_of_line(line, severity) for line in text.split("\n"))


def _clean(text: str) -> str:
    return "\n".join(map(printable, without_secrets(text).split("\n")))
