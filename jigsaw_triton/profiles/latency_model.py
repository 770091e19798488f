"""Model of the median latency of a batch, by batch size, kind of slice and number of instances.

The latency is a smooth maximum of two bounds, as in a roofline model (Williams, Waterman and Patterson, 2009):

- The *floor* is the time in which the host launches the kernels of a batch. It depends on neither batch nor slice, and
  grows a little with the number of instances.
- The *device time* is the work of a batch times the time for a unit of work. Work grows with a power of the batch, from
  a fixed part; libraries choose other kernels for a single item, so it has a factor of its own. The time for a unit
  follows Amdahl's law: one part scales with the slice and with the instances that share it, and a serial part does not.

In formulas, with the names of the parameters in `NAMES`:

    work(1) = work * single * (fixed + 1)
    work(batch) = work * (fixed + batch ** exponent)
    unit(slice, instances) = instances / speed(slice) + serial
    1 / speed(slice) = correction(slice) * (compute / compute slices + (1 - compute) / memory slices)
    latency ** sharpness = (floor * exp(interference * (instances - 1))) ** sharpness
                           + (work(batch) * unit(slice, instances)) ** sharpness

The compute and memory slices of a MIG instance are those of NVIDIA's MIG User Guide. Apart from `single`, whose effect
`monotone` limits, no parameter can make a larger batch or more instances faster.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

NAMES = ("floor", "work", "fixed", "exponent", "single", "compute", "serial", "sharpness", "interference")
"""Parameters of a variant. `floor` and `work` are in milliseconds, `fixed` is in items; `compute` is a share."""

SHARES: Mapping[str, tuple[int, int]] = {
    "1g": (1, 1),
    "1gx2": (1, 2),
    "2g": (2, 2),
    "3g": (3, 4),
    "4g": (4, 4),
    "7g": (7, 8),
}
"""Kind of slice -> its compute slices and memory slices."""

Configuration = tuple[str, int, int]
"""Kind of slice, number of instances and batch size."""


@dataclass(frozen=True, slots=True)
class Points:
    """Configurations as arrays.

    Attributes:
        compute: Compute slices of each configuration.
        memory: Memory slices of each configuration.
        correction: Logarithm of the correction of each configuration's kind of slice.
        instances: Numbers of instances.
        batch: Batch sizes.
    """

    compute: Array
    memory: Array
    correction: Array
    instances: Array
    batch: Array

    @classmethod
    def of(cls, configurations: Sequence[Configuration], corrections: Mapping[str, float]) -> Self:
        """Returns the arrays of configurations.

        Args:
            configurations: The configurations.
            corrections: Logarithm of the correction by kind of slice; kinds without one are not corrected.
        """
        columns = [
            (*SHARES[kind], corrections.get(kind, 0.0), instances, batch) for kind, instances, batch in configurations
        ]
        return cls(*np.array(columns, dtype=float).reshape(-1, 5).T)


def log_latency(parameters: Array, points: Points) -> tuple[Array, Array]:
    """Returns the logarithm of the latency in milliseconds, and its derivatives.

    Args:
        parameters: Logarithms of the parameters in the order of `NAMES`; the logit of `compute`.
        points: Configurations.

    Returns:
        Logarithms by configuration, and derivatives by configuration and parameter. The last column of the derivatives
        is that by the correction of the configuration's kind of slice.
    """
    floor, work, log_fixed, log_exponent, single, logit, log_serial, log_sharpness, log_interference = parameters
    fixed, exponent, serial, sharpness = np.exp((log_fixed, log_exponent, log_serial, log_sharpness))
    compute = 1 / (1 + np.exp(-logit))
    alone = points.batch == 1
    items = points.batch**exponent
    shared = points.instances * np.exp(points.correction)
    scaled = shared * (compute / points.compute + (1 - compute) / points.memory)
    contrast = shared * compute * (1 - compute) * (1 / points.compute - 1 / points.memory)
    slowed = np.exp(log_interference) * (points.instances - 1)
    launch = floor + slowed
    device = work + single * alone + np.log(fixed + items) + np.log(scaled + serial)
    result = np.logaddexp(sharpness * launch, sharpness * device) / sharpness
    by_launch = np.exp(sharpness * (launch - result))
    by_device = np.exp(sharpness * (device - result))
    derivatives = (
        by_launch,
        by_device,
        by_device * fixed / (fixed + items),
        by_device * exponent * items * np.log(points.batch) / (fixed + items),
        by_device * alone,
        by_device * contrast / (scaled + serial),
        by_device * serial / (scaled + serial),
        by_launch * launch + by_device * device - result,
        by_launch * slowed,
        by_device * scaled / (scaled + serial),
    )
    return result, np.stack(derivatives, axis=-1)


def monotone(parameters: Array) -> Array:
    """Returns the parameters with a factor of a single item that makes it take no longer than two items."""
    limited = parameters.copy()
    fixed, exponent = np.exp(parameters[[NAMES.index("fixed"), NAMES.index("exponent")]])
    single = NAMES.index("single")
    limited[single] = min(parameters[single], np.log((fixed + 2**exponent) / (fixed + 1)))
    return limited
