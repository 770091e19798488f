"""Draws GPUs as rows of slices, in full and in small."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from xml.etree.ElementTree import Element

from docs.pictures.canvas import INNER, INSET, LINE, cut, document, filled, legend, outlined, words
from jigsaw_triton.gpus.board import Piece, Strip, colours
from jigsaw_triton.gpus.layouts import occupied
from jigsaw_triton.gpus.model import Placement
from jigsaw_triton.planner.cells.model import Partition
from jigsaw_triton.planner.domain.features import FEATURES, LETTERS, named
from jigsaw_triton.planner.domain.picture import planned_gpus, strips
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.report.numbers import number

PIECE = 52
"""Height of a slice with text."""

_SMALL_WIDE, _SMALL_HIGH, _SMALL_GAP = 68.0, 16.0, 8.0
_SMALL_IN_ROW = int((INNER + _SMALL_GAP) // (_SMALL_WIDE + _SMALL_GAP))


def plan_strips(plan: Plan) -> list[Strip]:
    """Returns the GPUs that a plan uses."""
    return strips(plan, planned_gpus(plan))


def spans(strip: Strip) -> Iterator[tuple[int, int, Piece | None]]:
    """Yields start and length, in memory slices, of each slice of a GPU, and of each free memory slice."""
    taken: set[int] = set()
    for piece in strip.pieces:
        profile = strip.board.profile(piece.placement.slice)
        assert profile is not None
        span = occupied(profile, piece.placement)
        taken.update(span)
        yield span.start, len(span), piece
    for at in set(range(strip.board.memory_slices)) - taken:
        yield at, 1, None


def small(strip: Strip, palette: Mapping[str, str], x: float, y: float) -> Iterator[Element]:
    """Yields a GPU without text."""
    unit = _SMALL_WIDE / strip.board.memory_slices
    for start, length, piece in spans(strip):
        box = (x + start * unit + 0.5, y, length * unit - 1, _SMALL_HIGH)
        yield outlined(*box, "free") if piece is None else filled(palette[piece.key], *box)


def large(strip: Strip, palette: Mapping[str, str], y: float, marked: Collection[Placement] = ()) -> Iterator[Element]:
    """Yields a GPU with its name and text in its slices; `LINE + PIECE` high.

    Args:
        strip: The GPU.
        palette: Colours of the tasks.
        y: Upper edge.
        marked: Slices that get a frame.
    """
    unit = INNER / strip.board.memory_slices
    yield words(f"GPU {strip.title}", INSET, y + 12, "s bold")
    yield words(strip.board.name, INSET + INNER, y + 12, "s end")
    for start, length, piece in spans(strip):
        x, wide = INSET + start * unit + 1, length * unit - 2
        if piece is None:
            yield outlined(x, y + LINE, wide, PIECE, "free")
            continue
        yield filled(palette[piece.key], x, y + LINE, wide, PIECE, "new" if piece.placement in marked else "piece")
        task, *rest = piece.label.split("\n")
        lines = [(task, "s on bold"), *((line, "s on") for line in (piece.placement.slice, *rest)[-3:])]
        for index, (text, style) in enumerate(lines[:4]):
            yield words(cut(text, wide - 6), x + 4, y + LINE + 12 + 12 * index, style)


def jigsaw(plan: Plan) -> str:
    """Draws the GPUs of a plan."""
    found = plan_strips(plan)
    palette = colours(found)
    content: list[Element] = []
    y: float = INSET
    for strip in found:
        content += large(strip, palette, y)
        y += LINE + PIECE + 14
    content += legend(palette, y)
    title = f"{plan.slices_used} compute slices on {plan.gpus_used} GPUs, coloured by task"
    return document(title, y + 12 + INSET, *content)


def rows_of(found: Sequence[Strip], palette: Mapping[str, str], x: float, y: float, in_row: int) -> Iterator[Element]:
    """Yields GPUs without text, side by side."""
    for index, strip in enumerate(found):
        row, column = divmod(index, in_row)
        left, top = x + column * (_SMALL_WIDE + _SMALL_GAP), y + row * (_SMALL_HIGH + _SMALL_GAP)
        yield from small(strip, palette, left, top)


def comparison(plans: Iterable[Plan]) -> str:
    """Draws the GPUs of plans with different features of the planner, one below the other."""
    found = {plan.features: (plan, plan_strips(plan)) for plan in plans}
    palette = colours([strip for _, on_gpus in found.values() for strip in on_gpus])
    content: list[Element] = []
    y: float = INSET
    for features, (plan, on_gpus) in found.items():
        missing = [LETTERS[letter].partition(",")[0] for letter in FEATURES if letter not in features]
        content.append(words(named(features), INSET, y + 12, "t bold"))
        if missing:
            content.append(words(f"without {', '.join(missing)}", INSET + 52, y + 12, "s"))
        content.append(words(f"{plan.slices_used} slices", INSET + INNER, y + 12, "t bold end"))
        content += rows_of(on_gpus, palette, INSET, y + 22, _SMALL_IN_ROW)
        y += 22 + -(-len(on_gpus) // _SMALL_IN_ROW) * (_SMALL_HIGH + _SMALL_GAP) + 16
    content += legend(palette, y)
    counts = ", ".join(f"{plan.slices_used} with {named(letters)}" for letters, (plan, _) in found.items())
    return document(f"Slices for the same graph and demand, by features: {counts}", y + 12 + INSET, *content)


def cells(partition: Partition) -> str:
    """Draws the cells of a partition: their nodes, GPUs, gateways, and shares of each graph."""
    on_gpus = {cell.name: plan_strips(cell.plan) for cell in partition.cells}
    palette = colours([strip for found in on_gpus.values() for strip in found])
    content: list[Element] = []
    y: float = INSET
    for cell in partition.cells:
        height = 56 + len(cell.nodes) * (_SMALL_HIGH + 14)
        shares = ", ".join(f"{share:.0%} of {graph}" for graph, share in cell.weights.items())
        content += [
            outlined(INSET, y, INNER, height),
            words(cell.name, INSET + 10, y + 20, "t bold"),
            words(shares, INSET + INNER - 10, y + 20, "t end"),
            words(
                f"gateway: {number(cell.gateway.processors)} processors, {cell.gateway.workers} workers",
                INSET + 10,
                y + 38,
                "s",
            ),
        ]
        for index, node in enumerate(cell.nodes):
            top = y + 50 + index * (_SMALL_HIGH + 14)
            content.append(words(f"node {node}", INSET + 10, top + 12, "s"))
            of_node = [s for s, gpu in zip(on_gpus[cell.name], cell.plan.gpus, strict=True) if gpu.id.node == node]
            content += rows_of(of_node, palette, INSET + 80, top, _SMALL_IN_ROW - 1)
        y += height + 12
    content += legend(palette, y)
    title = f"{len(partition.cells)} cells, each with a gateway and a plan of its own"
    return document(title, y + 12 + INSET, *content)
