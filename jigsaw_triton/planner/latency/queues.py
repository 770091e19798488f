"""Parameters of the queueing model (`planner.latency.queueing`), computed for many queues at once."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from jigsaw_triton.planner.latency.points import PER_P95, PER_P99, Array, single
from jigsaw_triton.planner.latency.quadrature import cdf, never_above
from jigsaw_triton.profiles.service import ServiceTime

MOST_BATCHES = 20
"""Largest number of batches of one request for which the model computes the latency, as its distribution of the batch
that a pull finds is inaccurate beyond. The latency of a larger request is extrapolated in proportion to its rows, which
holds when its batches outnumber the instances. A convention."""

_STEPS = 25
"""Fixed-point iterations for the mean batch that a pull finds. A convention."""

_MAX_OFFSPRING = 0.9
"""Largest mean offspring of a row in the branching process of batches; it keeps the variance finite. A convention."""

_TINY = 1e-300
"""Smallest divisor: it keeps 0 / 0 from becoming NaN. A convention."""

_LEAST_LOAD = 1e-6
"""Smallest load considered; less counts as this. Nothing waits at it anyway, and no power of it underflows. A
convention."""


@dataclass(frozen=True, slots=True)
class ServiceTables:
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
class Queues:
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
        factors: Service time of a batch over its mean, at the points `F` and then `IDLE`.
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
    times: ServiceTables

    def part(self, start: int, width: int) -> "Queues":
        """Returns the cases from `start` to `start + width`."""
        names = (f.name for f in fields(self) if f.name != "times")
        return Queues(**{n: getattr(self, n)[..., start : start + width] for n in names}, times=self.times)


def queues_of(kinds: Sequence[ServiceTime], kind: Array, servers: Array, load: Array, rows: Array) -> Queues:
    """Computes the parameters of all cases, in single precision, which suffices from here on."""
    whole = np.array([t.mean + t.rest for t in kinds])
    # The logarithm of a factor is linear in the logarithms of its distribution's percentiles, see `ServiceTime`.
    p95, p99 = (np.log(values) for values in zip(*((t.p95, t.p99) for t in kinds), strict=True))
    factors = np.exp(PER_P95 * p95 + PER_P99 * p99) / whole
    medians_ms = [t.medians_ms for t in kinds]
    lengths = np.array([len(table) for table in medians_ms])
    ends = np.cumsum(lengths)
    ms = np.concatenate(medians_ms) * np.repeat(whole, lengths)
    slope = np.append(np.diff(ms), 0.0)
    slope[ends - 1] = 0.0
    times, offset = ServiceTables(ms, slope), (ends - lengths)[kind]
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
    return Queues(
        servers=single(servers),
        rows=single(rows),
        requests=single(requests),
        batch=single(batch),
        first=single(first),
        first_ms=single(first_ms),
        batches=single(batches),
        full_ms=single(full_ms),
        mean=single(mean),
        variance=single(variance),
        scatter=single(np.sqrt(variation)),
        busy=single(_busy(servers, load, batch <= rows, requests * first_ms * batches, batches)),
        left=single(_left(load * batch, batch, rows, variation, mean, variance)),
        decay_ms=single(decay_ms),
        factors=single(factors).take(kind, axis=1),
        offset=offset,
        times=ServiceTables(single(ms), single(slope)),
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


def _root(load: Array) -> Array:
    """Returns the y above 0 at which (exp(y) - 1) / y = 1 / load, by Newton's method on the logarithms."""
    wanted = -np.log(load)
    y: Array = 2 * wanted
    for _ in range(8):
        y = y - (np.log(np.expm1(y) / y) - wanted) / (-1 / np.expm1(-y) - 1 / y)
    return y
