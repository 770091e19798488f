"""Draws a planned task graph: how the latency is divided, and which way a request takes."""

from collections.abc import Iterator, Mapping
from math import fsum
from xml.etree.ElementTree import Element

from docs.pictures.canvas import INNER, INSET, LINE, arrow, cut, document, filled, outlined, words
from jigsaw_triton.gpus.board import distinct_colours
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import GraphPlan, TaskPlan
from jigsaw_triton.report.numbers import number

_BAR = 26
_BOX = 4 * LINE + 4
_GAP_X, _GAP_Y = 44.0, 14.0

Box = tuple[float, float, float, float]
"""Left edge, upper edge, width and height."""


def paths(graph: TaskGraph) -> Iterator[tuple[str, ...]]:
    """Yields the names of the tasks on each path from the inputs to the outputs."""
    after = {name: [other for other in graph.tasks if name in graph.before(graph.tasks[other])] for name in graph.tasks}

    def onward(way: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if not after[way[-1]]:
            yield way
        for name in after[way[-1]]:
            yield from onward((*way, name))

    for name, task in graph.tasks.items():
        if not graph.before(task):
            yield from onward((name,))


def budgets(graph: TaskGraph, plan: GraphPlan) -> str:
    """Draws the graph with the budget of each task, and below it the budgets along each path against the SLO."""
    palette = distinct_colours(sorted(graph.tasks))
    boxes = _placed(graph)
    content = list(_edges(graph, boxes))
    for name, (x, y, wide, high) in boxes.items():
        task = plan.tasks[name]
        mix = ", ".join(
            f"{variant} {share:.0%}" if len(task.mix) > 1 else variant for variant, share in task.mix.items()
        )
        content += [
            filled(palette[name], x, y, wide, high),
            words(name, x + 8, y + LINE, "t on bold"),
            words(f"budget {number(task.budget_ms)} ms", x + 8, y + 2 * LINE, "t on"),
            words(f"{number(task.rate_rps)} calls/s", x + 8, y + 3 * LINE, "s on"),
            words(cut(mix, wide - 16), x + 8, y + 4 * LINE - 2, "s on"),
        ]
    y = max(top + high for _, top, _, high in boxes.values()) + 24
    for way in paths(graph):
        content += _path(way, plan, graph.slo.latency_ms, palette, y)
        y += 22 + _BAR + 12
    title = f"Latency budgets of the tasks of {graph.name}; along each path they add up to at most the SLO"
    return document(title, y + INSET - 12, *content)


def _placed(graph: TaskGraph) -> dict[str, Box]:
    """Returns the box of each task: the tasks in columns by the longest path to them."""
    level: dict[str, int] = {}
    for name, task in graph.tasks.items():
        level[name] = max((level[before] + 1 for before in graph.before(task)), default=0)
    columns = [[name for name in graph.tasks if level[name] == at] for at in range(max(level.values()) + 1)]
    wide = (INNER - _GAP_X * (len(columns) - 1)) / len(columns)
    tallest = max(map(len, columns)) * (_BOX + _GAP_Y) - _GAP_Y
    return {
        name: (
            INSET + at * (wide + _GAP_X),
            INSET + (tallest - len(column) * (_BOX + _GAP_Y) + _GAP_Y) / 2 + row * (_BOX + _GAP_Y),
            wide,
            _BOX,
        )
        for at, column in enumerate(columns)
        for row, name in enumerate(column)
    }


def _edges(graph: TaskGraph, boxes: Mapping[str, Box]) -> Iterator[Element]:
    for name, task in graph.tasks.items():
        x, y, _, high = boxes[name]
        for before in sorted(graph.before(task)):
            left, top, wide, tall = boxes[before]
            yield arrow(left + wide + 2, top + tall / 2, x - 2, y + high / 2)


def _path(
    way: tuple[str, ...], plan: GraphPlan, slo_ms: float, palette: Mapping[str, str], y: float
) -> Iterator[Element]:
    total = fsum(plan.tasks[name].budget_ms for name in way)
    yield words(" → ".join(way), INSET, y + 14, "t")
    yield words(f"{number(total)} of {number(slo_ms)} ms", INSET + INNER, y + 14, "t end")
    yield outlined(INSET, y + 22, INNER, _BAR, "free")
    x: float = INSET
    for name in way:
        wide = INNER * plan.tasks[name].budget_ms / slo_ms
        yield filled(palette[name], x, y + 22, wide - 1, _BAR)
        yield words(cut(f"{number(plan.tasks[name].budget_ms)} ms", wide), x + wide / 2, y + 22 + 17, "s on middle")
        x += wide


def request(graph: TaskGraph, plan: GraphPlan) -> str:
    """Draws the way of a request: the client, the queues in the gateway, and the workers of each task."""
    palette = distinct_colours(sorted(graph.tasks))
    queue_x, queue_wide = INSET + 100.0, 116.0
    worker_x = INSET + 264.0
    worker_wide = INSET + INNER - worker_x
    row, content = 40.0, list[Element]()
    y = INSET + 34.0
    middles: dict[str, float] = {}
    for name in graph.tasks:
        task = plan.tasks[name]
        middle = middles[name] = y + (len(task.segments) * row - 8) / 2
        content += _queue(name, task, palette[name], (queue_x, middle - 20, queue_wide, 40))
        for index, segment in enumerate(task.segments):
            top = y + index * row
            content += [
                arrow(queue_x + queue_wide + 2, middle, worker_x - 2, top + 16),
                filled(palette[name], worker_x, top, worker_wide, row - 8),
                words(cut(segment.variant, worker_wide - 12, "s"), worker_x + 6, top + 13, "s on bold"),
                words(
                    f"{segment.count} x {segment.slice}, {segment.instances}x b{segment.batch}, {segment.share:.0%}",
                    worker_x + 6,
                    top + 27,
                    "s on",
                ),
            ]
        y += max(1, len(task.segments)) * row + 12
    centre = sum(middles.values()) / len(middles)
    heads = (("clients", INSET), ("queues in the gateway", queue_x - 12), ("workers", worker_x))
    content += [words(text, x, INSET + 12, "t bold") for text, x in heads]
    content += [
        outlined(queue_x - 12, INSET + 24, queue_wide + 24, y - INSET - 30),
        outlined(INSET, centre - 22, 64, 44),
        words(f"{number(plan.demand_rps)}", INSET + 32, centre - 3, "t middle"),
        words("requests/s", INSET + 32, centre + 13, "s middle"),
        arrow(INSET + 66, centre, queue_x - 14, centre),
    ]
    title = f"Way of a request to {graph.name}: from the client to the gateway's queues, and in batches to the workers"
    return document(title, y + INSET - 8, *content)


def _queue(name: str, task: TaskPlan, colour: str, box: Box) -> Iterator[Element]:
    x, y, wide, high = box
    yield filled(colour, x, y, wide, high)
    yield words(name, x + 8, y + 16, "t on bold")
    yield words(f"{number(task.rate_rps)} calls/s", x + 8, y + 32, "s on")
