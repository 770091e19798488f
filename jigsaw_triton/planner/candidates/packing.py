"""Packs models into slices that they share, by exhaustive search."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR

EFFORT = 20_000
"""Largest number of sets of models examined to decide whether models fit a number of slices. A convention."""

Part = tuple[float, float, float]
"""Shares of a slice that a model takes: of its cycle, its load and its memory."""


def packed(parts: Sequence[Part], slices: int, effort: int = EFFORT) -> list[list[int]] | None:
    """Packs parts into slices.

    It fills one slice after the other: each time it takes the largest part left, and tries all maximal sets of parts
    that fit next to it.

    Args:
        parts: Parts, none larger than a slice.
        slices: Number of slices.
        effort: Largest number of sets of parts to examine.

    Returns:
        Indices of the parts in each slice; empty if the parts do not fit; None if the effort is used up first.
    """
    search = _Packing(parts, effort)
    largest_first = sorted(range(len(parts)), key=lambda i: (-max(parts[i]), [-p for p in parts[i]], i))
    try:
        return search.filled(largest_first, slices) or []
    except _TooLong:
        return None


class _TooLong(Exception):
    """A search exceeded its effort."""


@dataclass(slots=True)
class _Packing:
    """A search for a packing.

    Attributes:
        parts: Parts to pack.
        effort: Number of sets of parts that may still be examined.
    """

    parts: Sequence[Part]
    effort: int

    def filled(self, left: Sequence[int], slices: int) -> list[list[int]] | None:
        """Packs the remaining parts into this number of slices; None if they do not fit."""
        if not left:
            return []
        if any(sum(self.parts[i][d] for i in left) > slices * (1 + FLOAT_ERROR) for d in range(3)):
            return None
        for inside in self._beside([left[0]], self.parts[left[0]], left[1:]):
            rest = [i for i in left if i not in inside]
            if (others := self.filled(rest, slices - 1)) is not None:
                return [inside, *others]
        return None

    def _beside(self, inside: list[int], used: Part, left: Sequence[int]) -> Iterator[list[int]]:
        """Yields the maximal sets of parts that fit together: none of the parts that come after fits as well."""
        self.effort -= 1
        if self.effort < 0:
            raise _TooLong
        full, seen = True, set[Part]()
        for at, i in enumerate(left):
            part = self.parts[i]
            more = (used[0] + part[0], used[1] + part[1], used[2] + part[2])
            if max(more) <= 1 + FLOAT_ERROR and part not in seen:
                full = False
                seen.add(part)
                yield from self._beside([*inside, i], more, left[at + 1 :])
        if full:
            yield inside
