"""Canvas of all pictures: a card that follows the reader's choice of light and dark, and is legible on a phone."""

from collections.abc import Iterator
from xml.etree.ElementTree import Element, tostring

from jigsaw_triton.report.markup import tag
from jigsaw_triton.report.style import CHARTS, COLOURS

WIDTH = 480
"""Width of a picture. On a phone it becomes about 340 pixels, so that the smallest text is still 8 pixels high."""

INSET = 16
INNER = WIDTH - 2 * INSET
LINE = 18

_TEXT, _SMALL = 7.4, 6.5
"""Widths of a character, of a wide font."""

_STYLE = f"""{COLOURS}{CHARTS}
.card{{fill:var(--card);stroke:none}}
.t{{font-size:13px;fill:var(--ink)}}.s{{font-size:11.5px;fill:var(--soft)}}
.bold{{font-weight:600}}.middle{{text-anchor:middle}}.end{{text-anchor:end}}
.on{{fill:#10161d}}
.piece{{stroke:none}}.new{{stroke:var(--ink);stroke-width:2}}
.free{{fill:none;stroke:var(--soft);stroke-dasharray:2 3;stroke-width:1}}
.box{{fill:none;stroke:var(--soft);stroke-width:1}}
.arrow{{fill:none;stroke:var(--soft);stroke-width:1.5}}
.time{{fill:var(--soft);stroke:none}}
"""


def document(title: str, height: float, *content: Element) -> str:
    """Returns a picture as an SVG document.

    Args:
        title: Description for those who cannot see it.
        height: Height, in the units of `WIDTH`.
        content: Elements of the picture.
    """
    root = tag(
        "svg",
        tag("title", title),
        tag("style", _STYLE),
        tag("rect", class_="card", width=WIDTH, height=height, rx=8),
        *content,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height:g}",
        width=WIDTH,
        height=height,
        role="img",
    )
    return tostring(root, encoding="unicode") + "\n"


def words(text: str, x: float, y: float, style: str = "t") -> Element:
    """Returns a line of text.

    Args:
        text: The text.
        x: Left end; the middle or the right end if the style has `middle` or `end`.
        y: Base line.
        style: Classes: `t` or, for small text, `s`; and `bold`, `middle`, `end`, `on`.
    """
    return tag("text", text, class_=style, x=x, y=y)


def filled(colour: str, x: float, y: float, width: float, height: float, style: str = "piece") -> Element:
    """Returns a rounded box of a colour `#RRGGBB`, on which text has the style `on`."""
    return tag("rect", class_=style, style=f"fill:{colour}", x=x, y=y, width=width, height=height, rx=4)


def outlined(x: float, y: float, width: float, height: float, style: str = "box") -> Element:
    """Returns a rounded box without a colour of its own."""
    return tag("rect", class_=style, x=x, y=y, width=width, height=height, rx=4)


def arrow(x: float, y: float, to_x: float, to_y: float) -> Element:
    """Returns a curve from left to right with a point at its end."""
    bend = (x + to_x) / 2
    way = f"M{x:.1f},{y:.1f}C{bend:.1f},{y:.1f} {bend:.1f},{to_y:.1f} {to_x:.1f},{to_y:.1f}"
    return tag("path", class_="arrow", d=f"{way}m-6,-4l6,4l-6,4")


def cut(text: str, width: float, style: str = "s") -> str:
    """Returns a text without its beginning if it is too wide: names of variants differ at their ends."""
    room = int(width / (_SMALL if style.startswith("s") else _TEXT))
    return text if len(text) <= room else f"…{text[len(text) - max(0, room - 1) :]}"


def legend(colours: dict[str, str], y: float) -> Iterator[Element]:
    """Yields a square and a name for each task, and for free slices."""
    x: float = INSET
    for name, colour in colours.items():
        yield filled(colour, x, y, 12, 12)
        yield words(name, x + 18, y + 11)
        x += 18 + _TEXT * len(name) + 14
    yield outlined(x, y, 12, 12, "free")
    yield words("free", x + 18, y + 11)
