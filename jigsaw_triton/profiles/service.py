"""How long an instance takes for a batch of any size, as far as a profile tells."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable

Array = NDArray[np.float64]

FIXED_SHARE = 0.5
"""Of the time of the smallest batch in a profile: what a batch takes however few its items. A convention, used only
below the smallest batch that is profiled."""

_Z95, _Z99, _MOST_Z = (NormalDist().inv_cdf(p) for p in (0.95, 0.99, 0.999))


@dataclass(frozen=True)
class ServiceTime:
    """The time that one of a configuration's instances takes for a batch.

    The time is the median of the batch's size times a random factor whose distribution is the same for all sizes. Its
    logarithm is piecewise linear in the normal deviate: through the profile's p50, p95 and p99, below the median as
    steep as above, beyond p99 as between p95 and p99, and constant from p99.9 on, of which a profile says nothing.

    Attributes:
        sizes: Batch sizes of which the median is known, ascending; the last is the largest batch.
        median_ms: Of those.
        p95: Of the factor, at least 1.
        p99: Likewise, at least p95.
        rest: After each batch the instance takes nothing for so many medians: by the profile's throughput it does
            fewer batches than by its latencies.
    """

    sizes: tuple[int, ...]
    median_ms: tuple[float, ...]
    p95: float
    p99: float
    rest: float = 0.0

    @property
    def batch(self) -> int:
        """The largest."""
        return self.sizes[-1]

    @cached_property
    def medians_ms(self) -> Array:
        """By number of items, from 0 to the largest batch; linear between the known sizes and down to `FIXED_SHARE`."""
        return np.interp(
            np.arange(self.batch + 1), (0, *self.sizes), (FIXED_SHARE * self.median_ms[0], *self.median_ms)
        )

    @property
    def mean(self) -> float:
        """Of the factor."""
        return _moments(self.p95, self.p99)[0]

    @property
    def variation(self) -> float:
        """Squared coefficient of variation of the factor."""
        return _moments(self.p95, self.p99)[1]

    @property
    def occupied_ms(self) -> float:
        """Mean time from one full batch to the next of a busy instance."""
        return self.median_ms[-1] * (self.mean + self.rest)

    def full_ms(self, quantile: float) -> float:
        """A quantile, in (0, 1), of the time of a full batch."""
        return self.median_ms[-1] * float(self.factors(np.array([NormalDist().inv_cdf(quantile)]))[0])

    def factors(self, deviates: Array) -> Array:
        """The factors at these normal deviates."""
        return _factors(deviates, self.p95, self.p99)


def service_time(row: ProfileRow, smaller: Iterable[ProfileRow] = ()) -> ServiceTime:
    """What a profile says, together with those of the same configuration with smaller batches.

    A smaller batch never takes longer than a larger one, whatever was measured.
    """
    known = {r.key.batch: r.latency_p50_ms for r in smaller if r.key.batch < row.key.batch}
    known[row.key.batch] = least = row.latency_p50_ms
    for size in sorted(known, reverse=True):
        known[size] = least = min(least, known[size])
    p95 = max(1.0, row.latency_p95_ms / row.latency_p50_ms)
    p99 = max(p95, row.latency_p99_ms / row.latency_p50_ms)
    full = 1000 * row.key.batch * row.key.instances / row.throughput_rps / row.latency_p50_ms
    rest = max(0.0, full - _moments(p95, p99)[0])
    return ServiceTime(tuple(sorted(known)), tuple(known[size] for size in sorted(known)), p95, p99, rest)


@lru_cache(maxsize=16)
def service_times(table: ProfileTable) -> Mapping[ProfileKey, ServiceTime]:
    """Of every row whose throughput is above 0."""
    alike: dict[tuple[str, str, str, str, int], list[ProfileRow]] = {}
    for row in table.rows():
        k = row.key
        alike.setdefault((k.gpu, k.task, k.variant, k.slice, k.instances), []).append(row)
    return {row.key: service_time(row, rows) for rows in alike.values() for row in rows if row.throughput_rps > 0}


def busy(rate_rps: float, row: ProfileRow) -> float:
    """The part of its time that a slice has to do with these calls at most, were each an execution of its own.

    No less than what its profiled throughput makes of it.
    """
    return rate_rps * max(row.latency_p95_ms / 1000, 1 / row.throughput_rps)


def _factors(deviates: Array, p95: float, p99: float) -> Array:
    below, beyond = math.log(p95) / _Z95, (math.log(p99) - math.log(p95)) / (_Z99 - _Z95)
    z = np.minimum(deviates, _MOST_Z)
    factors: Array = np.exp(below * np.minimum(z, _Z95) + beyond * np.maximum(z - _Z95, 0.0))
    return factors


def _quadrature() -> tuple[Array, Array]:
    """Normal deviates and their weights: between those at which a factor's logarithm bends, and what is beyond them."""
    # numpy's stubs leave it untyped.
    nodes, weights = np.polynomial.legendre.leggauss(64)  # type: ignore[no-untyped-call]
    ends = ((-_FARTHEST, _Z95), (_Z95, _MOST_Z))
    deviates = np.concatenate([(low + high + (high - low) * nodes) / 2 for low, high in ends])
    densities = np.exp(-(deviates**2) / 2) / math.sqrt(2 * math.pi)
    widths = np.concatenate([(high - low) / 2 * weights for low, high in ends])
    beyond = math.erfc(_MOST_Z / math.sqrt(2)) / 2
    return np.append(deviates, _MOST_Z), np.append(densities * widths, beyond)


_FARTHEST = 9.0
_DEVIATES, _WEIGHTS = _quadrature()


@lru_cache(maxsize=4096)
def _moments(p95: float, p99: float) -> tuple[float, float]:
    """Mean and squared coefficient of variation of the factor.

    In closed form, lognormal piece by piece, little would be left of the digits where p99 is many times p95.
    """
    factors = _factors(_DEVIATES, p95, p99)
    mean = float(_WEIGHTS @ factors)
    return mean, float(_WEIGHTS @ (factors / mean - 1) ** 2)
