"""From what somebody wants on a GPU, by kind or by a board's own names, to a layout of it."""

import re
from collections.abc import Iterable, Sequence

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import MEDIA, Board, Layout, MigProfile, Placement

_PIECE = re.compile(r"(?P<slice>[0-9]+g(x2)?(\+me)?)(@(?P<start>[0-9]+))?")
_NAME = re.compile(r"(?P<compute>[0-9]+)g\.(?P<gb>[0-9]+)gb(?P<media>\+me)?")
_GB_TOLERANCE = 0.3
"""Names round memory, each driver its own way; a profile of twice the memory is further off."""

Wish = tuple[str, int | None]
"""A slice kind and its start; None where any will do."""


def wish(text: str, board: Board, *, where: str = "") -> Wish:
    """What a text asks for: `3g@4`, `3g`, or by name `3g.40gb`.

    Args:
        text: As somebody wrote it.
        board: Of the GPU.
        where: Of the text, for the message.

    Raises:
        InputError: The board has no such slice.
    """
    if match := _PIECE.fullmatch(text.strip()):
        kind = match["slice"]
        if board.profile(kind) is not None:
            return kind, None if match["start"] is None else int(match["start"])
    elif match := _NAME.fullmatch(text.strip()):
        kinds = {p.slice + (MEDIA if p.media_exclusive else ""): p for p in _profiles(board)}
        near = [
            (abs(profile.memory_mib / 1024 / int(match["gb"]) - 1), kind)
            for kind, profile in kinds.items()
            if profile.compute_slices == int(match["compute"])
            and profile.media_exclusive == bool(match["media"])
            and profile.memory_mib is not None
            and int(match["gb"])
        ]
        if near and min(near)[0] <= _GB_TOLERANCE:
            return min(near)[1], None
    known = ", ".join(f"{kind} ({profile.name})" for kind, profile in board.profiles.items())
    raise InputError(
        f"{board.name} has no slice {text!r}",
        where=where,
        hint=f"write 3g@4 for one at a start, or 3g where any will do; it has {known}",
    )


def _profiles(board: Board) -> Iterable[MigProfile]:
    return (*board.profiles.values(), *board.media_profiles.values())


def arranged(board: Board, wishes: Sequence[Wish], *, around: Layout = (), present: Layout = ()) -> Layout | None:
    """A layout that has all of it, with as many of the present placements as can stay; None where there is none.

    Args:
        board: Of the GPU.
        wishes: What is wanted.
        around: What has to stay where it is and is not part of the layout.
        present: What is there and may go.
    """
    # What has the fewest places first, and from the end of the board, where the compute slice that a 3g may cost is not
    # lost; alike ones descending, so that no layout is tried twice.
    order = sorted(wishes, key=lambda w: (w[1] is None, -_memory(board, w[0]), w[0]))
    best: Layout | None = None
    most = -1

    def place(layout: Layout, kept: int) -> None:
        nonlocal best, most
        if kept + len(order) - len(layout) <= most:
            return
        if len(layout) == len(order):
            best, most = layout, kept
            return
        kind, start = order[len(layout)]
        profile = board.profile(kind)
        assert profile is not None
        alike = layout and order[len(layout) - 1] == (kind, start)
        starts = [s for s in profile.starts if start in (None, s) and not (alike and s >= layout[-1].start)]
        for candidate in sorted((Placement(s, kind) for s in starts), key=lambda p: (p not in present, -p.start)):
            if fits(board, (*around, *layout, candidate)) is None:
                place((*layout, candidate), kept + (candidate in present))

    place((), 0)
    return None if best is None else tuple(sorted(best))


def _memory(board: Board, kind: str) -> int:
    profile = board.profile(kind)
    return profile.memory_slices if profile is not None else 0
