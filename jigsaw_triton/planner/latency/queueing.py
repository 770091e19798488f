"""Latency of a task under load, at a quantile: instances that pull batches from one queue.

The queue is the task's queue at the gateway. An idle instance takes the waiting rows, up to its largest batch, and
never waits for more. Requests arrive as a Poisson process, each with all of its rows at once. Let t(b) be the mean
service time of a batch of b rows, lambda the arrival rate in rows a second, r the rows of a request, c the number of
instances and B the largest batch. A request's latency consists of these parts:

- The batch that a pull finds, b = lambda t(b) / c + r exp(-lambda t(b) / (c r)): the arrivals between two pulls, or the
  request that ends an idle period. Its variance is that of a branching process in which each row of a batch has
  lambda t'(b) / c offspring in the next.
- The probability that all instances are busy; otherwise the request is served at once. For one instance it follows from
  the cycle of busy and idle periods, for more from Erlang's C formula, with batches keeping the queue from growing.
- The time to the next pull, the minimum of c times that are uniform on (0, t(b)). The rows that arrived since the last
  pull share the request's batch. If they fill it, the request waits for further pulls, t(B) / c apart.
- The backlog that earlier pulls left. The probability that there is one is derived from the maximum of a Gaussian
  random walk (Chang and Peres 1997, "Ladder heights, Gaussian random walks and the Riemann zeta function"). The time to
  work it off has the tail of the queue whose batches are always full, after Kingman.
- The service time of the request's own batch.

The joint distribution of the parts is a sum over a few quadrature points of each. Identical instances synchronise, the
more of them the stronger, and then pull at the same time: in the time to the next pull, c instances count as
c / (1 + (c - 1) / `PHASES`). That constant was fitted to simulations; `benchmarks.queueing` measures the error of the
whole model.
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
"""Largest number of instances that can be out of step with each other. Fitted to simulations."""

MOST_BATCHES = 20
"""Largest number of batches of one request for which the model computes the latency, as its distribution of the batch
that a pull finds is inaccurate beyond. The latency of a larger request is extrapolated in proportion to its rows, which
holds when its batches outnumber the instances. A convention."""


@dataclass(frozen=True, slots=True)
class Case:
    """A queue and its arrivals.

    Attributes:
        time: Service time of a batch.
        instances: Number of identical instances that pull from the queue.
        load: Arrival rate as a share, above 0, of the service rate of all instances with full batches.
        rows: Rows of a request; fewer than one count as one.
    """

    time: ServiceTime
    instances: int
    load: float
    rows: float = 1.0


def latencies_ms(cases: Sequence[Case], quantile: float) -> tuple[float, ...]:
    """Returns a quantile of a task's latency for one request, from its arrival until its last row is done.

    Args:
        cases: Queues, independent of each other.
        quantile: Quantile in (0, 1).

    Returns:
        Latency of each case in milliseconds; infinite if its load is 1 or more.
    """
    # Distinguish service times by identity: comparing them would take longer than computing equal ones twice.
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
    times: Sequence[ServiceTime], kind: Array, instances: Array, load: Array, rows: Array, quantile: float
) -> Array:
    """Returns the same as `latencies_ms` from arrays, shape [cases], at about 6 microseconds for each case.

    Args:
        times: Service times of a batch.
        kind: Index of each case's service time in `times`.
        instances: Number of instances of each case; see `Case`.
        load: Load of each case.
        rows: Rows of a request of each case.
        quantile: Quantile in (0, 1).
    """
    found = np.full(len(kind), math.inf)
    stable = np.flatnonzero(load < 1)
    if len(stable):
        # All parts have the same width, the last one is padded, and none has a single case: numpy sums a single column
        # in another order, and a case's latency would then depend on the number of other cases.
        parts = math.ceil(len(stable) / _PART)
        width = _LEAST_PART * math.ceil(len(stable) / parts / _LEAST_PART)
        padded = np.append(stable, np.full(parts * width - len(stable), stable[-1]))
        queues = _queues(times, kind[padded], instances[padded], load[padded], rows[padded])
        space = _Workspace(width)
        latencies = [_quantiles(queues.part(i, width), space, 1 - quantile) for i in range(0, len(padded), width)]
        batch = np.array([t.batch for t in times])[kind[stable]]
        scale = np.maximum(1.0, rows[stable] / (MOST_BATCHES * batch))
        found[stable] = np.concatenate(latencies)[: len(stable)] * scale
    return found


@dataclass(frozen=True, slots=True)
class _Times:
    """Tables of mean service times by batch size, one for each `ServiceTime`.

    Attributes:
        ms: Concatenated tables in milliseconds, each from batch size 0 to the largest.
        slope: Difference to the next size; 0 at the end of a table.
    """

    ms: Array
    slope: Array

    def took(self, size: Array, offset: Array) -> Array:
        """Returns the mean times of batches of these sizes, interpolated, from the tables that begin at `offset`."""
        whole = size.astype(np.intp)
        at = whole + offset
        took: Array = self.ms.take(at) + (size - whole) * self.slope.take(at)
        return took

    def took_in(self, size: Array, offset: Array, at: Array, took: Array) -> None:
        """Writes the result of `took` to `took`, without allocating memory; overwrites `size` and `at`."""
        np.copyto(at, np.floor(size, out=took), casting="unsafe")
        size -= took
        at += offset
        size *= self.slope.take(at, out=took, mode="clip")
        self.ms.take(at, out=took, mode="clip")
        took += size


@dataclass(frozen=True, slots=True)
class _Queues:
    """Parameters of the queues of many cases, as arrays whose last axis is that of the cases.

    Attributes:
        servers: Number of instances.
        rows: Rows of a request.
        requests: Arrival rate in requests a millisecond.
        batch: Largest batch.
        first: Rows of the batch that ends an idle period.
        first_ms: Mean service time of that batch.
        batches: Number of batches of one request.
        full_ms: Mean service time of a full batch.
        mean: Mean number of rows that a pull finds, at most a full batch.
        variance: Variance of the number of rows that a pull finds.
        scatter: Coefficient of variation of a batch's service time.
        busy: Probability that a request finds all instances busy.
        left: Probability that a pull leaves a backlog.
        decay_ms: Mean time to work off a backlog.
        factors: Service time of a batch over its mean, at the points `_F` and then `_IDLE`.
        offset: Start of the case's table in `times`.
        times: Tables of mean service times of all cases.
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
        """Returns the cases from `start` to `start + width`."""
        names = (f.name for f in fields(self) if f.name != "times")
        return _Queues(**{n: getattr(self, n)[..., start : start + width] for n in names}, times=self.times)


def _queues(kinds: Sequence[ServiceTime], kind: Array, servers: Array, load: Array, rows: Array) -> _Queues:
    """Computes the parameters of all cases, in single precision, which suffices from here on."""
    whole = np.array([t.mean + t.rest for t in kinds])
    # The logarithm of a factor is linear in the logarithms of its distribution's percentiles, see `ServiceTime`.
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
    offspring = np.minimum(_MAX_OFFSPRING, requests * rows / servers * steepness)
    variance = (rows * mean + mean**2 * variation) / (1 - offspring**2)
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
    """Returns the probability that a request finds all instances busy; it needs one for each batch of its rows.

    Args:
        servers: Number of instances.
        load: Load with full batches.
        full: True if a request alone fills a batch.
        took: Instance time that a request takes if none waits, times the arrival rate of requests.
        batches: Number of batches of a request.
    """
    together = np.maximum(1, servers // batches)
    each = np.where(full, load, took / together)
    waiting = np.where(full, each / (1 - load), each * (1 + each))
    # Erlang's B formula for all servers but one, by its recursion, as odds: the share of time that they are all busy if
    # nothing waits.
    odds = np.ones(len(servers))
    for j in range(1, int(together.max())):
        odds = np.where(j < together, 1 + odds * j / (each * together), odds)
    alone = np.where(full, load, 1 / (1 + np.exp(-took) / took))
    busy: Array = np.where(together == 1, alone, waiting / (odds + waiting))
    return busy


def _left(arrive: Array, batch: Array, rows: Array, variation: Array, mean: Array, variance: Array) -> Array:
    """Returns the probability that a pull leaves a backlog.

    It is that of the random walk whose batches are always full, reduced as the batch found is seldom full.

    Args:
        arrive: Rows that arrive for each instance in the service time of a full batch.
        batch: Largest batch.
        rows: Rows of a request.
        variation: Squared coefficient of variation of a batch's service time.
        mean: Mean number of rows that a pull finds.
        variance: Variance of the number of rows that a pull finds.
    """
    drift = (batch - arrive) / np.sqrt(rows * arrive + arrive**2 * variation)
    above = cdf(-drift)
    left = np.where(drift > 2, above, 1 - never_above(np.minimum(drift, 2.0)))
    shape = mean**2 / variance
    fills = cdf((1 - 1 / (9 * shape) - (batch / mean) ** (1 / 3)) * 3 * np.sqrt(shape))
    seldom: Array = np.minimum(left, fills * left / np.maximum(fills * left + above * (1 - left), _TINY))
    return seldom


class _Workspace:
    """Arrays that each part of the cases overwrites: allocating memory would take longer than the computation.

    The last axis is that of the cases. The first is that of `_U` and `_V`, along which all points have the same weight.
    Between them are one or more axes of points with different weights.

    Attributes:
        ahead: Rows that arrived since the last pull; see `_pulls` for the axes.
        wait: Time to the request's pull in milliseconds.
        own_ms: Mean service time of the request's own batch.
        at: Indices of `own_ms` in the tables of times.
        latency: Latency at the points without a backlog, or where the request does not wait for a pull.
        candidate: Candidate latency, repeated for all points of different weights.
        more: True where `latency` exceeds the candidate.
        late: Latency at the points with a backlog, without the time to work it off; later scaled by the mean of that
            time.
        after: Probability that the latency with a backlog exceeds the candidate.
        count: Number of points of one weight whose latency exceeds the candidate.
        sums: `count`, followed by the sums of `after`.
    """

    def __init__(self, width: int) -> None:
        pulls = (len(_U), len(_H), len(_Z), width)
        self.ahead, self.wait, self.own_ms = (np.empty(pulls, np.float32) for _ in range(3))
        self.at = np.empty(pulls, np.intp)
        weights, late_weights = len(_H) * len(_Z_F_WEIGHT) + len(_IDLE_WEIGHT), len(_Z_LATE_WEIGHT)
        self.latency = np.empty((len(_U), weights, width), np.float32)
        self.candidate = np.empty((weights, width), np.float32)
        self.more = np.empty(self.latency.shape, np.bool_)
        self.late = np.empty((len(_U), late_weights, width), np.float32)
        self.after = np.empty_like(self.late)
        self.count = np.empty((weights, width), np.uint8)
        self.sums = np.empty((weights + late_weights, width), np.float32)


def _quantiles(q: _Queues, space: _Workspace, beyond: float) -> Array:
    """Returns the latencies that are exceeded with probability `beyond`, by bisection."""
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
        space.candidate[:] = middle
        np.greater(space.latency, space.candidate, out=space.more)
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
    """Computes `latency` and `late`, and returns the weights of their points."""
    running = _pulls(q, space)
    factors, idle_factors = q.factors[: len(_F)], q.factors[len(_F) :]
    weights = len(_H) * len(_Z_F_WEIGHT)
    mixed = space.latency[:, :weights].reshape(*space.wait.shape[:-1], len(_F), -1)
    np.multiply(space.own_ms[..., None, :], factors, out=mixed)
    mixed += space.wait[..., None, :]
    idle = space.latency[:, weights:]
    np.multiply(q.first_ms, idle_factors.reshape(idle.shape), out=idle)
    idle += q.full_ms / q.servers * (q.batches - 1)
    # With a backlog, the random time to work it off dominates, so some points are replaced by their means. The
    # request's own batch is then full.
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
    """Computes `wait`, the time to its pull, and `own_ms`, its batch's mean time, for a request that finds all busy.

    The axes are: the times to the next and since the last pull, the batch that runs, the rows that arrived since
    (`ahead`), and the cases.

    Returns:
        Weight of each batch that may run.
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


_PART = 512
"""Largest number of cases in one pass. A convention."""

_LEAST_PART = 16
"""Multiple to which the number of cases in a pass is rounded up. A convention."""

_STEPS = 25
"""Fixed-point iterations for the mean batch that a pull finds. A convention."""

_HALVINGS = 11
"""Bisection steps for a quantile: the result is within 1 / 2048 of the largest latency considered. A convention."""

_MAX_OFFSPRING = 0.9
"""Largest mean offspring of a row in the branching process of batches; it keeps the variance finite. A convention."""

_TINY = 1e-300
"""Smallest divisor: it keeps 0 / 0 from becoming NaN. A convention."""

_LEAST_LOAD = 1e-6
"""Smallest load considered; less counts as this. Nothing waits at it anyway, and no power of it underflows. A
convention."""

_ALONE = 0.02
"""Number of other instances assumed next to a single one, because 0 could not be divided by. A convention."""


def _root(load: Array) -> Array:
    """Returns the y above 0 at which (exp(y) - 1) / y = 1 / load, by Newton's method on the logarithms."""
    wanted = -np.log(load)
    y: Array = 2 * wanted
    for _ in range(8):
        y = y - (np.log(np.expm1(y) / y) - wanted) / (-1 / np.expm1(-y) - 1 / y)
    return y


def _upright(values: Array) -> Array:
    """Returns points along the first axis, with a second axis for the cases."""
    return _single(values.reshape(-1, 1))


_SAME = 4
"""Number of points of equal weight along the first axis. A convention."""

# Uniform variables for the times to the next pull (_U) and since the last one (_V). They share an axis, in an order in
# which the lower and the upper half of _U each have both values of _V.
_U, _V = _upright(middles(_SAME)), _upright(np.array([0.25, 0.75, 0.75, 0.25]))
# Normal variables for the arrivals since the last pull (_Z), the batch that runs (_H), and the service time of the
# request's own batch if it waited (_F) or not (_IDLE).
_Z, _Z_WEIGHT = map(_upright, hermite(5))
_H, _H_WEIGHT = map(_upright, hermite(3))
_F, _F_WEIGHT = map(_upright, tail(6))
# With a backlog, neighbouring points of _F are merged.
_LATE_WEIGHT = _F_WEIGHT.reshape(3, -1).sum(axis=1, keepdims=True)
_Z_F_WEIGHT, _Z_LATE_WEIGHT = _upright(_Z_WEIGHT * _F_WEIGHT.T), _upright(_Z_WEIGHT * _LATE_WEIGHT.T)
_IDLE, _IDLE_WEIGHT = map(_upright, halves(11, _SAME))
# Logarithm of the service time over its median at these points, for each unit of log(p99) and of log(p95).
_BOTH = np.concatenate([_F, _IDLE])
_PER_P99 = np.log(ServiceTime((1,), (1.0,), 1.0, math.e).factors(_BOTH))
_PER_P95 = np.log(ServiceTime((1,), (1.0,), math.e, math.e).factors(_BOTH)) - _PER_P99
