"""What ended a job, from what an engine elsewhere hands on of it: text. A worker's own error stands
in it with its traceback, among the engine's words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipelines.runners.engine import EngineDownError
from transforms.media.errors import CallpressError, exhausted_resource
from transforms.media.text import printable, without_secrets

_OURS = re.compile(r"^((?:transforms|pipelines)(?:\.\w+)+): (.*)", re.MULTILINE)
"""The last line of a traceback of an error of ours."""
_ANY_RAISED = re.compile(r"^([A-Za-z_][\w.]*)(?:: (.*))?$", re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last)"
_STEP = re.compile(r" \[while running '[^']*'\]")
_NO_MEMORY = re.compile(r"(?:RuntimeError: )?MemoryError\b")
"""Beam wraps what is raised without a word."""
_WORKER_LOST = re.compile(
    r"SDK worker disconnected: (?:worker\[)?(.+?)(?:\])?, \d+ active instructions"
    r"|(Channel closed prematurely)"
    # Prism, when its worker goes while a bundle is being handed over.
    r"|(panic in stage\.Execute bundle processing goroutine: send on closed channel)"
)
_WORKER_ABSENT = re.compile(r"didn't get control connection to (\S+) after (\S+)")
_NOT_INSTALLED = re.compile(r"No module named '((?:transforms|pipelines)\b[^']*)'")
_DATAFLOW = re.compile(r"^Dataflow pipeline failed\. State: \w+, Error:\n")
"""What Beam puts before the last error that the service told, or before `None`."""
_NO_IMAGE = re.compile(
    r"ErrImagePull|ImagePullBackOff|[Ff]ailed to pull image|[Bb]ack-off pulling image"
)
_IMAGE = re.compile(r"image [\\\"']*([\w.-]+(?::\d+)?/[\w./-]+(?:[:@][\w:.-]*\w)?)")
_MAX_CHARACTERS = 300


class StepFailedError(Exception):
    """A step raised what it should not: a bug, or a broken installation. Says what, in a line."""


def error_of(text: str) -> Exception:
    """Returns what ended a job, as the local engine would raise it.

    Args:
      text: what the engine says of it.

    Returns:
      what a step raised on purpose; StepFailedError for anything else that a worker raised; an
      OSError or MemoryError where its machine had no more to give; EngineDownError for the
      engine's own words.
    """
    text = _DATAFLOW.sub("", text)
    kinds = dict(_named_kinds(CallpressError))
    for name, message in reversed(_OURS.findall(text)):
        if name in kinds:
            return kinds[name](_without_step(message))
    if missing := _NOT_INSTALLED.search(text):
        return EngineDownError(
            f"the workers do not have this program (no module {missing[1]}): install it there, or "
            "have it sent with --setup_file"
        )
    if _TRACEBACK in text:
        what = _last_raised(text)
        if _NO_MEMORY.match(what):
            return MemoryError()
        return OSError(what) if exhausted_resource(Exception(what)) else StepFailedError(what)
    if lost := _WORKER_LOST.search(text):
        return EngineDownError(
            f"a worker was lost ({lost[lost.lastindex or 0]}): it was killed, ran out of memory, "
            "or its machine is gone"
        )
    if absent := _WORKER_ABSENT.search(text):
        return EngineDownError(
            f"no worker came within {absent[2]}: is their pool at work (--environment_config)?"
        )
    if _NO_IMAGE.search(text):
        image = _IMAGE.search(text)
        return EngineDownError(
            f"workers cannot pull their image{' ' + image[1] if image else ''}: is it there, and "
            "may their service account read it (roles/artifactregistry.reader)?"
        )
    said = _in_a_line(text.strip().split("\n", 1)[0])
    return EngineDownError("it does not say why" if said in ("", "None") else said)


def _named_kinds(kind: type[CallpressError]) -> Iterator[tuple[str, type[CallpressError]]]:
    """Yields all errors of ours, by their full names."""
    yield f"{kind.__module__}.{kind.__qualname__}", kind
    for each in kind.__subclasses__():
        yield from _named_kinds(each)


def _last_raised(text: str) -> str:
    """Returns the last line of the last traceback in a text."""
    last = _without_step(text[text.rindex(_TRACEBACK) :])
    found = [each[0] for each in _ANY_RAISED.finditer(last)]
    return _in_a_line(found[-1]) if found else "no error is named"


def _without_step(text: str) -> str:
    return _STEP.sub("", text).strip()


def _in_a_line(text: str) -> str:
    return printable(without_secrets(text))[:_MAX_CHARACTERS]
