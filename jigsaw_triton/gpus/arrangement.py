"""Turns the slices that a user requests, by kind or by the board's profile names, into a layout of a GPU."""

import re
from collections.abc import Iterable, Sequence

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import MEDIA, Board, Layout, MigProfile, Placement

_PIECE = re.compile(r"(?P<slice>[0-9]+g(x2)?(\+me)?)(@(?P<start>[0-9]+))?")
_NAME = re.compile(r"(?P<compute>[0-9]+)g\.(?P<gb>[0-9]+)gb(?P<media>\+me)?")
_GB_TOLERANCE = 0.3
"""Relative tolerance for the memory in a profile's name, which each driver rounds in its own way.

A profile with twice the memory differs by more.
"""

SliceRequest = tuple[str, int | None]
"""A slice kind and its start; None for any start."""


def parse_slice_request(text: str, board: Board, *, where: str = "") -> SliceRequest:
    """Parses a slice request: `3g@4`, `3g`, or a profile name such as `3g.40gb`.

    Args:
        text: Request as the user wrote it.
        board: Model of the GPU.
        where: Source of the text, for the error message.

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
        hint=f"write 3g@4 for a fixed start, or 3g for any start; the board has {known}",
    )


def _profiles(board: Board) -> Iterable[MigProfile]:
    return (*board.profiles.values(), *board.media_profiles.values())


def arrange(
    board: Board, requests: Sequence[SliceRequest], *, around: Layout = (), present: Layout = ()
) -> Layout | None:
    """Returns a layout with all requested slices that keeps as many present placements as possible; None if impossible.

    Args:
        board: Model of the GPU.
        requests: Requested slices.
        around: Placements that must stay and are not part of the layout.
        present: Placements that exist now and may be removed.
    """
    # Slices with the fewest possible starts come first. Starts are tried from the end of the board, where a 3g does not
    # waste a compute slice. Equal requests take descending starts, so that no layout is tried twice.
    order = sorted(requests, key=lambda request: (request[1] is None, -_memory(board, request[0]), request[0]))
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
        repeated = layout and order[len(layout) - 1] == (kind, start)
        starts = [s for s in profile.starts if start in (None, s) and not (repeated and s >= layout[-1].start)]
        for candidate in sorted((Placement(s, kind) for s in starts), key=lambda p: (p not in present, -p.start)):
            if fits(board, (*around, *layout, candidate)) is None:
                place((*layout, candidate), kept + (candidate in present))

    place((), 0)
    return None if best is None else tuple(sorted(best))


def _memory(board: Board, kind: str) -> int:
    profile = board.profile(kind)
    return profile.memory_slices if profile is not None else 0
