"""Chooses which configurations a sweep measures, and in which order. Does no I/O."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from jigsaw_triton.profiles.design import beyond, next_configuration, size
from jigsaw_triton.profiles.estimation import Sample
from jigsaw_triton.profiles.latency_model import Configuration
from jigsaw_triton.profiles.table import ProfileKey

LEAST_POINTS = 6
"""Smallest default number of measured configurations of a variant. From the four that a fit needs at least, the median
error was 9% to 19% on the profiles of docread, digits and digits-strip, from six 3% to 6%
(docs/adr/0016-profiles-in-minutes.md)."""

MOST_POINTS = 12
"""Largest default number of measured configurations of a variant: enough for a median error of 3% on the public A100
table (docs/adr/0014-latency-model.md)."""

_SHARE = 0.25
"""Share of a variant's configurations that are measured by default, within the limits."""

VariantName = tuple[str, str]
"""Task and variant."""


def default_points(configurations: int) -> int:
    """Returns the default number of configurations to measure of a variant that has this many."""
    return min(configurations, max(LEAST_POINTS, min(MOST_POINTS, math.ceil(_SHARE * configurations))))


class Agenda:
    """Configurations of one GPU model that a sweep has measured and will measure.

    Each variant has its turn in each round, so that all variants have a first point before any has a second.

    Args:
        keys: All configurations of all variants on the GPU model.
        points: Number of configurations to measure of each variant; None for all.
        most_ms: Largest latency that is useful to plans. It does not limit a sweep of all configurations.
        measured: Median latency in milliseconds of each configuration that has been measured.
        failed: Configurations that have failed.
        required: Configurations to measure in any case, before others and beyond `points`.
    """

    def __init__(
        self,
        keys: Sequence[ProfileKey],
        points: int | None,
        most_ms: float,
        measured: Mapping[ProfileKey, float],
        failed: Collection[ProfileKey],
        required: Collection[ProfileKey] = (),
    ) -> None:
        self._keys: dict[VariantName, dict[Configuration, ProfileKey]] = {}
        for key in keys:
            self._keys.setdefault((key.task, key.variant), {})[configuration(key)] = key
        self._points = points
        self._most_ms = most_ms
        self._measured = {key: measured[key] for key in keys if key in measured}
        self._failed = {key for key in keys if key in failed}
        self._required = frozenset(required)
        self._settled: set[VariantName] = set()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of the configurations."""
        return tuple(dict.fromkeys(task for task, _ in self._keys))

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of slices of the configurations, smallest first."""
        kinds = {key.slice for known in self._keys.values() for key in known.values()}
        return tuple(sorted(kinds, key=lambda kind: size((kind, 1, 1))))

    def leave_out(self, useless: Callable[[str], bool]) -> list[str]:
        """Leaves out all configurations on some kinds of slices, and returns these kinds.

        Args:
            useless: Function that returns true for a kind that is left out.
        """
        kinds = [kind for kind in self.kinds if useless(kind)]
        self._keys = {
            name: {c: key for c, key in known.items() if key.slice not in kinds} for name, known in self._keys.items()
        }
        return kinds

    @property
    def remaining(self) -> int:
        """Largest number of configurations that are still to be measured."""
        return sum(self._remaining(name) for name in self._keys)

    def round(self) -> list[ProfileKey]:
        """Returns the next configuration of each variant that needs one, grouped by slice; none at the end."""
        found = []
        for name in self._keys:
            if not self._remaining(name):
                continue
            if (key := self._next(name)) is None:
                self._settled.add(name)
            else:
                found.append(key)
        return sorted(found, key=lambda key: size((key.slice, 1, 1)))

    def add_measured(self, key: ProfileKey, latency_ms: float) -> None:
        """Takes note of a measured configuration and its median latency."""
        self._measured[key] = latency_ms

    def add_failed(self, key: ProfileKey) -> None:
        """Takes note of a configuration that failed."""
        self._failed.add(key)

    def _remaining(self, name: VariantName) -> int:
        if name in self._settled:
            return 0
        left = self._left(name)
        if self._points is None:
            return len(left)
        done = sum(key in self._measured for key in self._keys[name].values())
        return max(min(len(left), self._points - done), sum(key in self._required for key in left.values()))

    def _left(self, name: VariantName) -> dict[Configuration, ProfileKey]:
        failed = self._failures(name)
        known = self._keys[name].items()
        return {c: key for c, key in known if key not in self._measured and not beyond(c, failed)}

    def _next(self, name: VariantName) -> ProfileKey | None:
        left = self._left(name)
        if self._points is None:
            # A sweep of all points needs no latency model, and so does not import scipy.
            return left[min(left, key=size)]
        if required := [c for c, key in left.items() if key in self._required]:
            return left[min(required, key=size)]
        known = self._keys[name]
        done = {c: self._measured[key] for c, key in known.items() if key in self._measured}
        sample = Sample(tuple(done), tuple(done.values()))
        found = next_configuration(known, sample, failed=self._failures(name), most_ms=self._most_ms)
        return known[found] if found is not None else None

    def _failures(self, name: VariantName) -> list[Configuration]:
        return [configuration(key) for key in self._failed if (key.task, key.variant) == name]


def configuration(key: ProfileKey) -> Configuration:
    """Returns the configuration of a variant without its names."""
    return key.slice, key.instances, key.batch
