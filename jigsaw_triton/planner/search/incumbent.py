"""The incumbent of a search, which is the best known plan, and the lower bounds that it is compared with."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from jigsaw_triton.planner.candidates.configurations import Configuration
from jigsaw_triton.planner.candidates.pools import Pool
from jigsaw_triton.planner.formulation.model import Allocation
from jigsaw_triton.planner.search.choices import least_together
from jigsaw_triton.planner.solver.solver import Outcome, Stage

Solution = tuple[Allocation, Outcome]
"""A program and its outcome."""


@dataclass(frozen=True, slots=True)
class Known:
    """Lower bounds, starting values and incumbent of a search.

    Attributes:
        leasts: Lower bound on the slices of each graph.
        start: Replicas to start the solver from.
        start_slices: Slices of these replicas; infinite if there are none.
        start_pools: Shared slices of each pool that belong to these replicas.
        incumbent: Best known plan; None if it is unknown whether the cluster has room for `start`.
        surviving: Lower bound on the slices of a plan that survives a loss; 0 if none is known.
    """

    leasts: Mapping[str, float]
    start: Mapping[Configuration, int] = field(default_factory=dict)
    start_slices: float = math.inf
    start_pools: Mapping[Pool, int] = field(default_factory=dict)
    incumbent: Solution | None = None
    surviving: float = 0.0

    @property
    def least(self) -> float:
        """Lower bound on the slices of all graphs."""
        return max(least_together(self.leasts.values()), least_together([self.surviving]))

    @property
    def best(self) -> float:
        """Slices of the incumbent; infinite if there is none."""
        return math.inf if self.incumbent is None else self.incumbent[1].stages[0].value

    def with_incumbent(self, model: Allocation, outcome: Outcome) -> "Known":
        """Returns the knowledge with this incumbent, which is the next start as well."""
        return replace(
            self,
            start=model.counts(outcome.values),
            start_slices=outcome.stages[0].value,
            start_pools=model.shared(outcome.values),
            incumbent=(model, outcome),
        )

    def bounded_incumbent(self, proven: float) -> Solution | None:
        """Returns the incumbent with this lower bound on slices, its ties unproven; None if there is no incumbent."""
        if self.incumbent is None:
            return None
        model, outcome = self.incumbent
        stage = Stage(self.best, min(proven, self.best), proven=proven >= self.best)
        return model, replace(outcome, status="feasible", stages=(stage,))
