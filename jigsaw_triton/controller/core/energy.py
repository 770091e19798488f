"""Energy of a request, from counters of the GPUs and of the answers. Pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass

from jigsaw_triton.gpus.model import GpuId

Joules = Mapping[GpuId, float]
"""GPU -> energy that it has used, in joules. It may begin again from 0."""


@dataclass(frozen=True, slots=True)
class Used:
    """Counters at one time.

    Attributes:
        joules: Energy of each GPU that counts it.
        answered: Requests of all graphs that were answered.
    """

    joules: Joules
    answered: float


def joules_per_request(before: Used, now: Used) -> float | None:
    """Returns the mean energy of the requests between two times, with what idle slices use.

    Returns:
        The energy in joules; None without answers, or if no GPU counts its energy.
    """
    common = before.joules.keys() & now.joules.keys()
    answered = now.answered - before.answered
    if not common or answered <= 0:
        return None
    return sum(max(0.0, now.joules[gpu] - before.joules[gpu]) for gpu in common) / answered
