"""Draws GPUs as strips of memory slices, with their MIG instances as pieces that are coloured by owner.

This module does not know plans: callers convert theirs to `Strip`s.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from jigsaw_triton.gpus.layouts import occupied
from jigsaw_triton.gpus.model import Board, Placement

_PALETTE = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#0072B2", "#D55E00")
"""Palette of Okabe and Ito (2008), whose colours are distinguishable with all common kinds of colour vision."""

_NO_OWNER = "#BBBBBB"
_TITLE_COLUMNS = 16
_MOST_LINES = 4

Span = tuple[str, str]
"""Text and its rich style (`black on #E69F00`); an empty string for no style."""

Row = tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A MIG instance in a drawing.

    Attributes:
        placement: Placement of the instance.
        label: Text in the piece, with newlines between lines.
        key: Owner of the instance. Pieces with the same key have the same colour. Empty for no owner.
    """

    placement: Placement
    label: str
    key: str = ""


@dataclass(frozen=True, slots=True)
class Strip:
    """A GPU in a drawing.

    Attributes:
        title: Name of the GPU.
        board: Model of the GPU.
        pieces: MIG instances, in any order, that fit the board.
    """

    title: str
    board: Board
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class _Cell:
    """The memory slices of one piece, or one free memory slice."""

    start: int
    length: int
    piece: Piece | None


@dataclass(frozen=True, slots=True)
class _Group:
    """Identical GPUs, which share one drawing, and their names."""

    strip: Strip
    names: tuple[str, ...]


def colours(strips: Iterable[Strip]) -> dict[str, str]:
    """Returns a colour as `#RRGGBB` for each key in the drawing, sorted by key; colours repeat after seven keys."""
    return distinct_colours(sorted({piece.key for strip in strips for piece in strip.pieces} - {""}))


def distinct_colours(keys: Iterable[str]) -> dict[str, str]:
    """Returns a colour as `#RRGGBB` for each key, in the given order; colours repeat after seven keys."""
    return {key: _PALETTE[i % len(_PALETTE)] for i, key in enumerate(keys)}


def draw_text(strips: Sequence[Strip], *, width: int = 80) -> tuple[Row, ...]:
    """Draws the GPUs for a terminal. Identical GPUs are drawn once, with their number.

    Args:
        strips: GPUs to draw.
        width: Columns of the terminal; the drawing is legible from 50.

    Returns:
        Rows of spans, which are readable without their styles, too (`plain`).
    """
    palette, groups = colours(strips), _groups(strips)
    titles = [text for group in groups for text in (group.strip.title, group.strip.board.name)]
    titles_width = min(_TITLE_COLUMNS, 1 + max(map(len, titles), default=0))
    finest = max((group.strip.board.memory_slices for group in groups), default=1)
    unit = max(2, (width - titles_width - 1) // finest)
    rows: list[Row] = []
    for group in groups:
        strip = group.strip
        rows += [*_text_strip(strip, titles_width, unit * finest // strip.board.memory_slices, palette), ()]
    return (*rows, *_legend(palette, any(len(group.names) > 1 for group in groups), width))


def plain(rows: Iterable[Row]) -> str:
    """Returns the rows as text without styles, for files and pipes."""
    return "".join("".join(text for text, _ in row).rstrip() + "\n" for row in rows)


def draw_svg(strips: Sequence[Strip]) -> str:
    """Draws the GPUs as an SVG document, in up to three columns. Identical GPUs are drawn once, with their number.

    Tooltips hold truncated labels and the names of identical GPUs.
    """
    palette, groups = colours(strips), _groups(strips)
    columns, breadth = (1, 880) if len(groups) <= 6 else (2, 640) if len(groups) <= 16 else (3, 480)
    lines = max((len(_lines(piece)) for group in groups for piece in group.strip.pieces), default=1)
    height = 14 * lines + 10
    step_x, step_y = breadth + 24, height + 32
    body = [
        _svg_strip(group, 12 + i % columns * step_x, 12 + i // columns * step_y, breadth, height, palette)
        for i, group in enumerate(groups)
    ]
    bottom = 12 + -(-len(groups) // columns) * step_y
    body.append(_svg_legend(palette, any(len(group.names) > 1 for group in groups), bottom))
    whole_x, whole_y = columns * step_x, bottom + 30
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {whole_x} {whole_y}" width="{whole_x}" '
        f'height="{whole_y}" role="img" aria-label="{len(strips)} GPUs and their MIG instances" '
        f'font-family="ui-monospace, monospace" font-size="11">\n<rect width="100%" height="100%" fill="#fff"/>\n'
        + "".join(body)
        + "</svg>\n"
    )


def _groups(strips: Sequence[Strip]) -> list[_Group]:
    """Groups identical GPUs, in the order of the first GPU of each group."""
    alike: dict[tuple[Board, tuple[Piece, ...]], list[str]] = {}
    for strip in strips:
        pieces = tuple(sorted(strip.pieces, key=lambda p: p.placement))
        alike.setdefault((strip.board, pieces), []).append(strip.title)
    return [
        _Group(Strip(names[0] + (f" x{len(names)}" if len(names) > 1 else ""), board, pieces), tuple(names))
        for (board, pieces), names in alike.items()
    ]


def _cells(strip: Strip) -> list[_Cell]:
    cells: list[_Cell] = []
    at = 0
    for piece in sorted(strip.pieces, key=lambda p: p.placement):
        profile = strip.board.profile(piece.placement.slice)
        if profile is None:
            raise ValueError(f"{strip.board.name} has no slice {piece.placement.slice}")
        taken = occupied(profile, piece.placement)
        cells += [_Cell(free, 1, None) for free in range(at, taken.start)]
        cells.append(_Cell(taken.start, len(taken), piece))
        at = taken.stop
    cells += [_Cell(free, 1, None) for free in range(at, strip.board.memory_slices)]
    return cells


def _lines(piece: Piece) -> list[str]:
    """Returns the slice kind, followed by the label cut to `_MOST_LINES` lines."""
    label = piece.label.split("\n")
    if len(label) > _MOST_LINES:
        label = [*label[: _MOST_LINES - 1], f"+{len(label) - _MOST_LINES + 1} more"]
    return [piece.placement.slice, *label]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def _colour(piece: Piece, palette: Mapping[str, str]) -> str:
    return palette.get(piece.key, _NO_OWNER)


def _ink(colour: str) -> str:
    """Returns black or white, whichever is more readable on the colour (relative luminance by ITU-R BT.709)."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 110 else "white"


def _text_strip(strip: Strip, titles_width: int, unit: int, palette: Mapping[str, str]) -> list[Row]:
    cells = _cells(strip)
    names = [strip.title, strip.board.name]
    height = max([len(names), *(len(_lines(cell.piece)) for cell in cells if cell.piece is not None)])
    rows: list[Row] = []
    for i in range(height):
        name = _cut(names[i], titles_width - 1) if i < len(names) else ""
        row: list[Span] = [(name.ljust(titles_width), "bold" if i == 0 else "dim"), ("│", "dim")]
        for cell in cells:
            room = cell.length * unit - 1
            if cell.piece is None:
                row.append(("·" * room, "dim"))
            else:
                lines = _lines(cell.piece)
                colour = _colour(cell.piece, palette)
                text = _cut(lines[i], room) if i < len(lines) else ""
                row.append((text.ljust(room), f"{_ink(colour)} on {colour}"))
            row.append(("│", "dim"))
        rows.append(tuple(row))
    return rows


def _legend(palette: Mapping[str, str], any_alike: bool, width: int) -> list[Row]:
    entries: list[Row] = [(("■ ", colour), (key, "")) for key, colour in palette.items()]
    entries.append((("· free", "dim"),))
    if any_alike:
        entries.append((("xN: N identical GPUs", "dim"),))
    rows: list[Row] = [()]
    room = width
    for entry in entries:
        breadth = 2 + sum(len(text) for text, _ in entry)
        if breadth > room and rows[-1]:
            rows.append(())
            room = width
        rows[-1] += (*entry, ("  ", ""))
        room -= breadth
    return rows


def _svg_strip(group: _Group, x: int, y: int, breadth: int, height: int, palette: Mapping[str, str]) -> str:
    strip = group.strip
    unit = breadth // strip.board.memory_slices
    title = f"{escape(strip.title)} <tspan fill='#666'>{escape(strip.board.name)}</tspan>"
    names = f"<title>{escape(', '.join(group.names))}</title>" if len(group.names) > 1 else ""
    parts = [f'<g transform="translate({x} {y})">\n<text y="10">{names}{title}</text>\n']
    for cell in _cells(strip):
        left, wide = cell.start * unit + 1, cell.length * unit - 2
        box = f'x="{left}" y="16" width="{wide}" height="{height}" rx="4"'
        if cell.piece is None:
            parts.append(f'<rect {box} fill="none" stroke="#999" stroke-dasharray="2 3"/>\n')
            continue
        colour = _colour(cell.piece, palette)
        tooltip = escape(f"{cell.piece.placement} {cell.piece.label}".replace("\n", ", "))
        parts.append(f'<g fill="{_ink(colour)}"><title>{tooltip}</title><rect {box} fill="{colour}"/>\n')
        for i, line in enumerate(_lines(cell.piece)):
            weight = ' font-weight="bold"' if i == 0 else ""
            text = escape(_cut(line, (wide - 8) // 7))
            parts.append(f'<text x="{left + 5}" y="{30 + 14 * i}"{weight}>{text}</text>\n')
        parts.append("</g>\n")
    return "".join([*parts, "</g>\n"])


def _svg_legend(palette: Mapping[str, str], any_alike: bool, y: int) -> str:
    parts, x = [f'<g transform="translate(12 {y})">\n'], 0
    for key, colour in palette.items():
        parts.append(f'<rect x="{x}" width="12" height="12" rx="2" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17}" y="10">{escape(key)}</text>\n')
        x += 17 + 7 * len(key) + 16
    parts.append(f'<rect x="{x}" width="12" height="12" rx="2" fill="none" stroke="#999" stroke-dasharray="2 3"/>')
    parts.append(f'<text x="{x + 17}" y="10">free</text>\n')
    if any_alike:
        parts.append(f'<text x="{x + 61}" y="10" fill="#666">xN: N identical GPUs</text>\n')
    return "".join([*parts, "</g>\n"])
