"""How long a task takes under load: instances that pull batches from one queue, at a quantile.

The queue is a task's at the gateway: an idle instance takes what waits, up to its batch, and never waits for more.
Requests come as a Poisson process, each with all of its rows at once. With t(b) the mean time of a batch of b, lambda
the rows a second, r the rows a request and c instances, a request's latency is put together from:

- The batch that a pull finds, b = lambda t(b) / c + r exp(-lambda t(b) / (c r)): what comes between two pulls, or the
  request that ends an idle spell. Its spread is that of a population in which each row of a batch begets
  lambda t'(b) / c rows of the next.
- Whether all instances are busy, else it is served at once: for one instance from the cycle of busy and idle, for more
  by Erlang's C, where batches keep the queue from growing.
- The time to the next pull, the least of c times that are uniform on (0, t(b)); the rows that came before it since the
  last pull make up its own batch, and where they fill it, it waits for further pulls, t(B) / c apart.
- What earlier pulls had to leave: there is something with a probability that begins from the maximum of a Gaussian
  random walk (Chang and Peres 1997, "Ladder heights, Gaussian random walks and the Riemann zeta function"), and lasts
  for a time whose tail decays as that of the queue with batches always full, after Kingman.
- The time of its own batch.

The parts' joint distribution is a sum over a few points of each. Instances that are alike fall into step, the more of
them the more, and then pull together: c instances count as c / (1 + (c - 1) / `PHASES`) in the time to the next pull.
That constant was fitted to simulations; `benchmarks.queueing` measures how far off the whole is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.planner.latency.quadrature import (
    cdf,
    gamma_quantiles,
    halves,
    hermite,
    middles,
    never_above,
    poisson_quantiles,
    tail,
)
from jigsaw_triton.profiles.service import ServiceTime

Array = NDArray[Any]

PHASES = 7.0
"""As many instances as can be out of step with each other at most."""


MOST_BATCHES = 20
"""That a request's rows may make: the distribution of what a pull finds is no good for more of them. A request of more
takes as many times as long as one of so many, as it does where they outnumber the instances."""


@dataclass(frozen=True, slots=True)
class Case:
    """A queue, and what comes to it.

    Attributes:
        time: Of a batch.
        instances: That pull from the queue, all alike.
        load: Share, above 0, that arrivals are of what the instances do with full batches.
        rows: Of a request; fewer than one count as one.
    """

    time: ServiceTime
    instances: int
    load: float
    rows: float = 1.0


def latencies_ms(cases: Sequence[Case], quantile: float) -> tuple[float, ...]:
    """A quantile of a task's latency for one request, from when its rows are there until the last of them is done.

    Args:
        cases: Independent of each other.
        quantile: In (0, 1).

    Returns:
        For each case; infinite where its load is 1 or more.
    """
    # By identity: to look for times that are equal would take longer than to treat them twice.
    times = {id(c.time): c.time for c in cases}
    number = dict(zip(times, range(len(times)), strict=True))
    found = many_latencies_ms(
        tuple(times.values()),
        np.array([number[id(c.time)] for c in cases], np.intp),
        np.array([c.instances for c in cases]),
        np.array([c.load for c in cases]),
        np.array([c.rows for c in cases]),
        quantile,
    )
    return tuple(found.tolist())


def many_latencies_ms(
    times: Sequence[ServiceTime], of: Array, instances: Array, load: Array, rows: Array, quantile: float
) -> Array:
    """As `latencies_ms`; many cases at once take much less time than one by one: some 6 microseconds each.

    Args:
        times: Of a batch.
        of: Of each case which of these times are its own.
        instances: Of each case, see `Case`.
        load: Likewise.
        rows: Likewise.
        quantile: In (0, 1).
    """
    found = np.full(len(of), math.inf)
    some = np.flatnonzero(load < 1)
    if len(some):
        # Parts are alike, the last is filled up, and none is of one case: over a single column numpy would add up in
        # another order, and a case's latency would depend on how many others there are.
        parts = math.ceil(len(some) / _PART)
        width = _LEAST_PART * math.ceil(len(some) / parts / _LEAST_PART)
        filled = np.append(some, np.full(parts * width - len(some), some[-1]))
        queues = _queues(times, of[filled], instances[filled], load[filled], rows[filled])
        space = _Workspace(width)
        latencies = [_quantiles(queues.part(i, width), space, 1 - quantile) for i in range(0, len(filled), width)]
        batch = np.array([t.batch for t in times])[of[some]]
        found[some] = np.concatenate(latencies)[: len(some)] * np.maximum(1.0, rows[some] / (MOST_BATCHES * batch))
    return found


@dataclass(frozen=True, slots=True)
class _Times:
    """Mean times of a batch, of all cases.

    Attributes:
        ms: One table after the other, by the batch's size from 0 on.
        slope: To the time of the next size; 0 at a table's end.
    """

    ms: Array
    slope: Array

    def took(self, size: Array, offset: Array) -> Array:
        """Of batches of a size, which need not be whole, by the tables that begin at `offset`."""
        whole = size.astype(np.intp)
        at = whole + offset
        took: Array = self.ms.take(at) + (size - whole) * self.slope.take(at)
        return took

    def took_in(self, size: Array, offset: Array, at: Array, took: Array) -> None:
        """The same without fresh memory; `size` and `at` are used up."""
        np.copyto(at, np.floor(size, out=took), casting="unsafe")
        size -= took
        at += offset
        size *= self.slope.take(at, out=took, mode="clip")
        self.ms.take(at, out=took, mode="clip")
        took += size


@dataclass(frozen=True, slots=True)
class _Queues:
    """Arrays, the last axis that of the cases.

    Attributes:
        servers: Instances.
        rows: A request.
        requests: A millisecond.
        batch: The largest.
        first: Rows of the batch that ends an idle spell.
        first_ms: Mean time of that.
        batches: Of one request.
        full_ms: Mean time of a full batch.
        mean: Of the rows that a pull finds, were there no limit to them.
        variance: Likewise.
        scatter: Coefficient of variation of a batch's time about its mean.
        busy: The probability that a request finds all instances busy.
        left: The probability that a pull leaves something behind.
        decay_ms: Mean time that it takes to work that off.
        factors: Time of a batch over its mean, at the points `_F` and then `_IDLE`.
        offset: Where its table begins in `times`.
        times: Of all cases.
    """

    servers: Array
    rows: Array
    requests: Array
    batch: Array
    first: Array
    first_ms: Array
    batches: Array
    full_ms: Array
    mean: Array
    variance: Array
    scatter: Array
    busy: Array
    left: Array
    decay_ms: Array
    factors: Array
    offset: Array
    times: _Times

    def part(self, start: int, width: int) -> "_Queues":
        """Some of the cases."""
        names = (f.name for f in fields(self) if f.name != "times")
        return _Queues(**{n: getattr(self, n)[..., start : start + width] for n in names}, times=self.times)


def _queues(kinds: Sequence[ServiceTime], kind: Array, servers: Array, load: Array, rows: Array) -> _Queues:
    """What the cases' parts are, before they are put together: in single precision, which is more than enough there."""
    whole = np.array([t.mean + t.rest for t in kinds])
    # A factor's logarithm is linear in those of its distribution's percentiles, see `ServiceTime`.
    p95, p99 = (np.log(values) for values in zip(*((t.p95, t.p99) for t in kinds), strict=True))
    factors = np.exp(_PER_P95 * p95 + _PER_P99 * p99) / whole
    medians_ms = [t.medians_ms for t in kinds]
    lengths = np.array([len(table) for table in medians_ms])
    ends = np.cumsum(lengths)
    ms = np.concatenate(medians_ms) * np.repeat(whole, lengths)
    slope = np.append(np.diff(ms), 0.0)
    slope[ends - 1] = 0.0
    times, offset = _Times(ms, slope), (ends - lengths)[kind]
    variation = np.array([t.variation for t in kinds])[kind]

    load, batch = np.maximum(_LEAST_LOAD, load), (lengths - 1)[kind]
    rows = np.minimum(np.maximum(1.0, rows), MOST_BATCHES * batch)
    full_ms, first = ms[offset + batch], np.minimum(rows, batch)
    requests = load * servers * batch / full_ms / rows
    batches = np.ceil(rows / batch)

    mean = first
    for _ in range(_STEPS):
        found = requests * times.took(mean, offset) / servers
        mean = np.minimum(batch, rows * found + first * np.exp(-found))
    steepness = (full_ms - ms[offset + 1]) / np.maximum(batch - 1, 1)
    begets = np.minimum(_MOST_BEGOTTEN, requests * rows / servers * steepness)
    variance = (rows * mean + mean**2 * variation) / (1 - begets**2)
    first_ms = times.took(first, offset)
    decay_ms = rows * full_ms / (_root(load) * servers * batch) + variation * full_ms / (2 * servers * (1 - load))
    return _Queues(
        servers=_single(servers),
        rows=_single(rows),
        requests=_single(requests),
        batch=_single(batch),
        first=_single(first),
        first_ms=_single(first_ms),
        batches=_single(batches),
        full_ms=_single(full_ms),
        mean=_single(mean),
        variance=_single(variance),
        scatter=_single(np.sqrt(variation)),
        busy=_single(_busy(servers, load, batch <= rows, requests * first_ms * batches, batches)),
        left=_single(_left(load * batch, batch, rows, variation, mean, variance)),
        decay_ms=_single(decay_ms),
        factors=_single(factors).take(kind, axis=1),
        offset=offset,
        times=_Times(_single(ms), _single(slope)),
    )


def _busy(servers: Array, load: Array, full: Array, took: Array, batches: Array) -> Array:
    """The probability that a request finds all instances busy; it takes one for each batch that its rows make.

    Args:
        servers: Instances.
        load: Of full batches.
        full: Whether a request alone fills a batch.
        took: What a request takes of one instance where none waits, times requests a millisecond.
        batches: Of a request.
    """
    together = np.maximum(1, servers // batches)
    each = np.where(full, load, took / together)
    waiting = np.where(full, each / (1 - load), each * (1 + each))
    # Erlang's B of all but one, by its recursion: the share of time that they are busy where nothing waits.
    odds = np.ones(len(servers))
    for j in range(1, int(together.max())):
        odds = np.where(j < together, 1 + odds * j / (each * together), odds)
    alone = np.where(full, load, 1 / (1 + np.exp(-took) / took))
    busy: Array = np.where(together == 1, alone, waiting / (odds + waiting))
    return busy


def _left(arrive: Array, batch: Array, rows: Array, variation: Array, mean: Array, variance: Array) -> Array:
    """The probability that a pull leaves something behind.

    That of the walk with batches always full, less as the batch found is seldom full.

    Args:
        arrive: Rows in the time of a full batch, over instances.
        batch: The largest.
        rows: Of a request.
        variation: Squared coefficient of variation of a batch's time.
        mean: Of the rows that a pull finds.
        variance: Likewise.
    """
    drift = (batch - arrive) / np.sqrt(rows * arrive + arrive**2 * variation)
    above = cdf(-drift)
    left = np.where(drift > 2, above, 1 - never_above(np.minimum(drift, 2.0)))
    shape = mean**2 / variance
    fills = cdf((1 - 1 / (9 * shape) - (batch / mean) ** (1 / 3)) * 3 * np.sqrt(shape))
    seldom: Array = np.minimum(left, fills * left / np.maximum(fills * left + above * (1 - left), _TINY))
    return seldom


class _Workspace:
    """Arrays that each part of the cases fills anew: fresh memory would take longer than what is done in it.

    The last axis is that of the cases, the first that of `_U` and `_V`, along which points weigh the same. Between
    them are one or more axes of points of different weight.

    Attributes:
        ahead: As in `_pulls`, where some axes are explained.
        wait: Likewise.
        own_ms: Likewise.
        at: Where in the tables of times `own_ms` is found.
        latency: At the points where earlier pulls left nothing behind, or the request waits for none.
        asked: A latency, for all points of different weight.
        more: Whether `latency` is more.
        late: At the points where they did: the latency without the time that it takes to work that off, or that over
            the mean of that time.
        after: The probability that with that time it is more.
        count: How many are more, of points of one weight.
        sums: Likewise, and then of `after`.
    """

    def __init__(self, width: int) -> None:
        pulls = (len(_U), len(_H), len(_Z), width)
        self.ahead, self.wait, self.own_ms = (np.empty(pulls, np.float32) for _ in range(3))
        self.at = np.empty(pulls, np.intp)
        weights, late_weights = len(_H) * len(_Z_F_WEIGHT) + len(_IDLE_WEIGHT), len(_Z_LATE_WEIGHT)
        self.latency = np.empty((len(_U), weights, width), np.float32)
        self.asked = np.empty((weights, width), np.float32)
        self.more = np.empty(self.latency.shape, np.bool_)
        self.late = np.empty((len(_U), late_weights, width), np.float32)
        self.after = np.empty_like(self.late)
        self.count = np.empty((weights, width), np.uint8)
        self.sums = np.empty((weights + late_weights, width), np.float32)


def _quantiles(q: _Queues, space: _Workspace, beyond: float) -> Array:
    """The latencies that are exceeded with this probability."""
    weight = _points(q, space)
    often = q.left * q.busy / beyond
    latest = np.where(often > 1, space.late.max(axis=(0, 1)) + q.decay_ms * np.log(np.maximum(often, 1)), 0)
    step = np.maximum(space.latency.max(axis=(0, 1)), latest)
    low, rate = np.zeros_like(step), -1 / q.decay_ms
    space.late *= rate
    count, after = np.split(space.sums, [len(space.count)])
    for _ in range(_HALVINGS):
        step = step / 2
        middle = low + step
        space.asked[:] = middle
        np.greater(space.latency, space.asked, out=space.more)
        np.add.reduce(space.more.view(np.uint8), axis=0, out=space.count)
        count[:] = space.count
        np.subtract(middle * rate, space.late, out=space.after)
        np.minimum(space.after, 0, out=space.after)
        np.exp(space.after, out=space.after)
        np.add.reduce(space.after, axis=0, out=after)
        space.sums *= weight
        low = np.where(np.add.reduce(space.sums, axis=0) > beyond, middle, low)
    found: Array = low + step
    return found


def _points(q: _Queues, space: _Workspace) -> Array:
    """Fills in `latency` and `late`, and returns the weights of their points."""
    running = _pulls(q, space)
    factors, idle_factors = q.factors[: len(_F)], q.factors[len(_F) :]
    weights = len(_H) * len(_Z_F_WEIGHT)
    mixed = space.latency[:, :weights].reshape(*space.wait.shape[:-1], len(_F), -1)
    np.multiply(space.own_ms[..., None, :], factors, out=mixed)
    mixed += space.wait[..., None, :]
    idle = space.latency[:, weights:]
    np.multiply(q.first_ms, idle_factors.reshape(idle.shape), out=idle)
    idle += q.full_ms / q.servers * (q.batches - 1)
    # Where something was left behind, means over some points do: the time to work that off blurs them. The own batch
    # is full.
    late = space.late.reshape(len(_U), len(_Z), len(_LATE_WEIGHT), -1)
    mean_wait = np.multiply(space.wait, running[:, None], out=space.ahead).sum(axis=1)
    late_factors = (factors * _F_WEIGHT).reshape(len(_LATE_WEIGHT), -1, factors.shape[-1]).sum(axis=1) / _LATE_WEIGHT
    np.add(mean_wait[:, :, None], q.full_ms * late_factors, out=late)
    parts = [
        (running[:, None] * _Z_F_WEIGHT).reshape(weights, -1) * ((1 - q.left) * q.busy),
        _IDLE_WEIGHT * (1 - q.busy),
        _Z_LATE_WEIGHT * (q.left * q.busy),
    ]
    weight: Array = np.concatenate(parts) / len(_U)
    return weight


def _pulls(q: _Queues, space: _Workspace) -> Array:
    """Of a request that finds all busy: fills in `wait`, the time to its pull, and `own_ms`, its batch's mean time.

    The axes are the time to the next pull and since the last, the batch that runs, what came since (`ahead`), the
    cases.

    Returns:
        The weight of each batch that may run.
    """
    running = np.clip(gamma_quantiles(q.mean, q.variance / q.servers, _H), q.first, q.batch)
    cycle = q.times.took(running, q.offset) * np.maximum(1 + _H * (q.scatter / q.servers), 0.3)
    phases = q.servers / (1 + (q.servers - 1) / PHASES)
    to_go = cycle * (1 - _U ** (1 / phases))[:, None]
    age = (cycle - to_go) * (1 - _V ** (1 / np.maximum(phases - 1, _ALONE)))[:, None]
    ahead, wait = poisson_quantiles((q.requests * age)[:, :, None], _Z, space.ahead), space.wait
    ahead *= q.rows
    np.add(ahead, q.rows - 1, out=wait)
    wait /= q.batch
    np.floor(wait, out=wait)
    wait *= q.full_ms / q.servers
    wait += to_go[:, :, None]
    size = np.add(ahead, (q.rows * (1 + np.floor(q.requests * to_go)))[:, :, None], out=ahead)
    np.clip(size, q.first, q.batch, out=size)
    q.times.took_in(size, q.offset, space.at, space.own_ms)
    share = cycle * _H_WEIGHT
    weight: Array = share / share.sum(axis=0)
    return weight


def _single(values: Array) -> Array:
    return values.astype(np.float32)


_PART, _LEAST_PART = 512, 16
_STEPS, _HALVINGS = 25, 11
_MOST_BEGOTTEN = 0.9
_TINY = 1e-300
_LEAST_LOAD = 1e-6
"""Less is taken for that: nothing waits anyway, and no power of it is too small to divide by."""
_ALONE = 0.02
"""So many other instances beside a single one: by none of them nothing could be divided."""


def _root(load: Array) -> Array:
    """The y above 0 at which (exp(y) - 1) / y = 1 / load, by Newton's method on the logarithms."""
    wanted = -np.log(load)
    y: Array = 2 * wanted
    for _ in range(8):
        y = y - (np.log(np.expm1(y) / y) - wanted) / (-1 / np.expm1(-y) - 1 / y)
    return y


def _upright(values: Array) -> Array:
    """Points along the first axis, beside that of the cases."""
    return _single(values.reshape(-1, 1))


_SAME = 4
"""Points of one weight along the first axis."""

# Each value of _U goes with one of _V, in an order that has either of these wherever those are.
_U, _V = _upright(middles(_SAME)), _upright(np.array([0.25, 0.75, 0.75, 0.25]))
_Z, _Z_WEIGHT = map(_upright, hermite(5))
_H, _H_WEIGHT = map(_upright, hermite(3))
_F, _F_WEIGHT = map(_upright, tail(6))
_LATE_WEIGHT = _F_WEIGHT.reshape(3, -1).sum(axis=1, keepdims=True)
_Z_F_WEIGHT, _Z_LATE_WEIGHT = _upright(_Z_WEIGHT * _F_WEIGHT.T), _upright(_Z_WEIGHT * _LATE_WEIGHT.T)
_IDLE, _IDLE_WEIGHT = map(_upright, halves(11, _SAME))
_BOTH = np.concatenate([_F, _IDLE])
_PER_P99 = np.log(ServiceTime((1,), (1.0,), 1.0, math.e).factors(_BOTH))
_PER_P95 = np.log(ServiceTime((1,), (1.0,), math.e, math.e).factors(_BOTH)) - _PER_P99
