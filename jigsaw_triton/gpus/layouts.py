"""The layouts that MIG allows.

Drivers apply three rules: intervals of memory slices do not overlap, no profile exceeds its maximum number of
instances, and at most one instance of a GPU is media-exclusive. Compute slices need no rule of their own.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from types import MappingProxyType

from jigsaw_triton.gpus.model import SLICES, Board, Layout, MigProfile, Placement

_MOST_CACHED = 1024
"""Number of combinations of a board, slice kinds and existing placements whose layouts are kept. The GPUs of a large
cluster hold hundreds of different placements."""

Multiset = tuple[str, ...]
"""Slice kinds with repetition, in the order of `SLICES`: `("1g", "1g", "2g", "3g")`."""


def occupied(profile: MigProfile, placement: Placement) -> range:
    """Returns the memory slices that a placement of this profile uses."""
    return range(placement.start, placement.start + profile.memory_slices)


def fits(board: Board, layout: Iterable[Placement]) -> str | None:
    """Returns why these placements cannot be together on one GPU of this board; None if they can.

    The order of the placements does not matter.
    """
    taken: dict[int, Placement] = {}
    counts: Counter[str] = Counter()
    exclusive: Placement | None = None
    for placement in layout:
        profile = board.profile(placement.slice)
        if profile is None:
            return f"{board.name} has no slice {placement.slice} (it has {', '.join(board.profiles)})"
        if placement.start not in profile.starts:
            starts = ", ".join(map(str, profile.starts))
            return f"{placement.slice} of {board.name} cannot start at {placement.start} (only at {starts})"
        for memory_slice in occupied(profile, placement):
            if memory_slice in taken:
                return f"{placement} overlaps {taken[memory_slice]}"
            taken[memory_slice] = placement
        counts[placement.slice] += 1
        if counts[placement.slice] > profile.max_instances:
            return f"{board.name} holds at most {profile.max_instances} of {placement.slice}"
        if profile.media_exclusive and exclusive is not None:
            return f"{placement} cannot have the media engines, which {exclusive} already uses"
        exclusive = placement if profile.media_exclusive else exclusive
    return None


def multiset(layout: Iterable[Placement]) -> Multiset:
    """Returns the slice kinds of a layout, which must not contain media-exclusive slices."""
    return tuple(sorted((p.slice for p in layout), key=SLICES.index))


def maximal_layouts(board: Board, slices: Collection[str] = SLICES, around: Layout = ()) -> tuple[Layout, ...]:
    """Returns all maximal layouts, sorted: those to which no further placement of these slice kinds can be added.

    Media-exclusive forms are left out, since one can replace a plain slice of its kind.

    Args:
        board: Model of the GPU.
        slices: Slice kinds to use; kinds that the board lacks are ignored.
        around: Existing placements, valid together, that the layouts have to leave room for and do not contain.
    """
    return _maximal_layouts(board, frozenset(slices), around)


def maximal_multisets(board: Board, slices: Collection[str] = SLICES, around: Layout = ()) -> Mapping[Multiset, Layout]:
    """Returns the distinct multisets of slice kinds among the maximal layouts, each with the first layout that has it.

    One multiset may contain another: 3g with four 1g contains 3g with three 1g, which is maximal at other starts.

    Args:
        board: Model of the GPU.
        slices: Slice kinds to use; kinds that the board lacks are ignored.
        around: Existing placements, as for `maximal_layouts`.
    """
    return _maximal_multisets(board, frozenset(slices), around)


@lru_cache(maxsize=_MOST_CACHED)
def _maximal_layouts(board: Board, slices: frozenset[str], around: Layout) -> tuple[Layout, ...]:
    def beside(layout: Layout, places: Iterable[Placement]) -> list[Placement]:
        """Returns the places that can be added to a layout."""
        return [place for place in places if fits(board, (*around, *layout, place)) is None]

    def grown(layout: Layout, places: list[Placement]) -> Iterator[Layout]:
        """Yields the maximal layouts that add later placements to a layout, beside which these places are free."""
        if not places and layout:
            yield layout
        for place in places:
            if not layout or place > layout[-1]:
                wider = (*layout, place)
                yield from grown(wider, beside(wider, places))

    kinds = (kind for kind in board.profiles if kind in slices)
    places = (Placement(start, kind) for kind in kinds for start in board.profiles[kind].starts)
    return tuple(grown((), beside((), sorted(places))))


@lru_cache(maxsize=_MOST_CACHED)
def _maximal_multisets(board: Board, slices: frozenset[str], around: Layout) -> Mapping[Multiset, Layout]:
    found: dict[Multiset, Layout] = {}
    for layout in _maximal_layouts(board, slices, around):
        found.setdefault(multiset(layout), layout)
    return MappingProxyType(dict(sorted(found.items())))
