"""Writes an SVG: paths, rectangles and text, which is escaped. Knows nothing of what is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from xml.sax.saxutils import escape, quoteattr

from transforms.media.text import printable, utf8_text


class Svg:
    """A drawing that grows element by element, the later ones on top."""

    def __init__(self, width: int, styles: Mapping[str, str]) -> None:
        """Begins empty.

        Args:
          width: of the drawing, in pixels.
          styles: CSS by selector.
        """
        self._width = width
        self._styles = "".join(f"{selector}{{{style}}}" for selector, style in styles.items())
        self._parts: list[str] = []

    def add(self, name: str, text: str | None = None, **attributes: str | float) -> None:
        """Adds an element. Args: attributes: `class_` is `class`, and `_` stands for `-`."""
        spelled = "".join(
            f" {key.rstrip('_').replace('_', '-')}={quoteattr(_spell(value))}"
            for key, value in attributes.items()
        )
        body = "/" if text is None else f">{escape(printable(utf8_text(text)))}</{name}"
        self._parts.append(f"<{name}{spelled}{body}>")

    def text(self, x: float, y: float, text: str, class_: str = "", anchor: str = "start") -> None:
        """Adds a line of text. Args: anchor: start, middle or end, which lies at x."""
        self.add("text", text, x=x, y=y, **_named(class_, text_anchor=anchor))

    def line(self, x1: float, y1: float, x2: float, y2: float, class_: str) -> None:
        """Adds a straight line."""
        self.add("path", d=f"M{_spell(x1)} {_spell(y1)}L{_spell(x2)} {_spell(y2)}", class_=class_)

    def lines(self, points: Iterable[tuple[float, float]], class_: str) -> None:
        """Adds a line from point to point; none of fewer than two."""
        spelled = [f"{_spell(x)} {_spell(y)}" for x, y in points]
        if len(spelled) > 1:
            self.add("path", d="M" + "L".join(spelled), class_=class_)

    def rect(self, x: float, y: float, width: float, height: float, class_: str) -> None:
        """Adds a rectangle."""
        self.add("rect", x=x, y=y, width=width, height=height, class_=class_)

    def begin_clipped(self, name: str, x: float, y: float, width: float, height: float) -> None:
        """From here to `end_clipped` nothing is seen beyond a rectangle. Args: name: a new one."""
        frame = f'x="{_spell(x)}" y="{_spell(y)}" width="{_spell(width)}" height="{_spell(height)}"'
        self._parts.append(f'<clipPath id="{name}"><rect {frame}/></clipPath>')
        self._parts.append(f'<g clip-path="url(#{name})">')

    def end_clipped(self) -> None:
        """Ends what `begin_clipped` began."""
        self._parts.append("</g>")

    def finish(self, height: int, title: str) -> str:
        """Returns the whole document. Args: title: what programs call the drawing."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self._width}" height="{height}" '
            f'viewBox="0 0 {self._width} {height}" role="img">'
        )
        name = f"<title>{escape(printable(utf8_text(title)))}</title>"
        return "\n".join([head, name, f"<style>{self._styles}</style>", *self._parts, "</svg>", ""])


def _named(class_: str, text_anchor: str) -> dict[str, str]:
    found = {"class_": class_} if class_ else {}
    return found if text_anchor == "start" else {**found, "text_anchor": text_anchor}


def _spell(value: str | float) -> str:
    """Numbers to a tenth of a pixel, without what says nothing."""
    if isinstance(value, str):
        return value
    text = f"{value:.1f}"
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text
