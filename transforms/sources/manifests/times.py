"""Times as manifests spell them: numbers of any unit, RFC 3339 and its neighbours."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from transforms.media.rfc3339 import parse_time
from transforms.sources.manifests.showing import show_text

_NS_OF_UNIT = (1_000_000_000, 1_000_000, 1_000, 1)
"""Seconds, ms, us, ns."""
# 1971 to 2200. From one unit to the next is a factor of 1,000 and these are a factor of 231 apart:
# no number is a time in two units.
_EARLIEST_NS = 31_536_000 * 1_000_000_000
_LATEST_NS = 7_258_118_400 * 1_000_000_000
_NUMBER = re.compile(r"[+-]?\d{1,25}(?:\.\d{0,25})?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_MAX_CHARACTERS = 64


def read_time(value: Any) -> int | None:
    """Returns a time as Unix ns; None where it is not set: absent, empty, zero or year 1.

    The unit of a number is told by its size: seconds, ms, us and ns of the years 1971 to 2200 are
    numbers of different sizes. Text is such a number, or a time before 2200 as RFC 3339 spells it.

    Raises:
      ValueError: it is no time. The message follows the name of the thing.
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        if not text:
            return None
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(f"has {len(text):,} characters, expected a time")
        if not _NUMBER.fullmatch(text):
            found = parse_time(text)
            if found is None:
                raise ValueError(f"is {show_text(text)}, expected a time")
            if found > _LATEST_NS:
                raise ValueError(f"is {show_text(text)}, expected a time before 2200")
            return found if found > 0 else None
        value = int(text) if text.isdecimal() else Fraction(text)
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        raise ValueError("is no time, expected a number of ns or text")
    if value <= 0:
        return None
    for unit_ns in _NS_OF_UNIT:
        if _EARLIEST_NS <= value * unit_ns <= _LATEST_NS:
            return int((value if isinstance(value, int) else Fraction(value)) * unit_ns)
    raise ValueError("is a number that is no time of the years 1971 to 2200, expected one of ns")
