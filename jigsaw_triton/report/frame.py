"""Frame of a report: the whole file, and the parts that all reports have."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from jigsaw_triton.report.markup import Content, append, html, tag
from jigsaw_triton.report.style import STYLE

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content security policy: browsers load nothing and run nothing, whatever the file contains."""


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart with its title.

    Attributes:
        title: Short title.
        chart: SVG of the chart.
        note: Line of advice below the chart; empty for none.
    """

    title: str
    chart: Element
    note: str = ""


def page(title: str, *content: Content) -> str:
    """Returns the text of a whole file.

    Args:
        title: Title and heading.
        content: Elements and texts below the heading.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", title),
        tag("style", STYLE),
    )
    return html(tag("html", head, tag("body", tag("h1", title), *content), lang="en"))


def facts(found: Iterable[tuple[str, str]]) -> Element:
    """Returns a list of names and what they are."""
    return tag("dl", *(part for name, text in found for part in (tag("dt", name), tag("dd", text))))


def section(title: str, *content: Content, name: str = "") -> Element:
    """Returns a section with a heading.

    Args:
        title: Heading.
        content: Elements and texts below the heading.
        name: Id of the section, for links to it; empty for none.
    """
    made = tag("section", tag("h2", title), *content)
    if name:
        made.set("id", name)
    return made


def charts(panels: Iterable[Panel], style: str = "charts") -> Element:
    """Returns charts side by side.

    Args:
        panels: The charts.
        style: Class of the style sheet: `charts`, or `charts large`.
    """
    made = tag("div", class_=style)
    for panel in panels:
        note = (tag("small", panel.note),) if panel.note else ()
        append(made, tag("figure", tag("figcaption", panel.title), panel.chart, *note))
    return made


def picture(svg: str, words: str) -> Element:
    """Returns an SVG document as a picture. Its style sheet and its ids stay its own.

    Args:
        svg: The document.
        words: Description for those who cannot see it.
    """
    source = f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
    return tag("div", tag("img", src=source, alt=words), class_="picture")


def table(header: Sequence[str], rows: Sequence[Sequence[Content]], style: str = "wide") -> Element:
    """Returns a table without its empty columns. Columns whose header begins with # have numbers."""
    used = [index for index in range(len(header)) if any(cells[index] != "" for cells in rows)]
    names = [header[index] for index in used]
    head = tag("tr", *(_cell("th", name, name.removeprefix("#")) for name in names))
    body = [tag("tr", *(_cell("td", header[index], cells[index]) for index in used)) for cells in rows]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *body)), class_=style)


def _cell(name: str, header: str, content: Content) -> Element:
    return tag(name, content, class_="n") if header.startswith("#") else tag(name, content)
