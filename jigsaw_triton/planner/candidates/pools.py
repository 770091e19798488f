"""Pools of shared slices, and the packing of configurations into the slices of a pool.

The program requires that the cycle, load and memory of a pool's models fit its slices in total, and adds cuts from dual
feasible functions (Fekete and Schepers 2001, "New classes of fast lower bounds for bin packing problems") that partly
account for the packing into single slices. If a solution still cannot be packed, a further cut excludes it and the
program is solved again.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from jigsaw_triton.planner.candidates.chains import Link, called_with_ms, together
from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.candidates.packing import packed
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR, ROUNDING

_SIZES = range(1, 7)
"""Parameters k of the dual feasible functions used; see `_weight`. A convention."""


@dataclass(frozen=True, slots=True, order=True)
class Pool:
    """Shared slices that are interchangeable: model of GPU, kind of slice, and maximum cycle."""

    board: str
    slice: str
    cycle_ms: float


@dataclass(frozen=True, slots=True)
class SharedSlice:
    """A shared slice and the configurations that share it, sorted."""

    board: str
    slice: str
    configurations: tuple[Configuration, ...]

    @property
    def compute_slices(self) -> int:
        """Compute slices of the slice."""
        return self.configurations[0].compute_slices

    @property
    def cost(self) -> int:
        """Cost of the slice in whole units."""
        return self.configurations[0].cost


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut: these configurations together need at least `slices` slices of their pool."""

    pool: Pool
    configurations: frozenset[Configuration]
    slices: int


def weights(c: Configuration) -> tuple[float, ...]:
    """Returns measures of a configuration's size; each adds up to at most 1 over the configurations in a slice."""
    return tuple(_weight(part, k) for part in (c.turn.cycle, c.turn.load, c.turn.memory) for k in (0, *_SIZES))


def _weight(part: float, k: int) -> float:
    """Returns a dual feasible function of a share: for k = 0 the share, else steps at multiples of 1 / (k + 1)."""
    if k == 0:
        return part
    times = (k + 1) * part
    if abs(times - round(times)) < ROUNDING:
        return part
    return math.floor(times) / k


def pool_of(c: Configuration) -> Pool:
    """Returns the pool of a configuration that shares a slice."""
    return Pool(c.board, c.slice, c.turn.cycle_ms)


@dataclass(frozen=True, slots=True)
class Fitting:
    """A packing of configurations into shared slices.

    Attributes:
        slices: Slices with their configurations.
        needed: Pool -> number of slices used, for pools that need more than there are.
        cuts: Proven lower bounds for those pools.
    """

    slices: tuple[SharedSlice, ...]
    needed: Mapping[Pool, int]
    cuts: tuple[Cut, ...]


def fitting(
    counts: Iterable[Configuration],
    pools: Mapping[Pool, int],
    links: Collection[Link] = (),
    apart: Callable[[Configuration], Sequence[Configuration]] = lambda c: (c,),
) -> Fitting:
    """Packs configurations into shared slices.

    Args:
        counts: Configurations with one replica each; those that do not share a slice are ignored.
        pools: Pool -> number of slices.
        links: Tasks that are called together if they are in one slice.
        apart: Function that splits a fused chain's configuration into those of its tasks.
    """
    within: dict[Pool, list[Configuration]] = {}
    for c in sorted(counts):
        if c.shares:
            within.setdefault(pool_of(c), []).append(c)
    made: list[SharedSlice] = []
    needed: dict[Pool, int] = {}
    cuts: list[Cut] = []
    for pool, found in sorted(within.items()):
        parts = [(c.turn.cycle, c.turn.load, c.turn.memory) for c in found]
        number = proven = pools[pool]
        while not (bins := packed(parts, number)):
            if bins is not None and proven == number:
                proven += 1
            number += 1
        bins = together(found, bins, links)
        made += [_slice(pool, [part for i in inside for part in apart(found[i])], links) for inside in bins]
        if number > pools[pool]:
            needed[pool] = number
        if proven > pools[pool]:
            cuts.append(Cut(pool, frozenset(found), proven))
    return Fitting(tuple(made), needed, tuple(cuts))


def _slice(pool: Pool, inside: Sequence[Configuration], links: Collection[Link]) -> SharedSlice:
    """Makes a shared slice, with each configuration's latency by the slice's actual cycle, and its usable throughput.

    Configurations that are called together do not wait for each other, because they form one batch.
    """
    cycle_ms = sum(c.turn.ms for c in inside)
    load = sum(c.turn.load for c in inside)
    others_ms = called_with_ms(inside, links)
    settled = (
        replace(
            c,
            latency_ms=c.turn.latency_ms(cycle_ms - with_it_ms),
            throughput_rps=c.throughput_rps / max(load, FLOAT_ERROR),
            turn=replace(c.turn, cycle_ms=cycle_ms),
        )
        for c, with_it_ms in zip(inside, others_ms, strict=True)
    )
    return SharedSlice(pool.board, pool.slice, tuple(sorted(settled)))
