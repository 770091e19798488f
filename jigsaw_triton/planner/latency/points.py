"""Quadrature points of the queueing model (`planner.latency.queueing`), over which it sums the parts of a latency."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jigsaw_triton.planner.latency.quadrature import halves, hermite, middles, tail
from jigsaw_triton.profiles.service import ServiceTime

Array = NDArray[Any]


def single(values: Array) -> Array:
    """Returns values in single precision."""
    return values.astype(np.float32)


def _upright(values: Array) -> Array:
    """Returns points along the first axis, with a second axis for the cases."""
    return single(values.reshape(-1, 1))


_SAME = 4
"""Number of points of equal weight along the first axis. A convention."""

# Uniform variables for the times to the next pull (U) and since the last one (V). They share an axis, in an order in
# which the lower and the upper half of U each have both values of V.
U, V = _upright(middles(_SAME)), _upright(np.array([0.25, 0.75, 0.75, 0.25]))
# Normal variables for the arrivals since the last pull (Z), the batch that runs (H), and the service time of the
# request's own batch if it waited (F) or not (IDLE).
Z, Z_WEIGHT = map(_upright, hermite(5))
H, H_WEIGHT = map(_upright, hermite(3))
F, F_WEIGHT = map(_upright, tail(6))
# Where a backlog dominates the latency, neighbouring points of F are merged.
LATE_WEIGHT = F_WEIGHT.reshape(3, -1).sum(axis=1, keepdims=True)
Z_F_WEIGHT, Z_LATE_WEIGHT = _upright(Z_WEIGHT * F_WEIGHT.T), _upright(Z_WEIGHT * LATE_WEIGHT.T)
IDLE, IDLE_WEIGHT = map(_upright, halves(11, _SAME))
# Logarithm of the service time over its median at these points, for each unit of log(p99) and of log(p95).
_BOTH = np.concatenate([F, IDLE])
PER_P99 = np.log(ServiceTime((1,), (1.0,), 1.0, math.e).factors(_BOTH))
PER_P95 = np.log(ServiceTime((1,), (1.0,), math.e, math.e).factors(_BOTH)) - PER_P99
