"""How long a task takes under load: instances that pull batches from one queue, at a quantile.

The queue is that of a task's dispatcher: an idle instance takes what waits, up to its batch, and never waits for more.
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
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.profiles.service import ServiceTime

Array = NDArray[Any]

PHASES = 7.0
"""As many instances as can be out of step with each other at most."""


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


@lru_cache(maxsize=64)
def latencies_ms(cases: tuple[Case, ...], quantile: float) -> tuple[float, ...]:
    """A quantile of a task's latency for one request, from when its rows are there until the last of them is done.

    Many cases at once take much less time than one by one: some 80 microseconds each.

    Args:
        cases: Independent of each other.
        quantile: In (0, 1).

    Returns:
        For each case; infinite where its load is 1 or more.
    """
    found = np.full(len(cases), math.inf)
    # Cases of one instance need fewer points than the others.
    for alone in (True, False):
        some = [i for i, c in enumerate(cases) if c.load < 1 and (c.instances == 1) == alone]
        if some:
            queues = _queues([cases[i] for i in some])
            ages = _V[:1] if alone else _V
            found[some] = np.concatenate(
                [_quantiles(queues.part(i), ages, 1 - quantile) for i in range(0, len(some), _CHUNK)]
            )
    return tuple(found.tolist())


@dataclass(frozen=True, slots=True)
class _Queues:
    """Arrays, an element a case.

    Attributes:
        servers: Instances.
        rows: A request.
        requests: A millisecond.
        batch: The largest.
        first: Rows of the batch that ends an idle spell.
        batches: Of one request.
        full_ms: Mean time of a full batch.
        mean: Of the rows that a pull finds, were there no limit to them.
        variance: Likewise.
        scatter: Coefficient of variation of a batch's time about its mean.
        busy: The probability that a request finds all instances busy.
        left: The probability that a pull leaves something behind.
        decay_ms: Mean time that it takes to work that off.
        factors: Case and point -> time of a batch over its mean.
        idle: Likewise, at more points: all that matters to a request that does not wait.
        offset: Where its times begin in `ms`.
        ms: Of all cases: mean time of a batch, by its size from 0 on.
    """

    servers: Array
    rows: Array
    requests: Array
    batch: Array
    first: Array
    batches: Array
    full_ms: Array
    mean: Array
    variance: Array
    scatter: Array
    busy: Array
    left: Array
    decay_ms: Array
    factors: Array
    idle: Array
    offset: Array
    ms: Array

    def part(self, start: int) -> "_Queues":
        """The cases of one chunk."""
        chunk = slice(start, start + _CHUNK)
        return _Queues(
            *(getattr(self, f.name) if f.name == "ms" else getattr(self, f.name)[chunk] for f in fields(self))
        )

    def took(self, size: Array) -> Array:
        """Mean time of batches of a size, which need not be whole; the first axis is that of the cases."""
        return _took(self.ms, self.offset, self.batch, size)


def _took(ms: Array, offset: Array, batch: Array, size: Array) -> Array:
    along = (-1, *(1,) * (size.ndim - 1))
    whole = size.astype(np.int32)
    at = whole + offset.reshape(along)
    low = ms[at]
    took: Array = low + (size - whole) * (ms[at + (whole < batch.reshape(along))] - low)
    return took


def _queues(cases: Sequence[Case]) -> _Queues:
    """What the cases' parts are, before they are put together."""
    times = {
        t: (whole := t.mean + t.rest, t.factors(_F) / whole, t.factors(_IDLE) / whole)
        for t in {c.time: None for c in cases}
    }
    tables = {time: time.medians_ms * whole for time, (whole, _, _) in times.items()}
    starts = dict(zip(tables, np.cumsum([0, *(len(t) for t in tables.values())]).tolist(), strict=False))
    ms = np.concatenate([*tables.values()])
    offset = np.array([starts[c.time] for c in cases])
    servers, load = np.array([c.instances for c in cases]), np.array([c.load for c in cases])
    rows = np.array([max(1.0, c.rows) for c in cases])
    batch = np.array([c.time.batch for c in cases])
    variation = np.array([c.time.variation for c in cases])
    full_ms, first = ms[offset + batch], np.minimum(rows, batch)
    requests = load * servers * batch / full_ms / rows
    batches = np.ceil(rows / batch)

    mean = first
    for _ in range(_STEPS):
        found = requests * _took(ms, offset, batch, mean) / servers
        mean = np.minimum(batch, rows * found + first * np.exp(-found))
    steepness = (full_ms - ms[offset + 1]) / np.maximum(batch - 1, 1)
    begets = np.minimum(_MOST_BEGOTTEN, requests * rows / servers * steepness)
    variance = (rows * mean + mean**2 * variation) / (1 - begets**2)
    busy = _busy(servers, load, batch <= rows, requests * _took(ms, offset, batch, first) * batches, batches)
    left = _left(load * batch, batch, rows, variation, mean, variance)
    decay_ms = rows * full_ms / (_root(load) * servers * batch) + variation * full_ms / (2 * servers * (1 - load))
    return _Queues(
        servers=servers,
        rows=rows,
        requests=requests,
        batch=batch,
        first=first,
        batches=batches,
        full_ms=full_ms,
        mean=mean,
        variance=variance,
        scatter=np.sqrt(variation),
        busy=busy,
        left=left,
        decay_ms=decay_ms,
        factors=np.array([times[c.time][1] for c in cases]),
        idle=np.array([times[c.time][2] for c in cases]),
        offset=offset,
        ms=ms,
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
    above = _cdf(-drift)
    left = np.where(drift > 2, above, 1 - _never_above(np.minimum(drift, 2.0)))
    shape = mean**2 / variance
    fills = _cdf((1 - 1 / (9 * shape) - (batch / mean) ** (1 / 3)) * 3 * np.sqrt(shape))
    seldom: Array = np.minimum(left, fills * left / np.maximum(fills * left + above * (1 - left), _TINY))
    return seldom


def _quantiles(q: _Queues, ages: Array, beyond: float) -> Array:
    """The latencies that are exceeded with this probability."""
    wait, own, weight = _pulls(q, ages)
    step_ms = (q.full_ms / q.servers)[:, None]
    mixed = _flat(wait[..., None] + own[..., None] * q.factors[:, None, None, None, None, :])
    weights = _flat(weight[..., None] * _F_WEIGHT * ((1 - q.left) * q.busy)[:, None, None, None, None, None])
    # Where something was left behind, fewer points do: the time to work that off blurs them. The own batch is full.
    late = (wait * weight).sum(axis=(1, 3)) / weight.sum(axis=(1, 3))
    behind = _flat(late[..., None] + (q.full_ms[:, None] * q.factors)[:, None, None, :])
    lagging = _flat(weight.sum(axis=(1, 3))[..., None] * _F_WEIGHT * (q.left * q.busy)[:, None, None, None])
    idle = q.took(q.first[:, None]) * q.idle + step_ms * (q.batches - 1)[:, None]
    idling = (1 - q.busy)[:, None] * _IDLE_WEIGHT
    decay = -1 / q.decay_ms[:, None]

    def exceeds(x: Array) -> Array:
        after = np.exp(np.maximum(x - behind, 0.0) * decay)
        some: Array = (
            (weights * (mixed > x)).sum(axis=1) + (lagging * after).sum(axis=1) + (idling * (idle > x)).sum(axis=1)
        )
        return some

    low = np.zeros((len(q.servers), 1))
    high = behind.max(axis=1, keepdims=True) + q.decay_ms[:, None] * math.log(1 / beyond)
    high = np.maximum(high, np.maximum(mixed.max(axis=1, keepdims=True), idle.max(axis=1, keepdims=True)))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        more = (exceeds(middle) > beyond)[:, None]
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    found: Array = high[:, 0]
    return found


def _pulls(q: _Queues, ages: Array) -> tuple[Array, Array, Array]:
    """Of a request that finds all busy: time to its pull, mean time of its batch, and the weight of each point.

    The axes are the cases, the batch that runs, the time to the next pull, the time since the last, what came in it.
    """

    def along(values: Array) -> Array:
        return values[:, None, None, None, None]

    running = _gamma(q.mean[:, None], (q.variance / q.servers)[:, None], _H)
    spread = np.maximum(1 + _H * (q.scatter / q.servers)[:, None], 0.3)
    cycle = q.took(np.clip(running, q.first[:, None], q.batch[:, None])) * spread
    phases = q.servers / (1 + (q.servers - 1) / PHASES)
    u, v = _U[:, None, None], ages[:, None]
    cycle_ = cycle[:, :, None, None, None]
    to_go = cycle_ * (1 - u ** (1 / along(phases)))
    age = cycle_ - to_go
    if len(ages) > 1:
        age = age * (1 - v ** (1 / (along(phases) - 1)))
    rows, batch, requests = along(q.rows), along(q.batch), along(q.requests)
    ahead = rows * _poisson(requests * age, _Z)
    behind = rows * np.floor(requests * to_go)
    further = np.floor((ahead + rows - 1) / batch)
    size = np.where(further > 0, batch, np.clip(ahead + rows + behind, along(q.first), batch))
    weight = (cycle * _H_WEIGHT / (cycle * _H_WEIGHT).sum(axis=1, keepdims=True))[:, :, None, None, None]
    wait = to_go + further * along(q.full_ms / q.servers)
    return wait, q.took(size), np.broadcast_to(weight * _Z_WEIGHT / (len(_U) * len(ages)), wait.shape)


def _flat(values: Array) -> Array:
    """A row a case. Single precision is more than enough here, and twice as fast."""
    rows: Array = values.reshape(len(values), -1).astype(np.float32)
    return rows


_CHUNK = 64
_STEPS, _HALVINGS = 25, 12
_MOST_BEGOTTEN = 0.9
_TINY = 1e-300


def _middles(count: int) -> Array:
    return (np.arange(count) + 0.5) / count


def _hermite(count: int) -> tuple[Array, Array]:
    """Points and weights of the Gauss-Hermite quadrature for a normal variable (Golub and Welsch)."""
    beside = np.sqrt(np.arange(1, count))
    points, vectors = np.linalg.eigh(np.diag(beside, 1) + np.diag(beside, -1))
    return points, vectors[0] ** 2


def _tail(count: int) -> tuple[Array, Array]:
    """Points and weights for a normal variable of which the upper end matters: each goes on where the last has left."""
    edges = np.concatenate([[1.0], np.geomspace(0.7, 0.0015, count - 1), [0.0]])
    middles = (edges[1:] + edges[:-1]) / 2
    return np.array([NormalDist().inv_cdf(1 - p) for p in middles.tolist()]), edges[:-1] - edges[1:]


_U, _V = _middles(10), _middles(2)
_Z, _Z_WEIGHT = _hermite(5)
_H, _H_WEIGHT = _hermite(3)
_F, _F_WEIGHT = _tail(6)
_IDLE, _IDLE_WEIGHT = _tail(40)


def _cdf(deviates: Array) -> Array:
    """The normal distribution function."""
    return np.array([math.erfc(-d / math.sqrt(2)) / 2 for d in deviates.tolist()])


def _gamma(mean: Array, variance: Array, deviates: Array) -> Array:
    """Quantiles of a gamma variable at normal deviates, after Wilson and Hilferty."""
    shape = np.maximum(mean**2 / variance, 0.1)
    roots: Array = np.maximum(0.0, 1 - 1 / (9 * shape) + deviates / (3 * np.sqrt(shape)))
    quantiles: Array = mean * roots**3
    return quantiles


def _poisson(mean: Array, deviates: Array) -> Array:
    """Quantiles of a Poisson variable at normal deviates, after Anscombe."""
    numbers: Array = np.floor((np.sqrt(mean + 0.375) + deviates / 2) ** 2 - 0.375 + 1e-9)
    return numbers


def _never_above(drift: Array) -> Array:
    """The probability that a Gaussian walk that drifts downwards, by so many deviations a step, never rises above 0."""
    exponent = drift * (-1.4603545 + 0.0346477 * drift**2) / math.sqrt(2 * math.pi)
    never: Array = math.sqrt(2) * drift * np.exp(exponent)
    return never


def _root(load: Array) -> Array:
    """The y above 0 at which (exp(y) - 1) / y = 1 / load, by Newton's method on the logarithms."""
    wanted = -np.log(load)
    y: Array = 2 * wanted
    for _ in range(8):
        y = y - (np.log(np.expm1(y) / y) - wanted) / (-1 / np.expm1(-y) - 1 / y)
    return y
