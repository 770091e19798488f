"""Model of the service time of a batch of any size on one instance, fitted to a profile."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.profiles.table import ProfileKey, ProfileRow, ProfileTable
from jigsaw_triton.runtime.draws import MOST_Z, Z95, factors

Array = NDArray[np.float64]

FIXED_SHARE = 0.5
"""Fixed part of a batch's service time, as a share of that of the smallest profiled batch. This is a convention, and it
is used only for batches that are smaller than that one."""


@dataclass(frozen=True)
class ServiceTime:
    """Distribution of the time that one instance of a configuration takes for a batch.

    The service time is the median for the batch's size times a random factor, whose distribution is the same for all
    sizes; see `runtime.draws.factors`.

    Attributes:
        sizes: Batch sizes whose median is known, ascending; the last is the largest batch.
        median_ms: Median service time of each of these sizes.
        p95: 95th percentile of the factor, at least 1.
        p99: 99th percentile of the factor, at least `p95`.
        rest: Idle time of the instance after each batch, in units of the full batch's median. It accounts for a
            throughput of the profile that is lower than its latencies allow.
    """

    sizes: tuple[int, ...]
    median_ms: tuple[float, ...]
    p95: float
    p99: float
    rest: float = 0.0

    @property
    def batch(self) -> int:
        """Largest batch size."""
        return self.sizes[-1]

    @cached_property
    def medians_ms(self) -> Array:
        """Median service times for 0 items up to the largest batch: linear between known sizes and to `FIXED_SHARE`."""
        return np.interp(
            np.arange(self.batch + 1), (0, *self.sizes), (FIXED_SHARE * self.median_ms[0], *self.median_ms)
        )

    @property
    def mean(self) -> float:
        """Mean of the factor."""
        return _moments(self.p95, self.p99)[0]

    @property
    def variation(self) -> float:
        """Squared coefficient of variation of the factor."""
        return _moments(self.p95, self.p99)[1]

    @property
    def occupied_ms(self) -> float:
        """Mean time between the starts of consecutive full batches on a busy instance, in milliseconds."""
        return self.median_ms[-1] * (self.mean + self.rest)

    def full_ms(self, quantile: float) -> float:
        """Returns a quantile, in (0, 1), of the service time of a full batch in milliseconds."""
        return self.median_ms[-1] * float(self.factors(np.array([NormalDist().inv_cdf(quantile)]))[0])

    def factors(self, deviates: Array) -> Array:
        """Returns the factors at the given normal deviates."""
        return factors(deviates, self.p95, self.p99)


def service_time(row: ProfileRow, smaller: Iterable[ProfileRow] = ()) -> ServiceTime:
    """Fits the service time of a configuration.

    A smaller batch never takes longer than a larger one, even if that was measured.

    Args:
        row: Profile of the configuration.
        smaller: Profiles of the same configuration with other batch sizes; only smaller batches are used.
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


@lru_cache(maxsize=128)
def service_times(table: ProfileTable) -> Mapping[ProfileKey, ServiceTime]:
    """Fits the service time of every configuration whose throughput is greater than 0."""
    by_instances: dict[tuple[str, str, str, str, int], list[ProfileRow]] = {}
    for row in table.rows():
        k = row.key
        by_instances.setdefault((k.gpu, k.task, k.variant, k.slice, k.instances), []).append(row)
    return {
        row.key: service_time(row, rows) for rows in by_instances.values() for row in rows if row.throughput_rps > 0
    }


def busy(rate_rps: float, row: ProfileRow) -> float:
    """Returns an upper estimate of a slice's utilisation by calls that are each executed on their own.

    It is at least the utilisation that follows from the profiled throughput.

    Args:
        rate_rps: Calls per second.
        row: Profile of the configuration.
    """
    return rate_rps * max(row.latency_p95_ms / 1000, 1 / row.throughput_rps)


def _quadrature() -> tuple[Array, Array]:
    """Returns normal deviates and weights for integrals of the factor.

    They are Gauss-Legendre nodes on each side of p95, where the slope of the factor's logarithm changes, and one point
    for the constant part beyond p99.9.
    """
    nodes, weights = np.polynomial.legendre.leggauss(64)  # type: ignore[no-untyped-call]  # untyped in numpy's stubs
    ends = ((-_FARTHEST, Z95), (Z95, MOST_Z))
    deviates = np.concatenate([(low + high + (high - low) * nodes) / 2 for low, high in ends])
    densities = np.exp(-(deviates**2) / 2) / math.sqrt(2 * math.pi)
    widths = np.concatenate([(high - low) / 2 * weights for low, high in ends])
    beyond = math.erfc(MOST_Z / math.sqrt(2)) / 2
    return np.append(deviates, MOST_Z), np.append(densities * widths, beyond)


_FARTHEST = 9.0
_DEVIATES, _WEIGHTS = _quadrature()


@lru_cache(maxsize=4096)
def _moments(p95: float, p99: float) -> tuple[float, float]:
    """Returns the mean and the squared coefficient of variation of the factor.

    The closed form, a sum of truncated lognormal pieces, would lose most digits if p99 is many times p95.
    """
    found = factors(_DEVIATES, p95, p99)
    mean = float(_WEIGHTS @ found)
    return mean, float(_WEIGHTS @ (found / mean - 1) ** 2)
