"""What a run's result says of whom it told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from transforms.media.text import printable
from transforms.notices.tell import Told


def in_result(found: Iterable[Told | str]) -> tuple[list[dict[str, Any]] | None, list[str]]:
    """Returns what became of the notices of each target, None where nobody was told; and lines for
    people, one for each target that has not taken all, or one that says why nobody was told.
    """
    told = []
    lines = []
    for each in found:
        if isinstance(each, str):
            lines.append(printable(each))
            continue
        told.append(each)
        if each.pending or each.failed or each.gone:
            then = "; the next run sends what is pending" if each.pending else ""
            lines.append(in_words(each) + then)
    return [asdict(each) for each in told] or None, lines


def in_words(told: Told) -> str:
    """Returns what became of a target's notices, in a line."""
    counts = {
        "delivered": told.delivered,
        "pending": told.pending,
        "failed": told.failed,
        "gone": told.gone,
    }
    numbers = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    why = f" ({told.why})" if told.why else ""
    return printable(f"notices for {told.target}: {numbers or 'none'}{why}")
