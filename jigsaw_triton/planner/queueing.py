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
from functools import lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.profiles.service import ServiceTime

Array = NDArray[np.float64]

PHASES = 9.0
"""As many instances as can be out of step with each other at most."""


@lru_cache(maxsize=2**16)
def latency_ms(time: ServiceTime, instances: int, load: float, rows: float, quantile: float) -> float:
    """A quantile of a task's latency for one request, from when its rows are there until the last of them is done.

    Args:
        time: Of a batch.
        instances: That pull from the queue, all alike.
        load: Share that arrivals are of what the instances do with full batches; infinite latency from 1 on.
        rows: Of a request; fewer than one count as one.
        quantile: In (0, 1).
    """
    if load >= 1:
        return math.inf
    queue = _Queue(time, instances, load, max(1.0, rows))
    return queue.quantile(1 - quantile)


class _Queue:
    """Args as above."""

    def __init__(self, time: ServiceTime, instances: int, load: float, rows: float) -> None:
        self._time, self._servers, self._load, self._rows = time, instances, load, rows
        self._whole = time.mean + time.rest
        self._ms = time.medians_ms * self._whole
        self._sizes = np.arange(time.batch + 1)
        self._batch, self._full_ms = time.batch, float(self._ms[-1])
        self._first = min(rows, self._batch)
        self._requests = load * instances * self._batch / self._full_ms / rows
        self._mean, self._variance = self._pulled()
        self._cycle_ms = float(self._took(np.array(max(self._mean, self._first))))

    def _took(self, size: Array) -> Array:
        """Mean time of a batch."""
        took: Array = np.interp(size, self._sizes, self._ms)
        return took

    def _pulled(self) -> tuple[float, float]:
        """Mean and variance of the rows that a pull finds, were there no limit to them."""
        mean, ms = self._first, self._ms.tolist()
        for _ in range(_STEPS):
            whole = int(mean)
            took = ms[whole] + (mean - whole) * (ms[min(whole + 1, self._batch)] - ms[whole])
            found = self._requests * took / self._servers
            mean = min(self._batch, self._rows * found + self._first * math.exp(-found))
        steepness = (self._full_ms - ms[1]) / (self._batch - 1) if self._batch > 1 else 0.0
        begets = min(_MOST_BEGOTTEN, self._requests * self._rows / self._servers * steepness)
        return mean, (self._rows * mean + mean**2 * self._time.variation) / (1 - begets**2)

    def _busy(self) -> float:
        """The probability that a request finds all instances busy; it takes one for each batch that its rows make."""
        batches = math.ceil(self._rows / self._batch)
        together = max(1, self._servers // batches)
        full = self._batch <= self._rows
        took = self._requests * float(self._took(np.array(self._first))) * batches
        if together == 1:
            return self._load if full else 1 / (1 + math.exp(-took) / took)
        each = self._load if full else took / together
        waiting = each / (1 - each) if full else each * (1 + each)
        # Erlang's B of all but one, by its recursion: the share of time that they are busy where nothing waits.
        odds = 1.0
        for j in range(1, together):
            odds = 1 + odds * j / (each * together)
        return waiting / (odds + waiting)

    def _left(self) -> float:
        """The probability that a pull leaves something behind.

        That of the walk with batches always full, less as the batch found is seldom full.
        """
        full = self._load * self._batch
        drift = (self._batch - full) / math.sqrt(self._rows * full + full**2 * self._time.variation)
        left = 1 - _never_above(drift)
        if left < _NEVER:
            return 0.0
        fills = _above(self._batch / self._mean, self._mean**2 / self._variance)
        return min(left, fills / (fills + _NORMAL.cdf(-drift) * (1 - left) / left))

    def _decay_ms(self) -> float:
        """Mean time that it takes to work off what is left."""
        arrivals = self._rows * self._full_ms / (_root(self._load) * self._servers * self._batch)
        return arrivals + self._time.variation * self._full_ms / (2 * self._servers * (1 - self._load))

    def quantile(self, beyond: float) -> float:
        """The latency that is exceeded with this probability."""
        factors = self._time.factors(_Z) / self._whole
        step_ms = self._full_ms / self._servers
        idle = float(self._took(np.array(self._first))) * factors + step_ms * (math.ceil(self._rows / self._batch) - 1)
        wait, own, weight = self._pull()
        mixed = (wait[:, None] + own[:, None] * factors).ravel()
        behind = (wait[:, None] + self._full_ms * factors).ravel()
        weights = (weight[:, None] * _Z_WEIGHT).ravel()
        busy, left, decay_ms = self._busy(), self._left(), self._decay_ms()

        def exceeds(x: float) -> float:
            after = np.exp(np.minimum(behind - x, 0.0) / decay_ms)
            waiting = (1 - left) * (weights @ (mixed > x)) + left * (weights @ after)
            return float((1 - busy) * (_Z_WEIGHT @ (idle > x)) + busy * waiting)

        low, high = 0.0, float(behind.max()) + decay_ms * math.log(1 / beyond)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if exceeds(middle) > beyond else (low, middle)
        return high

    def _pull(self) -> tuple[Array, Array, Array]:
        """Of a request that finds all busy: time to its pull, mean time of its batch, and the weight of each case."""
        running = np.maximum(_gamma(self._mean, self._variance / self._servers, _H), 0.0)
        spread = np.maximum(1 + _H * math.sqrt(self._time.variation) / self._servers, 0.3)
        cycle = self._took(np.clip(running, self._first, self._batch)) * spread
        phases = self._servers / (1 + (self._servers - 1) / PHASES)
        ages = _V if self._servers > 1 else _V[:1]
        cycle_, u, v, z = np.ix_(cycle, _U, ages, _Z)
        to_go = cycle_ * (1 - u ** (1 / phases))
        age = cycle_ - to_go
        if self._servers > 1:
            age = age * (1 - v ** (1 / (phases - 1)))
        ahead = self._rows * _poisson(self._requests * age, z)
        behind = self._rows * np.floor(self._requests * to_go)
        further = np.floor((ahead + self._rows - 1) / self._batch)
        size = np.where(further > 0, self._batch, np.clip(ahead + self._rows + behind, self._first, self._batch))
        weight = (cycle * _H_WEIGHT)[:, None, None, None] * _Z_WEIGHT * np.ones(further.shape)
        wait = to_go + further * self._full_ms / self._servers
        return wait.ravel(), self._took(size).ravel(), weight.ravel() / weight.sum()


_NORMAL = NormalDist()
_STEPS, _HALVINGS = 25, 20
_MOST_BEGOTTEN = 0.9
_NEVER = 1e-9


def _middles(count: int) -> Array:
    return (np.arange(count) + 0.5) / count


def _hermite(count: int) -> tuple[Array, Array]:
    """Points and weights of the Gauss-Hermite quadrature for a normal variable (Golub and Welsch)."""
    beside = np.sqrt(np.arange(1, count))
    points, vectors = np.linalg.eigh(np.diag(beside, 1) + np.diag(beside, -1))
    return points, vectors[0] ** 2


_U, _V = _middles(12), _middles(3)
_Z, _Z_WEIGHT = _hermite(5)
_H, _H_WEIGHT = _hermite(3)


def _gamma(mean: float, variance: float, deviates: Array) -> Array:
    """Quantiles of a gamma variable at normal deviates, after Wilson and Hilferty."""
    shape = max(mean**2 / variance, 0.1)
    roots: Array = np.maximum(0.0, 1 - 1 / (9 * shape) + deviates / (3 * math.sqrt(shape)))
    return mean * roots**3


def _above(multiple: float, shape: float) -> float:
    """The probability of a gamma variable above a multiple of its mean, likewise."""
    return _NORMAL.cdf((1 - 1 / (9 * shape) - multiple ** (1 / 3)) * 3 * math.sqrt(shape))


def _poisson(mean: Array, deviates: Array) -> Array:
    """Quantiles of a Poisson variable at normal deviates, after Anscombe."""
    numbers: Array = np.floor((np.sqrt(mean + 0.375) + deviates / 2) ** 2 - 0.375 + 1e-9)
    return numbers


def _never_above(drift: float) -> float:
    """The probability that a Gaussian walk that drifts downwards, by so many deviations a step, never rises above 0."""
    if drift > 2:
        return 1 - _NORMAL.cdf(-drift)
    return math.sqrt(2) * drift * math.exp(drift * (-1.4603545 + 0.0346477 * drift**2) / math.sqrt(2 * math.pi))


@lru_cache(maxsize=1024)
def _root(load: float) -> float:
    """The y above 0 at which (exp(y) - 1) / y = 1 / load, by Newton's method on the logarithms."""
    wanted = -math.log(load)
    y = 2 * wanted
    for _ in range(8):
        y -= (math.log(math.expm1(y) / y) - wanted) / (-1 / math.expm1(-y) - 1 / y)
    return y
