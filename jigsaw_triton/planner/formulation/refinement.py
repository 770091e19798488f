"""Refines a program with cuts until its shared slices can be packed.

The program only requires that the models of a pool fit its slices in total. If a solution cannot be packed into the
slices one by one, a cut excludes it (`planner.candidates.pools`) and the program is solved again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from jigsaw_triton.planner.candidates.pools import Cut, Pool, fitting
from jigsaw_triton.planner.formulation.model import Allocation
from jigsaw_triton.planner.solver.deadline import LEAST_S, Deadline
from jigsaw_triton.planner.solver.program import Draft
from jigsaw_triton.planner.solver.solver import Outcome, Solver, Stage, solved

_MOST_SOLVES = 40
"""Largest number of times that a program is solved to find a solution that can be packed. A convention."""

_MOST_TIE_SOLVES = 4
"""Largest number of times that the later objectives are solved for the same reason. A convention."""

_FIRST_PART = 0.7
"""Share of the remaining time for one solution with shared slices, as it may have to be searched for again. A
convention."""

_ROOM_GAP = 0.01
"""Absolute and relative gap, in cycles, of the objective that keeps shared slices empty. A convention."""

_SLICES_AND_GPUS = 2
"""Number of objectives, slices and GPUs, that come before those that decide ties."""


@dataclass(frozen=True, slots=True)
class Refinement:
    """Refinement of one program.

    Attributes:
        model: Function that builds the program with these cuts on shared slices.
        cuts: Known cuts; new ones are added.
        solver: Solver to use.
    """

    model: Callable[[Sequence[Cut]], Allocation]
    cuts: list[Cut]
    solver: Solver

    def best(self, limit_s: float, ties_s: float) -> tuple[Allocation, Outcome]:
        """Finds the optimum.

        It minimises slices first, then GPUs, then the use of shared slices. The later objectives come last and may only
        improve on that within the same shared slices.

        Args:
            limit_s: Time limit for everything.
            ties_s: Time limit for the later objectives.
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
        for _ in range(_MOST_TIE_SOLVES):
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
        """Finds the optimum with all objectives; if time runs out, pools that cannot be packed get more slices."""
        time = Deadline(limit_s)
        for _ in range(_MOST_SOLVES):
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
        """Solves again with as many slices in each pool as its models need; unknown if the GPUs do not have them."""
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
    """Replaces the objectives after slices and GPUs by one that minimises the use of shared slices."""
    columns = [(column, c.turn.cycle) for c, column in made.count.items() if c.shares]
    draft = Draft(list(made.program.columns), list(made.program.rows), list(made.program.objectives[:_SLICES_AND_GPUS]))
    draft.minimise(columns, gap=_ROOM_GAP, relative_gap=_ROOM_GAP, node_limit=1)
    return replace(made, program=replace(draft.program(), start=made.program.start))


def _settled(made: Allocation, before: Allocation, outcome: Outcome) -> Allocation:
    """Fixes the number of shared slices and limits the first objectives to what was found; keeps the later ones."""
    number = before.shared(outcome.values)
    columns, objectives = list(made.program.columns), made.program.objectives
    for pool, column in made.pools.items():
        slices = float(number.get(pool, 0))
        columns[column] = replace(columns[column], lower=slices, upper=slices)
    draft = Draft(columns, list(made.program.rows), list(objectives[_SLICES_AND_GPUS:]))
    for objective, stage in zip(objectives, outcome.stages[:_SLICES_AND_GPUS], strict=False):
        draft.at_most(round(stage.value), objective.terms)
    return replace(made, program=draft.program())
