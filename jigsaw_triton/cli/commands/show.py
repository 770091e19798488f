"""`jigsaw-triton show`: draws a graph."""

from collections.abc import Callable, Mapping
from pathlib import Path

import click

from jigsaw_triton.api.files import load_graph
from jigsaw_triton.cli.inputs import options
from jigsaw_triton.cli.io.output import Output, write_file
from jigsaw_triton.cli.views.graph import graph_document
from jigsaw_triton.graph import draw, picture
from jigsaw_triton.graph.model import TaskGraph

_DRAWERS: Mapping[str, Callable[[TaskGraph], str]] = {
    "text": draw.text,
    "mermaid": draw.mermaid,
    "svg": picture.svg,
}


@options.command(
    "show", examples=("show traffic/", "show traffic/ --format svg -O traffic.svg", "show traffic/ --format mermaid")
)
@options.graph()
@options.option(
    "--format",
    "drawing_format",
    type=click.Choice(tuple(_DRAWERS)),
    default="text",
    show_default=True,
    help="Format of the drawing.",
)
@options.out_file("Write the drawing to this file.")
def command(out: Output, graph: str, drawing_format: str, out_path: Path | None) -> None:
    """Draw a graph.

    Edges that fan out row by row are thick in Mermaid and SVG; conditions are dotted. With -o json the output holds the
    graph as data beside the drawing.
    """
    found = load_graph(graph)
    drawing = _DRAWERS[drawing_format](found)
    if out_path is not None:
        write_file(out_path, drawing)
        out.note(f"wrote {out_path}")
    if out.json:
        out.result({"graph": graph_document(found), "format": drawing_format, "drawing": drawing})
    elif out_path is None:
        out.raw(drawing)
