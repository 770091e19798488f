"""Energy that the GPUs of a deployment consume, from their counters, and the part of each request. Pure."""

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from jigsaw_triton.gpus.model import GpuId

METER_S = 5.0
"""Seconds between two readings of the counters, each of which asks every node."""

_WINDOW_S = 10.0
"""Seconds of load over which energy is divided by requests. A convention: a second may have no request."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """Counts until a time: the energy in joules, and the answered requests."""

    at_s: float
    joules: float
    served: float


class EnergyMeter:
    """Compares readings of the GPUs' counters.

    Attributes:
        counters: Energy in joules that each GPU has consumed since its driver was loaded; empty where that is unknown.
    """

    def __init__(self) -> None:
        self.counters: Mapping[GpuId, float] = {}
        self._readings: deque[_Reading] = deque()

    def add(self, counters: Mapping[GpuId, float], used: Collection[GpuId], served: float, at_s: float) -> None:
        """Adds a reading.

        Args:
            counters: Counters of the GPUs in joules, without those that are unknown.
            used: GPUs that the deployment uses.
            served: Number of requests that were answered since the controller started.
            at_s: Time of the reading on the monotonic clock.
        """
        before, self.counters = self.counters, counters
        gained = {gpu: joules - before[gpu] for gpu, joules in counters.items() if gpu in used and gpu in before}
        if gained.keys() != set(used) or any(joules < 0 for joules in gained.values()):
            # The sum would be too small if a GPU that serves has no counter, or if a counter began again from 0.
            self._readings.clear()
        last = self._readings[-1].joules if self._readings else 0.0
        self._readings.append(_Reading(at_s, last + sum(gained.values()), served))
        while len(self._readings) > 2 and at_s - self._readings[1].at_s >= _WINDOW_S:
            self._readings.popleft()

    @property
    def watts(self) -> float | None:
        """Power of the GPUs that the deployment uses, over the last seconds; None if it is unknown."""
        first, last = self._window
        return (last.joules - first.joules) / (last.at_s - first.at_s) if last.joules > first.joules else None

    @property
    def joules_per_request(self) -> float | None:
        """Energy of these GPUs for each request that was answered meanwhile; None without such, or if unknown."""
        first, last = self._window
        served = last.served - first.served
        return (last.joules - first.joules) / served if served > 0 and last.joules > first.joules else None

    @property
    def _window(self) -> tuple[_Reading, _Reading]:
        none = _Reading(0.0, 0.0, 0.0)
        return (self._readings[0], self._readings[-1]) if self._readings else (none, none)
