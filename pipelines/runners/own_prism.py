"""Beam's engine Prism in a process of this one's: gone with it, however it ends."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any
from urllib.parse import urlsplit

from apache_beam.options.pipeline_options import PipelineOptions, PrismRunnerOptions
from apache_beam.runners.portability.job_server import JobServer
from apache_beam.runners.portability.prism_runner import PrismJobServer, PrismRunner

from pipelines.runners.engine import EngineDownError
from transforms.media.text import printable
from transforms.storage.errors import describe_error

_PANIC = "panic: "
_MAX_CHARACTERS = 300

_RUN_AND_DIE_WITH_PARENT = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1  # prctl(2)
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
os.execv(sys.argv[1], sys.argv[1:])
"""


class OwnPrism:
    """Beam would start it too, but leave it running at SIGTERM, and take SIGINT for itself."""

    def __init__(self, options: PipelineOptions) -> None:
        self._server = _PrismServer(options)
        self._location = options.view_as(PrismRunnerOptions).prism_location
        self._stub: Any = None
        self.last_words = ""
        """What it ended with, if it did so by itself."""

    def start(self) -> None:
        """Starts it. Raises: EngineDownError: there is none, or it does not come up."""
        location = self._location
        if location and not urlsplit(location).scheme and not os.path.isfile(location):
            raise EngineDownError(f"--prism_location {location}: no such file")
        logging.getLogger(_PrismServer.__name__).addFilter(self._hear)
        try:
            self._stub = self._server.start()
        except Exception as error:
            with contextlib.suppress(Exception):
                self._server.stop()  # its temporary folder
            raise EngineDownError(
                f"--runner PrismRunner: Prism cannot be started: {describe_error(error)}; name a "
                "program that runs here with --prism_location"
            ) from error

    def runner(self) -> PrismRunner:
        """Returns a runner that hands jobs to it."""
        runner = PrismRunner()
        runner.default_job_server = lambda options: _Started(self._stub)
        return runner

    def stop(self) -> None:
        """Ends it; harmless when it is not there."""
        if self._stub is not None:
            self._stub = None
            self._server.stop()
            logging.getLogger(_PrismServer.__name__).removeFilter(self._hear)

    def _hear(self, record: logging.LogRecord) -> bool:
        """Listens to what it says; lets through to the log what is wanted there: Beam takes all."""
        line = record.getMessage()
        if line.startswith(_PANIC):
            self.last_words = printable(line.removeprefix(_PANIC))[:_MAX_CHARACTERS]
        return record.levelno >= logging.getLogger().level


class _PrismServer(PrismJobServer):
    def subprocess_cmd_and_endpoint(self) -> tuple[list[Any], str]:
        command, endpoint = super().subprocess_cmd_and_endpoint()
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _RUN_AND_DIE_WITH_PARENT, *command]
        return command, endpoint


class _Started(JobServer):
    """A server that is there already, and is ended by who started it."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def start(self) -> Any:
        return self._stub

    def stop(self) -> None:
        pass
