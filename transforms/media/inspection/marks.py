"""The colours, letters and shapes of a drawing."""

from __future__ import annotations

from transforms.media.clock.model import StepEvidence
from transforms.media.inspection.svg import Svg

_LETTERS = {StepEvidence.CONFIRMED: "C", StepEvidence.DENIED: "D"}
_KINDS = {StepEvidence.CONFIRMED: "yes", StepEvidence.DENIED: "no"}
_COLOURS = {"yes": "#1a7f4b", "no": "#c2570c", "open": "#7048b6"}
STYLES = {
    "text": "font:12px system-ui,'Segoe UI','DejaVu Sans',Helvetica,Arial,sans-serif;fill:#24292f",
    ".title": "font-size:20px;font-weight:600",
    ".faint": "fill:#57606a",
    ".head": "font-size:13px;font-weight:600",
    ".num": "font-variant-numeric:tabular-nums",
    ".mark": "fill:#fff;font-size:11px;font-weight:600",
    "path,.frame": "fill:none;stroke-linejoin:round",
    ".paper": "fill:#fff",
    ".panel": "fill:#fbfcfd",
    ".frame": "stroke:#d0d7de",
    ".grid": "stroke:#e6eaef",
    ".zero": "stroke:#8c959f;stroke-dasharray:2 3",
    ".pause": "fill:#e9ecf0",
    ".spread": "stroke:#c3d0de",
    ".least": "stroke:#41566b;stroke-width:2",
    ".floor": "stroke:#111;stroke-width:1.2",
    ".band": "fill:#8fc1f2;fill-opacity:.38",
    ".laid": "stroke:#0969da;stroke-width:4;stroke-opacity:.6",
    ".report": "stroke:#bf2a8f;stroke-width:1.4;fill:#fff",
    ".reports": "stroke:#bf2a8f;stroke-width:.8;stroke-opacity:.55",
    **{f".{kind}": f"stroke:{colour}" for kind, colour in _COLOURS.items()},
    **{f".{kind}f": f"fill:{colour}" for kind, colour in _COLOURS.items()},
    ".still": "stroke-dasharray:5 4",
}


def letter_of(evidence: StepEvidence) -> str:
    """Returns what a step is marked with besides its number: U where reports cannot tell."""
    return _LETTERS.get(evidence, "U")


def kind_of(evidence: StepEvidence) -> str:
    """Returns the class of styles that a step is drawn in."""
    return _KINDS.get(evidence, "open")


def draw_diamond(svg: Svg, x: float, y: float) -> None:
    """Draws the mark of a sender report."""
    svg.add("path", d=f"M{x:.1f} {y - 3.2:.1f}l3.2 3.2l-3.2 3.2l-3.2 -3.2Z", class_="report")


def badge_width(text: str) -> float:
    """Returns how wide the mark of a step has to be."""
    return 16 + 7.0 * len(text)


def draw_badge(svg: Svg, x: float, y: float, text: str, kind: str, width: float) -> None:
    """Draws the mark of a step around a place. Args: kind: as `kind_of` gives it."""
    svg.add("rect", x=x - width / 2, y=y - 8, width=width, height=16, rx=8, class_=f"{kind}f")
    svg.text(x, y + 4, text, "mark", "middle")
