"""The log of a run: where it goes, and what a line of it may hold."""

from __future__ import annotations

import logging
import os
import tempfile

from pipelines.options import RunArguments
from pipelines.telling import JsonLines, json_lines
from transforms.media.errors import ConfigError
from transforms.media.text import printable, without_secrets
from transforms.storage import uris


class LogFormatter(logging.Formatter):
    """A line of the log: without secrets, and with nothing in it that a terminal would obey."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        # Last of all, so that it holds for tracebacks and for what the libraries below say, too.
        return "\n".join(map(printable, without_secrets(super().format(record)).split("\n")))


class JsonFormatter(logging.Formatter):
    """A line of the log as an object of `--log-format json`."""

    def __init__(self, lines: JsonLines) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        stack = self.formatException(record.exc_info) if record.exc_info else record.stack_info
        return self._lines.entry(
            record.getMessage(),
            record.levelname,
            logger=record.name,
            unix_seconds=record.created,
            stack_trace=stack or None,
        ).rstrip("\n")


def set_up_logging(arguments: RunArguments, run_id: str) -> str | None:
    """Sends the log to the terminal (-v) or a file, never both by itself; returns the file.

    With `--log-format json` it goes to the other objects where no file is named: a container's disk
    is gone with it.
    """
    root = logging.getLogger()
    for handler in list(root.handlers):
        root.removeHandler(handler)
    # It has a line for each annotation that it leaves alone.
    logging.getLogger("apache_beam.typehints").setLevel(logging.WARNING)
    lines = json_lines()
    formatter = LogFormatter() if lines is None else JsonFormatter(lines)
    if arguments.verbose or (lines is not None and arguments.log_file is None):
        terminal = logging.StreamHandler(None if lines is None else lines.stream)
        terminal.setFormatter(formatter)
        root.addHandler(terminal)
        root.setLevel(logging.INFO if arguments.verbose else logging.WARNING)
        if lines is not None:
            logging.captureWarnings(True)
        return None
    if arguments.log_file and uris.is_link(arguments.log_file):
        shown = printable(uris.shown(arguments.log_file))
        raise ConfigError(f"--log-file {shown}: expected a file of this machine")
    path = uris.absolute(
        arguments.log_file or os.path.join(tempfile.gettempdir(), f"callpress-{run_id}.log")
    )
    try:
        # Without being asked for, a log is only there when there is something to tell.
        handler = logging.FileHandler(path, delay=arguments.log_file is None)
    except OSError as error:
        raise ConfigError(f"--log-file {path}: {error.strerror}") from None
    handler.setFormatter(formatter)
    root.addHandler(handler)
    root.setLevel(logging.INFO if arguments.log_file else logging.WARNING)
    logging.captureWarnings(True)
    return path
