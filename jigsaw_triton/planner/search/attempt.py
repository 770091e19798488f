"""One attempt to solve a planning problem with one solver, and the candidates that it chooses from."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from jigsaw_triton.errors import JigsawError
from jigsaw_triton.planner.candidates.configurations import available
from jigsaw_triton.planner.candidates.fused_chains import Apart, in_shared_slices, with_fused_chains, without
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem, with_demand_scaled
from jigsaw_triton.planner.domain.survival import domains
from jigsaw_triton.planner.search.choices import Candidates, filtered, staying, worth_trying
from jigsaw_triton.planner.solver.solver import Solver
from jigsaw_triton.runtime.chains import members


@dataclass(frozen=True, slots=True)
class Attempt:
    """A problem, its options, and the solver to use.

    Attributes:
        problem: Prepared problem.
        options: Checked options.
        configurations: Graph name -> task -> all configurations.
        solver: Solver of every program of this attempt.
        unfused: The problem with one task each, if the chains of `problem` are fused into single tasks; else None.
        whole: The attempt with all failure domains together, if those of `problem` are apart; else None.
        variants: (graph, task, variant) of the variants to choose from; None for all.
    """

    problem: Problem
    options: Options
    configurations: Candidates
    solver: Solver
    unfused: Problem | None = None
    whole: "Attempt | None" = None
    variants: frozenset[tuple[str, str, str]] | None = None

    def candidates(self) -> Candidates:
        """Returns the configurations that an optimal plan may need, even if the cluster has no room for them."""
        found = worth_trying(self.problem, self.configurations, self.options)
        return found if self.unfused is None else in_shared_slices(found)

    def scaled(self, growing: Collection[str], scale: float) -> "Attempt":
        """Returns the attempt with the demands of these graphs multiplied by a scale."""
        whole = self.whole.scaled(growing, scale) if self.whole is not None else None
        return replace(self, problem=with_demand_scaled(self.problem, growing, scale), whole=whole)

    def apart(self) -> "Attempt":
        """Returns the attempt with a model of GPU for each failure domain, if plans must survive the loss of one."""
        if not self.problem.survive or self.whole is not None:
            return self
        found, problem = domains(self.problem.cluster), self.problem
        running = found.apart_plan(problem.running) if problem.running is not None else None
        cluster = found.apart(problem.cluster)
        names: dict[str, set[str]] = {}
        for before, after in zip(problem.cluster.gpus, cluster.gpus, strict=True):
            names.setdefault(before.board.name, set()).add(after.board.name)
        configurations = {
            graph: {
                task: tuple(sorted(replace(c, board=name) for c in every for name in names[c.board]))
                for task, every in tasks.items()
            }
            for graph, tasks in self.configurations.items()
        }
        apart = replace(problem, cluster=cluster, running=running)
        return replace(self, problem=apart, configurations=configurations, whole=self)

    def unprotected(self) -> "Attempt":
        """Returns the attempt at a plan that need not survive any loss."""
        return replace(self, problem=self.problem.unprotected())

    def limited(self, time_limit_s: float) -> "Attempt":
        """Returns the attempt with another time limit."""
        return replace(self, options=replace(self.options, time_limit_s=time_limit_s))

    def like(self, plan: Plan) -> "Attempt":
        """Returns the attempt with only the variants that a plan uses."""
        variants = frozenset(
            (graph, task, s.variant)
            for graph, one in plan.graphs.items()
            for task, part in one.tasks.items()
            for s in part.segments
        )
        return replace(self, variants=variants, configurations=_of_variants(self.configurations, variants))

    def fused(self) -> "Attempt | None":
        """Returns the attempt with each chain that fits a shared slice as one task; None if there is no such chain."""
        if not self.options.share or "T" not in self.options.features:
            return None
        left_out: Apart = frozenset()
        while (problem := with_fused_chains(self.problem, left_out)) is not None:
            stay = staying(problem, self.options)
            configurations: Candidates = {
                w.graph.name: available(w.graph, problem.profiles[w.graph.name], problem.boards, self.options, stay)
                for w in problem.workloads
            }
            if self.variants is not None:
                configurations = _of_variants(configurations, self.variants)
            attempt = replace(self, problem=problem, configurations=configurations, unfused=self.problem)
            unfit = without(configurations) or without(attempt.candidates())
            if not unfit:
                return attempt
            left_out |= unfit
        return None


def _of_variants(candidates: Candidates, variants: Collection[tuple[str, str, str]]) -> Candidates:
    """Returns the configurations of these variants; those of a fused chain consist of them."""
    return filtered(
        candidates,
        lambda c: all(
            (c.graph, task, variant) in variants
            for task, variant in zip(members(c.task), members(c.variant), strict=True)
        ),
    )


class OutOfTimeError(JigsawError):
    """The time limit ended before a plan was found or proven impossible.

    Args:
        time_limit_s: Seconds that the solver was given.
    """

    def __init__(self, time_limit_s: float) -> None:
        super().__init__(
            f"no feasible plan was found within {time_limit_s:g} s; the problem may still be feasible",
            hint="allow more time with --time-limit",
        )
