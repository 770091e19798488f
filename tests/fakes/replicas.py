"""All combinations of replicas that fit some GPUs, for exhaustive searches."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from jigsaw_triton.profiles.table import ProfileRow


def within(cuts: Iterable[Counter[str]]) -> Callable[[Counter[str]], bool]:
    """Returns a function that says if one of these ways to cut the GPUs has so many slices of each kind."""
    ways = tuple(cuts)
    return lambda taken: any(taken <= cut for cut in ways)


def replica_counts(
    rows: Sequence[ProfileRow], fits: Callable[[Counter[str]], bool], taken: Counter[str] | None = None
) -> Iterator[tuple[int, ...]]:
    """Yields all combinations of replica counts, one count for each row, for which there are slices.

    Args:
        rows: Configurations, each with its kind of slice.
        fits: Returns True if there are so many slices of each kind.
        taken: Slices that are taken already; None for none.
    """
    if not rows:
        yield ()
        return
    count, taken = 0, taken if taken is not None else Counter()
    while fits(taken):
        for rest in replica_counts(rows[1:], fits, taken):
            yield (count, *rest)
        count, taken = count + 1, taken + Counter({rows[0].key.slice: 1})
