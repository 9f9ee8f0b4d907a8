"""What a run asks of the engine it runs on, whichever that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import apache_beam as beam

from transforms.media.errors import CallpressError


class EngineDownError(CallpressError):
    """The engine cannot be reached, or gave the job up by no fault of its steps."""


class Engine(Protocol):
    """One of Beam's runners, and what we add to it."""

    shares_this_machine: bool
    """Whether its workers see the files of this machine."""
    has_workers_here: bool
    """Whether its workers live in this process, or are its children: they have its environment."""
    is_one_process: bool
    """Whether all of a run lives in this process, and ends with it."""
    has_ended: bool
    """Whether nothing of the job is known to be at work, or no job was started."""
    stop_seconds: float
    """How long it may take to end its job when the run is stopped; 0 where that is nothing but the
    work in this process.
    """
    what_is_unknown: str
    """What to tell of a job that may be at work still."""

    @property
    def run_id(self) -> str | None:
        """The run's, where the engine's counters tell it; known when the job has ended."""

    def start(self, build: Callable[[beam.Pipeline], Any]) -> str:
        """Starts the job and leaves it to itself; returns its id.

        Raises:
          ConfigError: the engine ends with this process.
          EngineDownError: it cannot be reached.
        """

    def run(self, build: Callable[[beam.Pipeline], Any]) -> None:
        """Runs what `build` wires into an empty pipeline, to its end.

        Raises:
          StoppedError: it was stopped before.
          EngineDownError: by no fault of what was built.
          Exception: whatever ended the job, as the step raised it; or, where an engine hands on
            no more than its text, as `job_errors` makes it of that.
        """
