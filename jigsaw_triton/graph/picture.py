"""Draws a task graph as SVG: boxes in layers from left to right, joined by curved edges."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from jigsaw_triton.graph.draw import edges, maker_words, mark_words, slo_words, tensor_words
from jigsaw_triton.graph.model import PythonStep, TaskGraph
from jigsaw_triton.graph.tensors import TensorRef

_CHARACTER = 7.9
_LINE = 18
_PADDING = 12
_GAP_X = 120
_GAP_Y = 28
_MARGIN = 24
_HEADER = 40

_STYLE = (
    "text{font:13px ui-monospace,monospace;fill:#1f2937}.title{font-weight:bold}.note{fill:#4b5563}"
    ".task{fill:#e0ecff;stroke:#3b6fb6}.step{fill:#e3f4e4;stroke:#3f8f48}.end{fill:#f3f4f6;stroke:#9ca3af}"
    ".data{stroke:#6b7280}.row{stroke:#3b6fb6;stroke-width:3}.condition{stroke:#b45309;stroke-dasharray:5 4}"
    "path{fill:none;stroke-width:1.5}"
)


@dataclass(slots=True)
class _Box:
    """A node of the picture. A box without lines is a point at which an edge crosses a layer.

    Attributes:
        lines: Lines of text.
        style: CSS class.
        ports: Number of edges on the side that has more of them.
        x: Left edge, once the box is placed.
        y: Top edge, once the box is placed.
        width: Width, once the box is placed.
    """

    lines: tuple[str, ...]
    style: str
    ports: int = 1
    x: float = 0
    y: float = 0
    width: float = 0

    @property
    def height(self) -> float:
        return max(len(self.lines), self.ports) * _LINE + _PADDING

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


@dataclass(frozen=True, slots=True)
class _Edge:
    """An edge: the boxes that it passes, its label, and its kind."""

    way: tuple[str, ...]
    label: str
    how: str

    @property
    def steps(self) -> list[tuple[str, str]]:
        """Pairs of consecutive boxes."""
        return list(pairwise(self.way))


def svg(graph: TaskGraph) -> str:
    """Draws the graph as an SVG document; edges over whose rows a task iterates are thick, conditions dashed."""
    boxes = _boxes(graph)
    links = [_Edge((_source(ref), f"task {task}"), ref.name, how) for ref, task, how in edges(graph)]
    links += [_Edge((_source(ref), f"out {name}"), ref.name, "data") for name, ref in graph.outputs.items()]
    layers = _layers(boxes, links)
    routed = [_routed(index, edge, boxes, layers) for index, edge in enumerate(links)]
    title = f"{graph.name}: {slo_words(graph)}"
    width, height = _place(boxes, layers, routed)
    width = max(width, len(title) * _CHARACTER + 2 * _MARGIN)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        f'<text class="title" x="{_MARGIN}" y="{_MARGIN}">{escape(title)}</text>',
        *_curves(boxes, routed),
        *(_drawn(box) for box in boxes.values() if box.lines),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _boxes(graph: TaskGraph) -> dict[str, _Box]:
    """Returns the boxes of the inputs, of the nodes in topological order, and of the outputs."""
    boxes = {f"in {n}": _Box((n, tensor_words(value.type)), "end") for n, value in graph.inputs.items()}
    boxes |= {
        f"task {node.name}": _Box(
            (node.name, *mark_words(node), maker_words(node)), "step" if isinstance(node, PythonStep) else "task"
        )
        for node in graph.in_order()
    }
    boxes |= {f"out {n}": _Box((n, tensor_words(graph.type_of(ref))), "end") for n, ref in graph.outputs.items()}
    return boxes


def _source(ref: TensorRef) -> str:
    return f"in {ref.name}" if ref.is_graph_input else f"task {ref.task}"


def _layers(boxes: Mapping[str, _Box], links: list[_Edge]) -> list[list[str]]:
    """Assigns each box to a layer by the longest path that leads to it, and the outputs to the last layer."""
    level: dict[str, int] = {}
    for node in boxes:
        level[node] = max((level[edge.way[0]] + 1 for edge in links if edge.way[1] == node), default=0)
    last = max(level.values())
    layers: list[list[str]] = [[] for _ in range(last + 1)]
    for node in boxes:
        layers[last if node.startswith("out ") else level[node]].append(node)
    return layers


def _routed(index: int, edge: _Edge, boxes: dict[str, _Box], layers: list[list[str]]) -> _Edge:
    """Routes an edge through a box of its own in each layer between its ends, so that no other box covers it."""
    tail, head = (next(n for n, layer in enumerate(layers) if end in layer) for end in edge.way)
    stops = [f"edge {index} at {number}" for number in range(tail + 1, head)]
    for number, stop in enumerate(stops, tail + 1):
        boxes[stop] = _Box((), "")
        layers[number].append(stop)
    return _Edge((edge.way[0], *stops, edge.way[1]), edge.label, edge.how)


def _place(boxes: Mapping[str, _Box], layers: list[list[str]], links: list[_Edge]) -> tuple[float, float]:
    """Places the boxes: layers side by side and centred, each ordered by the mean height of its boxes' sources.

    Returns:
        Width and height of the picture.
    """
    steps = [step for edge in links for step in edge.steps]
    for node, box in boxes.items():
        box.ports = max(sum(tail == node for tail, _ in steps), sum(head == node for _, head in steps))
    heights = [sum(boxes[n].height for n in layer) + _GAP_Y * (len(layer) - 1) for layer in layers]
    tallest = max(heights)
    x: float = _MARGIN
    for layer, height in zip(layers, heights, strict=True):
        width = max(len(line) for n in layer for line in boxes[n].lines) * _CHARACTER + 2 * _PADDING
        sources = {n: [boxes[tail].middle for tail, head in steps if head == n] for n in layer}
        y = _MARGIN + _HEADER + (tallest - height) / 2
        for node in sorted(layer, key=lambda n: sum(sources[n]) / max(len(sources[n]), 1)):
            boxes[node].x, boxes[node].y, boxes[node].width = x, y, width
            y += boxes[node].height + _GAP_Y
        x += width + _GAP_X
    return x - _GAP_X + _MARGIN, tallest + 2 * _MARGIN + _HEADER


def _curves(boxes: Mapping[str, _Box], links: list[_Edge]) -> Iterator[str]:
    """Draws the edges; those on one side of a box are spread over it in the order of their other ends."""
    steps = [(number, tail, head) for number, edge in enumerate(links) for tail, head in edge.steps]
    leaves: dict[tuple[int, str], float] = {}
    enters: dict[tuple[int, str], float] = {}
    for node, box in boxes.items():
        out = sorted((step for step in steps if step[1] == node), key=lambda step: boxes[step[2]].middle)
        into = sorted((step for step in steps if step[2] == node), key=lambda step: boxes[step[1]].middle)
        for ends, side in ((out, leaves), (into, enters)):
            for rank, (number, _, _) in enumerate(ends, 1):
                side[number, node] = box.y + box.height * rank / (len(ends) + 1)
    for number, edge in enumerate(links):
        way = ""
        for tail, head in edge.steps:
            x0, y0 = boxes[tail].x + boxes[tail].width, leaves[number, tail]
            x1, y1 = boxes[head].x, enters[number, head]
            bend = (x0 + x1) / 2
            way += f"{'L' if way else 'M'}{x0:.0f},{y0:.0f}C{bend:.0f},{y0:.0f} {bend:.0f},{y1:.0f} {x1:.0f},{y1:.0f}"
        yield (
            f'<path class="{edge.how}" d="{way}"/>'
            f'<text class="note" text-anchor="end" x="{x1 - 8:.0f}" y="{y1 - 5:.0f}">{escape(edge.label)}</text>'
        )


def _drawn(box: _Box) -> str:
    radius = 4 if box.style == "task" else 16
    rectangle = (
        f'<rect class="{box.style}" x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" '
        f'height="{box.height:.0f}" rx="{radius}"/>'
    )
    lines = [
        f'<text class="{"title" if index == 0 else "note"}" x="{box.x + _PADDING:.0f}" '
        f'y="{box.y + _LINE * (index + 1):.0f}">{escape(line)}</text>'
        for index, line in enumerate(box.lines)
    ]
    return rectangle + "".join(lines)
