"""How much of a night a run takes on: what is past that waits for the next one."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from transforms.media.errors import ConfigError

_DURATION = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?")
_SECONDS = (86_400, 3_600, 60, 1)
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?) ?(?:([kmgtp])(i?)(b?)|b?)", re.IGNORECASE)
_PREFIXES = "kmgtp"
_MOST = 1 << 62


class Bound(StrEnum):
    """What a run can be bounded by."""

    STOP_AFTER = "stop_after"
    MAX_ARCHIVES = "max_archives"
    MAX_BYTES = "max_bytes"

    @property
    def flag(self) -> str:
        """Its spelling on the command line."""
        return f"--{self.replace('_', '-')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """The bounds of a run; None does not bound."""

    stop_after_seconds: int | None = None
    """From the beginning of the run: past it nothing is started."""
    max_archives: int | None = None
    """Archives that are pressed, at most."""
    max_bytes: int | None = None
    """Bytes of the archives that are pressed, as listed; one archive is pressed whatever its
    size.
    """

    def given(self, bound: Bound) -> str:
        """Returns what a bound is, as one may write it."""
        seconds = self.stop_after_seconds or 0
        unit, name = next(
            (each for each in ((3_600, "h"), (60, "m")) if seconds and seconds % each[0] == 0),
            (1, "s"),
        )
        return {
            Bound.STOP_AFTER: f"{seconds // unit}{name}",
            Bound.MAX_ARCHIVES: str(self.max_archives),
            Bound.MAX_BYTES: str(self.max_bytes),
        }[bound]

    @property
    def limits_archives(self) -> bool:
        """Whether it is known before any work which archives wait."""
        return self.max_archives is not None or self.max_bytes is not None

    def is_over(self, started_unix_ns: int) -> bool:
        """Returns whether a run is to start no more. Args: started_unix_ns: when it began."""
        if self.stop_after_seconds is None:
            return False
        return time.time_ns() - started_unix_ns >= self.stop_after_seconds * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class PortionSize:
    """How much of a night is pressed and published at a time."""

    archives: int
    size_bytes: int | None = None
    """Of the archives, as listed, at most; one archive is a portion whatever its size. None does
    not bound.
    """
    most_portions: int | None = None
    """About: of a larger night portions are larger rather than more. None does not bound."""


def parse_duration(flag: str, text: str) -> int:
    """Returns a length of time such as `5h`, `90m` or `1h30m` in seconds. Raises: ConfigError."""
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        raise ConfigError(f"{flag} {text}: expected a length of time such as 5h, 90m or 1h30m")
    return sum(
        int(number or 0) * unit for number, unit in zip(found.groups(), _SECONDS, strict=True)
    )


def parse_size(flag: str, text: str) -> int:
    """Returns a number of bytes: `500000`, `20GB` (thousands), `20GiB` or `20G` (1,024s, as du and
    dd have it). Raises: ConfigError: it is none, or less than one.
    """
    found = _SIZE.fullmatch(text.strip())
    size_bytes = 0
    if found is not None:
        prefix, is_binary, has_unit = found[2], found[3], found[4]
        base = 1_000 if has_unit and not is_binary else 1_024
        power = _PREFIXES.index(prefix.lower()) + 1 if prefix else 0
        size_bytes = int(Decimal(found[1]) * base**power)
    if not 0 < size_bytes <= _MOST:
        raise ConfigError(f"{flag} {text}: expected a number of bytes such as 20GB or 500MiB")
    return size_bytes


def parse_count(flag: str, text: str) -> int:
    """Returns a number of at least one. Raises: ConfigError."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text[:20]) <= _MOST:
        raise ConfigError(f"{flag} {text}: expected a positive number")
    return int(text)
