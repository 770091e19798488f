"""The mixed-integer program: the number of replicas of each configuration and the number of GPUs of each cut.

Variables: for each configuration c an integer count x_c; for each variant v of a task its share f_v of the task's
largest rate; for each group of interchangeable GPUs (by model and foreign instances) and multiset m of slices an
integer number z_m of GPUs cut that way; for each task binary levels of latency and of accuracy loss.

    f_v <= sum over v's configurations of usable throughput / largest rate * x_c
    sum of f over a task = what the requests or the shares of the source task require (`planner.domain.rates`)
    for each task, one range of replica numbers: sum of x over its configurations is within it, all other x are 0
    x_c <= (upper bound of x_c) * (level of c's latency), same for loss;  f of variants that lose more <= level of loss
    along each path: sum of latency levels <= SLO, sum of loss levels <= -log(accuracy SLO)
    for each pair of variants that was measured to lose more: at most one of the two in use (`domain.accuracy`)
    sum of f * (rate * processor time of a call) <= processors, on boards whose slices share them (`domain.processors`)
    sum of x over a kind of slice <= sum of z_m * (slices of that kind in m),  sum of z over a group <= its GPUs

If slices may be shared (`planner.candidates.sharing`), x_c of a configuration that shares is binary. Each pool p
(`planner.candidates.pools`) has an integer number n_p of slices, which count like slices with one replica.

    for each measure of size: sum over the configurations in p <= n_p
    for each task: one replica that shares a slice, or any number of others

If the accuracy SLO is a mean, a task's loss is that of its mean accuracy by its shares (`planner.formulation.mixture`),
without levels; the goal `most` treats the SLO as a floor even then.

If plans must survive the loss of a failure domain (`planner.domain.survival`), there is for each domain d a second set
of shares, those of the rest after its loss. They add up to a share of what f adds up to, and if the accuracy SLO is a
mean, each is that share of f. The rest must still be as many replicas as the latency of the task's range is for.

    fd_v <= sum over v's configurations outside d of usable throughput / largest rate * x_c
    for each task and range: sum of x over its configurations outside d >= least number of the range, if it is in use

In the paper's formulation, the last constraint is on compute slices only; a GPU has as many as foreign instances leave.

Objectives: cost of the slices in use; cost of the GPUs in use; accuracy loss weighted by shares; running replicas kept.
Costs are in whole units (`planner.domain.costs`); on boards of one kind they are numbers of compute slices and of GPUs.
With a price on changes, GPUs are also grouped by what runs on them (`planner.placement.running_supply`), and for each
running replica r an integer k_r counts those that stay in place.

    k_r <= sum of x over the utilisations of r,  k_r <= sum of z * (replicas r that the cut keeps)

The first objectives are then cost - price * sum of k, and the sum of k.

The goal `accurate` puts the loss before cost. With a price, its first objective is loss + price * (cost - sum of k): a
slice that gains less accuracy than its price stays idle, and so does a running replica without use. In both, a slice of
the price costs as much as a compute slice of the cluster on average.

(The structure follows what is known of JigsawServe, arXiv 2603.08797; counting cuts instead of summing slices makes
every solution placeable.)
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.candidates.configurations import Configuration, Replica, TaskConfigurations
from jigsaw_triton.planner.candidates.pools import Cut, Pool, pool_of
from jigsaw_triton.planner.domain.processors import REQUEST_S, ProcessorLimit
from jigsaw_triton.planner.formulation.graph_rows import Goal, GraphRows
from jigsaw_triton.planner.formulation.objectives import Objectives
from jigsaw_triton.planner.formulation.slice_rows import kept_rows, layout_rows, pool_rows
from jigsaw_triton.planner.formulation.supply import Supply
from jigsaw_triton.planner.solver.program import Draft, Program


@dataclass(frozen=True, slots=True)
class Allocation:
    """The program and the meaning of its columns.

    Attributes:
        program: The program to solve.
        count: Configuration -> column of its count.
        pools: Pool of shared slices -> column of the number of slices.
        layouts: Column of the number of GPUs of each cut -> cost of such a GPU.
        scale: Column of the common scale of demands, with the goal `most`.
    """

    program: Program
    count: Mapping[Configuration, int]
    pools: Mapping[Pool, int]
    layouts: Mapping[int, int]
    scale: int | None

    def counts(self, values: Sequence[float]) -> dict[Configuration, int]:
        """Returns the number of replicas of each configuration in use."""
        return {c: n for c, column in self.count.items() if (n := round(values[column])) > 0}

    def shared(self, values: Sequence[float]) -> dict[Pool, int]:
        """Returns the number of slices of each pool in use."""
        return {pool: n for pool, column in self.pools.items() if (n := round(values[column])) > 0}

    def slices(self, values: Sequence[float]) -> int:
        """Returns the number of compute slices in use."""
        slices = sum(n * c.compute_slices for c, n in self.counts(values).items() if not c.shares)
        inside = {pool_of(c): c for c in self.count if c.shares}
        return slices + sum(n * inside[pool].compute_slices for pool, n in self.shared(values).items())

    def gpus(self, values: Sequence[float]) -> int:
        """Returns the number of GPUs in use."""
        return sum(round(values[column]) for column in self.layouts)

    def gpu_cost(self, values: Sequence[float]) -> int:
        """Returns the cost of the GPUs in use."""
        return sum(cost * round(values[column]) for column, cost in self.layouts.items())


def allocation(
    workloads: Sequence[Workload],
    candidates: Mapping[str, TaskConfigurations],
    supplies: Sequence[Supply],
    goal: Goal = "least",
    running: Mapping[Replica, int] | None = None,
    scaled: Collection[str] | None = None,
    least: float = 0.0,
    enough: float = math.inf,
    gap: float = 0.0,
    start: Mapping[Configuration, int] | None = None,
    cuts: Collection[Cut] = (),
    pooled: Mapping[Pool, int] | None = None,
    price: float = 0.0,
    slice_cost: float = 1.0,
    survive: float = 0.0,
    limit: ProcessorLimit | None = None,
) -> Allocation:
    """Builds the program.

    Args:
        workloads: Graphs and demands.
        candidates: Graph name -> task -> configurations, at least one each; those that share a slice are for these
            demands.
        supplies: Supply of each model of GPU, in all kinds of slices of the configurations.
        goal: Goal of the program.
        running: Replicas that run now; if given, keeping them is the last objective.
        scaled: Graphs whose demand the goal `most` scales, None for all; the others keep theirs.
        least: Lower bound on the cost; with the goal `most`, a scale that is known to be feasible.
        enough: Largest useful cost; a plan that costs more skips the later objectives.
        gap: Relative gap in the cost at which a plan is accepted.
        start: Warm start: replicas of a plan that may be good.
        cuts: Known cuts on shared slices.
        pooled: Warm start: slices of each pool.
        price: Compute slices, or loss with the goal `accurate`, that it is worth to keep a running replica in place. If
            above 0 and replicas run, the supplies must be those of `planner.placement.running_supply`.
        slice_cost: Cost that counts as one compute slice of the price.
        survive: Share of the demand that the loss of any failure domain must leave; 0 for none.
        limit: Limit on processors that slices share; None for none.
    """
    draft = Draft()
    scale = draft.real() if goal == "most" else None
    count: dict[Configuration, int] = {}
    losses: list[tuple[int, float]] = []
    processors = _ProcessorRow(limit)
    for workload in workloads:
        part = GraphRows(draft, workload, candidates[workload.graph.name], goal, (running or {}) if price else {})
        part.choose(supplies)
        own_scale = scale if scaled is None or workload.graph.name in scaled else None
        part.flow(own_scale)
        if survive:
            part.survive(survive, own_scale)
        processors.add(part, workload.demand_rps, own_scale)
        part.limit()
        count |= part.count
        losses += part.losses()
    processors.write(draft)
    pools = pool_rows(draft, count, supplies, unlimited=goal == "ideal")
    _cut_rows(draft, cuts, count, pools)
    taken = [(c.board, c.slice, column) for c, column in count.items() if not c.shares]
    taken += [(pool.board, pool.slice, column) for pool, column in pools.items()]
    priced = kept_rows(draft, count, running or {}) if price else {}
    staying = [(replica[3], replica, column) for replica, column in priced.items()]
    layouts = layout_rows(draft, [*taken, *staying], supplies, unlimited=goal == "ideal")
    costs = _slice_costs(supplies)
    slices = [(column, costs[board, kind]) for board, kind, column in taken]
    mixed = any(s.board.slice_cost > 1 for s in supplies)
    objectives = Objectives(draft, slices, priced.values(), price, slice_cost, least, mixed=mixed)
    if scale is not None:
        objectives.largest_scale(scale)
    else:
        if goal == "accurate":
            objectives.least_loss_and_cost(losses)
        elif price:
            objectives.least_cost_of_changes(gap)
        else:
            objectives.least_cost(gap, enough)
        objectives.least_cost_of_gpus(layouts)
    if goal == "least" and losses:
        objectives.least_loss(losses)
    if goal in ("least", "accurate") and not price:
        objectives.most_kept(kept_rows(draft, count, running or {}).values())
    program = draft.program()
    if start:
        slots = [(column, float((pooled or {}).get(pool, 0))) for pool, column in pools.items()]
        program = replace(program, start=(*((column, float(start.get(c, 0))) for c, column in count.items()), *slots))
    return Allocation(program, count, pools, layouts, scale)


def _slice_costs(supplies: Sequence[Supply]) -> dict[tuple[str, str], float]:
    """Returns the cost of a slice by model of GPU and kind."""
    return {
        (s.board.name, kind): float(p.compute_slices * s.board.slice_cost)
        for s in supplies
        for kind, p in s.board.profiles.items()
    }


class _ProcessorRow:
    """The row by which the processors that slices share carry all graphs.

    Args:
        limit: Limit on the processors; None for none.
    """

    def __init__(self, limit: ProcessorLimit | None) -> None:
        self._limit = limit
        self._left = limit.processors * limit.nodes if limit is not None else math.inf
        self._busy: list[tuple[int, float]] = []
        self._requests: list[tuple[int, float]] = []

    def add(self, part: GraphRows, demand_rps: float, scale: int | None) -> None:
        """Adds a graph: what its replicas keep busy, and what its requests take at the gateway.

        Args:
            part: Rows of the graph.
            demand_rps: Demand of the graph.
            scale: Column of the scale of the demand; None if the demand is fixed.
        """
        self._busy += part.busy(self._limit) if self._limit is not None else []
        if scale is not None:
            self._requests.append((scale, demand_rps * REQUEST_S))
        else:
            self._left -= demand_rps * REQUEST_S

    def write(self, draft: Draft) -> None:
        """Writes the row, if any replica takes processors."""
        if self._busy:
            draft.at_most(self._left, self._busy + self._requests)


def _cut_rows(
    draft: Draft, cuts: Collection[Cut], count: Mapping[Configuration, int], pools: Mapping[Pool, int]
) -> None:
    """Writes the cuts on pools of shared slices."""
    for cut in cuts:
        inside = [count[c] for c in cut.configurations if c in count]
        if cut.pool in pools:
            draft.at_least(cut.slices - len(cut.configurations), [(pools[cut.pool], 1.0), *((x, -1.0) for x in inside)])
