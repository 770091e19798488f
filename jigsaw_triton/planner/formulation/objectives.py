"""Objectives of the mixed-integer program, each of which decides among the best solutions by those before it."""

import math
from collections.abc import Collection, Mapping, Sequence

from jigsaw_triton.planner.solver.program import Draft

ACCURACY_GAP = 1e-3
"""Absolute gap of the accuracy objective, the loss weighted by shares and summed over tasks. A convention: 0.1% of
accuracy is not worth solving longer."""

SCALE_GAP = 1e-4
"""Relative gap of the largest demand. A convention."""

PRICE_GAP = 1e-4
"""Absolute gap, in compute slices, of the first objective if changes have a price. A convention."""

COST_GAP = 1e-3
"""Gap relative to the lower bound within which a cost of mixed boards counts as proven, if that is more than a unit. A
convention: it is far less than the error of profiles."""

TIE_EFFORT = 60_000
"""Columns times nodes of the search tree for each minor objective, which decides among plans of equal slices. A
convention that limits the time for large problems."""

Term = tuple[int, float]
"""Column and coefficient."""


class Objectives:
    """Adds objectives to a program, the most important one first.

    Args:
        draft: Program to add to.
        slices: Columns of the numbers of slices in use, each with the cost of a slice.
        priced: Columns of the running replicas that stay in place, if changes have a price.
        price: Compute slices, or loss of accuracy, that it is worth to keep a running replica in place.
        slice_cost: Cost that counts as one compute slice of the price.
        least: Lower bound on the cost or on the scale of the demand.
        mixed: True if a slice of some model of GPU costs more than a unit.
    """

    def __init__(
        self,
        draft: Draft,
        slices: Sequence[Term],
        priced: Collection[int],
        price: float,
        slice_cost: float,
        least: float,
        *,
        mixed: bool,
    ) -> None:
        self._draft = draft
        self._slices = slices
        self._priced = priced
        self._price = price
        self._slice_cost = slice_cost
        self._least = least
        self._proof = COST_GAP * least if mixed else 0.0
        self._node_limit = max(1, TIE_EFFORT // len(draft.columns))

    def largest_scale(self, scale: int) -> None:
        """Maximises the scale of the demand in this column."""
        self._draft.at_least(self._least, [(scale, 1.0)])
        self._draft.minimise([(scale, -1.0)], gap=1e-9, relative_gap=SCALE_GAP)

    def least_loss_and_cost(self, losses: Sequence[Term]) -> None:
        """Minimises the loss of accuracy plus the price of slices and of changes, then the cost of slices."""
        terms = [*losses]
        if self._price:
            terms += [(column, self._price / self._slice_cost * cost) for column, cost in self._slices]
            terms += [(k, -self._price) for k in self._priced]
        if terms:
            self._draft.minimise(terms, gap=ACCURACY_GAP)
        self._draft.minimise_count(self._slices, gap=self._proof, node_limit=self._node_limit)

    def least_cost_of_changes(self, gap: float) -> None:
        """Minimises the cost of slices minus the price of the replicas that stay, then maximises their number.

        Args:
            gap: Relative gap at which a plan is accepted.
        """
        unit = self._price * self._slice_cost
        self._draft.at_least(self._least, self._slices)
        kept = [(k, -unit) for k in self._priced]
        gap = max(PRICE_GAP * self._slice_cost, gap * self._least)
        self._draft.minimise([*self._slices, *kept], gap=gap)
        self.most_kept(self._priced)

    def least_cost(self, gap: float, enough: float) -> None:
        """Minimises the cost of slices.

        Args:
            gap: Relative gap at which a plan is accepted.
            enough: Largest useful cost.
        """
        self._draft.minimise_count(
            self._slices, gap=self._proof, relative_gap=gap, cutoff=enough, lower_bound=self._least
        )

    def least_cost_of_gpus(self, layouts: Mapping[int, int]) -> None:
        """Minimises the cost of GPUs.

        Args:
            layouts: Column of the number of GPUs that are cut in one way -> cost of such a GPU.
        """
        common = math.gcd(*layouts.values()) or 1
        gpus = [(z, float(cost // common)) for z, cost in layouts.items()]
        self._draft.at_least(math.ceil(self._least / common), gpus)
        self._draft.minimise_count(gpus, gap=self._proof / common, node_limit=self._node_limit)

    def least_loss(self, losses: Sequence[Term]) -> None:
        """Minimises the loss of accuracy, in limited time."""
        self._draft.minimise(losses, gap=ACCURACY_GAP, node_limit=self._node_limit)

    def most_kept(self, kept: Collection[int]) -> None:
        """Maximises the number of running replicas that stay, whose columns are `kept`; without any, does nothing."""
        if kept:
            self._draft.minimise_count(((k, -1.0) for k in kept), node_limit=self._node_limit)
