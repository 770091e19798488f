"""Programs solved again until what shares slices fits them one by one.

Slices that are shared have room for what is in them taken together. Where a solution turns out not to fit one by one, a
cut says so (`planner.candidates.sharing`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from jigsaw_triton.planner.candidates.sharing import Cut, Pool, fitting
from jigsaw_triton.planner.formulation.model import Allocation
from jigsaw_triton.planner.solver.deadline import LEAST_S, Deadline
from jigsaw_triton.planner.solver.program import Draft
from jigsaw_triton.planner.solver.solver import Outcome, Solver, Stage, solved

_MOST_CUTS = 40
"""Times that a program is solved again because what shares slices does not fit them one by one."""

_MOST_TIES = 4
"""Likewise to decide ties."""

_FIRST_PART = 0.7
"""Of the time that is left, for one solution where slices are shared: it may have to be looked for once more."""

_ROOM_GAP = 0.01

_SLICES_AND_GPUS = 2
"""The first objectives."""


@dataclass(frozen=True, slots=True)
class Refinement:
    """Of one program.

    Attributes:
        model: Makes the program with what is known of slices that are shared.
        cuts: What is known; more is added.
        solver: To ask.
    """

    model: Callable[[Sequence[Cut]], Allocation]
    cuts: list[Cut]
    solver: Solver

    def best(self, limit_s: float, ties_s: float) -> tuple[Allocation, Outcome]:
        """The optimum.

        The slices first, then the GPUs, and then as little as can be in those that are shared; what the objectives
        after that can still gain in these slices comes last, if it fits them as well.

        Args:
            limit_s: For all of it.
            ties_s: For the objectives that come last.
        """
        time, whole = Deadline(limit_s), self.model(self.cuts)
        if not whole.pools:
            return whole, solved(self.solver, whole.program, time.left_s)
        made, outcome = replace(self, model=lambda known: _roomy(self.model(known))).first(time.left_s)
        if outcome.stages and all(stage.proven for stage in outcome.stages[:_SLICES_AND_GPUS]):
            outcome = replace(outcome, status="optimal")
        later = whole.program.objectives[_SLICES_AND_GPUS:]
        if not later or len(outcome.stages) < _SLICES_AND_GPUS or outcome.status == "unknown":
            return made, outcome
        if not whole.program.objectives[0].within_cutoff(outcome.stages[0].value):
            return made, outcome
        return self._with_ties_decided(made, outcome, Deadline(min(time.left_s, ties_s)))

    def _with_ties_decided(self, made: Allocation, outcome: Outcome, time: Deadline) -> tuple[Allocation, Outcome]:
        for _ in range(_MOST_TIES):
            better = _settled(self.model(self.cuts), made, outcome)
            ties = solved(self.solver, better.program, time.left_s)
            if not ties.stages:
                break
            fits = fitting(better.counts(ties.values), better.shared(ties.values))
            if not fits.needed:
                return better, replace(outcome, values=ties.values)
            if not fits.cuts or time.over:
                break
            self.cuts.extend(fits.cuts)
        return made, outcome

    def first(self, limit_s: float) -> tuple[Allocation, Outcome]:
        """The optimum of the program as it is; where time runs out what does not fit gets more slices."""
        time = Deadline(limit_s)
        for _ in range(_MOST_CUTS):
            made = self.model(self.cuts)
            outcome = solved(self.solver, made.program, max(LEAST_S, _FIRST_PART * time.left_s))
            if not outcome.stages:
                return made, outcome
            fits = fitting(made.counts(outcome.values), made.shared(outcome.values))
            if not fits.needed:
                return made, outcome
            self.cuts.extend(fits.cuts)
            if not fits.cuts or time.over:
                break
        return self._enlarged(made, outcome, fits.needed, time.left_s)

    def _enlarged(
        self, made: Allocation, outcome: Outcome, needed: Mapping[Pool, int], limit_s: float
    ) -> tuple[Allocation, Outcome]:
        """The solution with as many slices in each pool as what is in it takes; unknown where the GPUs have no more."""
        columns = list(made.program.columns)
        for c, column in made.count.items():
            if c.shares:
                columns[column] = replace(columns[column], lower=(x := round(outcome.values[column])), upper=x)
        for pool, number in needed.items():
            columns[made.pools[pool]] = replace(columns[made.pools[pool]], lower=float(number))
        made = replace(made, program=replace(made.program, columns=tuple(columns)))
        larger = solved(self.solver, made.program, limit_s)
        if not larger.stages:
            return made, Outcome("unknown", (), ())
        first = larger.stages[0]
        bound = Stage(first.value, min(first.value, outcome.stages[0].bound), proven=False)
        return made, replace(larger, status="feasible", stages=(bound, *larger.stages[1:]))


def _roomy(made: Allocation) -> Allocation:
    """With as little as can be in slices that are shared in place of the objectives after slices and GPUs."""
    columns = [(column, c.turn.cycle) for c, column in made.count.items() if c.shares]
    draft = Draft(list(made.program.columns), list(made.program.rows), list(made.program.objectives[:_SLICES_AND_GPUS]))
    draft.minimise(columns, gap=_ROOM_GAP, relative_gap=_ROOM_GAP, node_limit=1)
    return replace(made, program=replace(draft.program(), start=made.program.start))


def _settled(made: Allocation, before: Allocation, outcome: Outcome) -> Allocation:
    """With the slices that are shared as they came out before, and no more of others; the later objectives alone."""
    number = before.shared(outcome.values)
    columns, objectives = list(made.program.columns), made.program.objectives
    for pool, column in made.pools.items():
        columns[column] = replace(columns[column], lower=float(number.get(pool, 0)), upper=float(number.get(pool, 0)))
    draft = Draft(columns, list(made.program.rows), list(objectives[_SLICES_AND_GPUS:]))
    for objective, stage in zip(objectives, outcome.stages[:_SLICES_AND_GPUS], strict=False):
        draft.at_most(round(stage.value), objective.terms)
    return replace(made, program=draft.program())
