"""What a process must have in common with the one that started its job: the stamp.

Steps are pickled where a job is started and unpickled by its workers. With another version of the
program, of Python, of Beam or of the libraries below, what comes out there is at best an error that
nobody understands. So the first thing in the settings that all steps carry is the stamp: where it
is unpickled by a process that has another one, that is one error which says what differs, before
anything of the job is done.
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import version

from transforms.media.errors import ConfigError

PINS = "worker-requirements.txt"
"""The exact versions of a worker, in the package `configs`."""
_PINS_DIGITS = 8
_TAG = re.compile(
    rf"(?P<callpress>[\w][\w.]*)-py(?P<python>\d+\.\d+)-(?P<pins>[0-9a-f]{{{_PINS_DIGITS}}})"
)


class OtherVersionError(ConfigError):
    """A worker has not what the job was started with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTag:
    """What the tag of an image of ours says. Of Beam's version it says it by the pins."""

    callpress: str
    """The program's version, as a tag can spell it."""
    python: str
    """Major and minor version, as in `3.11`."""
    pins: str
    """The first 8 hex digits of the SHA-256 of the pinned versions."""

    def __str__(self) -> str:
        return f"{self.callpress}-py{self.python}-{self.pins}"


def parse_image_tag(tag: str) -> ImageTag | None:
    """Returns what a tag of ours says; None for any other tag, of which nothing is known."""
    found = _TAG.fullmatch(tag)
    return ImageTag(**found.groupdict()) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What launcher and workers must have in common. Unpickled only by a process with the same."""

    callpress: str
    """The program's version."""
    python: str
    """Major and minor version, as in `3.11`."""
    pins: str
    """The first 8 hex digits of the SHA-256 of the pinned versions."""
    beam: str
    """Beam's version."""

    @property
    def image_tag(self) -> ImageTag:
        """What the tag of the image says that has this stamp."""
        # A version may have a plus (PEP 440), a tag none.
        return ImageTag(
            callpress=self.callpress.replace("+", "_"), python=self.python, pins=self.pins
        )

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return _received, (self.callpress, self.python, self.pins, self.beam)


@functools.cache
def own_stamp() -> Stamp:
    """Returns this process's stamp."""
    return Stamp(
        callpress=version("callpress"),
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        pins=hashlib.sha256(_pins()).hexdigest()[:_PINS_DIGITS],
        beam=version("apache-beam"),
    )


def pinned_beam() -> str:
    """Returns the version of Beam that the pins name. Raises: ValueError: they name none."""
    pins = _pins().decode()
    found = re.search(r"^apache-beam(?:\[[^\]]*\])?==([^\s;\\]+)", pins, re.MULTILINE)
    if found is None:
        raise ValueError(f"{PINS}: no line begins with apache-beam==")
    return found[1]


def pins_path() -> str:
    """Returns the path of the pinned versions, as they are installed with the program."""
    return str(resources.files("configs") / PINS)


def _pins() -> bytes:
    return (resources.files("configs") / PINS).read_bytes()


def _received(callpress: str, python: str, pins: str, beam: str) -> Stamp:
    """Returns the stamp of the process that started the job.

    Raises:
      OtherVersionError: it is not this one's.
    """
    launcher = Stamp(callpress=callpress, python=python, pins=pins, beam=beam)
    worker = own_stamp()
    if launcher == worker:
        return launcher
    differ = "; ".join(
        f"{what} is {there} on the worker, {here} where the job was started"
        for what, there, here in (
            ("callpress", worker.callpress, launcher.callpress),
            ("Python", worker.python, launcher.python),
            ("Beam", worker.beam, launcher.beam),
            (PINS, worker.pins, launcher.pins),
        )
        if there != here
    )
    raise OtherVersionError(
        f"{differ}: start the job with what the workers have, or give them the image with the tag "
        f"{launcher.image_tag} (--sdk_container_image)"
    )
