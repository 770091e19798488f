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
from dataclasses import dataclass

import numpy as np

from jigsaw_triton.planner.latency.points import (
    F_WEIGHT,
    H_WEIGHT,
    IDLE_WEIGHT,
    LATE_WEIGHT,
    Z_F_WEIGHT,
    Z_LATE_WEIGHT,
    Array,
    F,
    H,
    U,
    V,
    Z,
)
from jigsaw_triton.planner.latency.quadrature import gamma_quantiles, poisson_quantiles
from jigsaw_triton.planner.latency.queues import MOST_BATCHES, Queues, queues_of
from jigsaw_triton.profiles.service import ServiceTime

PHASES = 7.0
"""Largest number of instances that can be out of step with each other. Fitted to simulations."""

_PART = 512
"""Largest number of cases in one pass. A convention."""

_LEAST_PART = 16
"""Multiple to which the number of cases in a pass is rounded up. A convention."""

_HALVINGS = 11
"""Bisection steps for a quantile: the result is within 1 / 2048 of the largest latency considered. A convention."""

_ALONE = 0.02
"""Number of other instances assumed next to a single one, because 0 could not be divided by. A convention."""


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
        queues = queues_of(times, kind[padded], instances[padded], load[padded], rows[padded])
        space = _Workspace(width)
        latencies = [_quantiles(queues.part(i, width), space, 1 - quantile) for i in range(0, len(padded), width)]
        batch = np.array([t.batch for t in times])[kind[stable]]
        scale = np.maximum(1.0, rows[stable] / (MOST_BATCHES * batch))
        found[stable] = np.concatenate(latencies)[: len(stable)] * scale
    return found


class _Workspace:
    """Arrays that each part of the cases overwrites: allocating memory would take longer than the computation.

    The last axis is that of the cases. The first is that of `U` and `V`, along which all points have the same weight.
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
        pulls = (len(U), len(H), len(Z), width)
        self.ahead, self.wait, self.own_ms = (np.empty(pulls, np.float32) for _ in range(3))
        self.at = np.empty(pulls, np.intp)
        weights, late_weights = len(H) * len(Z_F_WEIGHT) + len(IDLE_WEIGHT), len(Z_LATE_WEIGHT)
        self.latency = np.empty((len(U), weights, width), np.float32)
        self.candidate = np.empty((weights, width), np.float32)
        self.more = np.empty(self.latency.shape, np.bool_)
        self.late = np.empty((len(U), late_weights, width), np.float32)
        self.after = np.empty_like(self.late)
        self.count = np.empty((weights, width), np.uint8)
        self.sums = np.empty((weights + late_weights, width), np.float32)


def _quantiles(q: Queues, space: _Workspace, beyond: float) -> Array:
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


def _points(q: Queues, space: _Workspace) -> Array:
    """Computes `latency` and `late`, and returns the weights of their points."""
    running = _pulls(q, space)
    factors, idle_factors = q.factors[: len(F)], q.factors[len(F) :]
    weights = len(H) * len(Z_F_WEIGHT)
    mixed = space.latency[:, :weights].reshape(*space.wait.shape[:-1], len(F), -1)
    np.multiply(space.own_ms[..., None, :], factors, out=mixed)
    mixed += space.wait[..., None, :]
    idle = space.latency[:, weights:]
    np.multiply(q.first_ms, idle_factors.reshape(idle.shape), out=idle)
    idle += q.full_ms / q.servers * (q.batches - 1)
    # With a backlog, the random time to work it off dominates, so some points are replaced by their means. The
    # request's own batch is then full.
    late = space.late.reshape(len(U), len(Z), len(LATE_WEIGHT), -1)
    mean_wait = np.multiply(space.wait, running[:, None], out=space.ahead).sum(axis=1)
    late_factors = (factors * F_WEIGHT).reshape(len(LATE_WEIGHT), -1, factors.shape[-1]).sum(axis=1) / LATE_WEIGHT
    np.add(mean_wait[:, :, None], q.full_ms * late_factors, out=late)
    parts = [
        (running[:, None] * Z_F_WEIGHT).reshape(weights, -1) * ((1 - q.left) * q.busy),
        IDLE_WEIGHT * (1 - q.busy),
        Z_LATE_WEIGHT * (q.left * q.busy),
    ]
    weight: Array = np.concatenate(parts) / len(U)
    return weight


def _pulls(q: Queues, space: _Workspace) -> Array:
    """Computes `wait`, the time to its pull, and `own_ms`, its batch's mean time, for a request that finds all busy.

    The axes are: the times to the next and since the last pull, the batch that runs, the rows that arrived since
    (`ahead`), and the cases.

    Returns:
        Weight of each batch that may run.
    """
    running = np.clip(gamma_quantiles(q.mean, q.variance / q.servers, H), q.first, q.batch)
    cycle = q.times.took(running, q.offset) * np.maximum(1 + H * (q.scatter / q.servers), 0.3)
    phases = q.servers / (1 + (q.servers - 1) / PHASES)
    to_go = cycle * (1 - U ** (1 / phases))[:, None]
    age = (cycle - to_go) * (1 - V ** (1 / np.maximum(phases - 1, _ALONE)))[:, None]
    ahead, wait = poisson_quantiles((q.requests * age)[:, :, None], Z, space.ahead), space.wait
    ahead *= q.rows
    np.add(ahead, q.rows - 1, out=wait)
    wait /= q.batch
    np.floor(wait, out=wait)
    wait *= q.full_ms / q.servers
    wait += to_go[:, :, None]
    size = np.add(ahead, (q.rows * (1 + np.floor(q.requests * to_go)))[:, :, None], out=ahead)
    np.clip(size, q.first, q.batch, out=size)
    q.times.took_in(size, q.offset, space.at, space.own_ms)
    share = cycle * H_WEIGHT
    weight: Array = share / share.sum(axis=0)
    return weight
