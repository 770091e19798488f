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

If slices may be shared (`planner.candidates.sharing`), x_c of a configuration that shares is binary. Each pool p has an
integer number n_p of slices, which count like slices with one replica.

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
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.candidates.configurations import Configuration, Replica, TaskConfigurations, accuracy_budget
from jigsaw_triton.planner.candidates.sharing import Cut, Pool, pool_of, weights
from jigsaw_triton.planner.domain.problem import ReplicaRange
from jigsaw_triton.planner.domain.processors import REQUEST_S, ProcessorLimit
from jigsaw_triton.planner.domain.rates import calls, most_calls
from jigsaw_triton.planner.domain.survival import domain_of
from jigsaw_triton.planner.domain.tolerances import FLOAT_ERROR
from jigsaw_triton.planner.formulation.exclusions import exclude, measured_excess
from jigsaw_triton.planner.formulation.incremental_levels import (
    IncrementalLevels,
    Weight,
    incremental_levels,
    path_ends,
)
from jigsaw_triton.planner.formulation.mixture import mean_weights
from jigsaw_triton.planner.formulation.supply import Supply, SupplyUnit
from jigsaw_triton.planner.solver.program import Draft, Program

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

Goal = Literal["least", "accurate", "most", "ideal"]
"""Goal of the program: `least` cost for a plan; `accurate`, the least loss of accuracy, then the least cost; `most`,
the largest common scale of demands; or `ideal`, the least cost of slices, then of GPUs, if there were unlimited
GPUs."""


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
        slice_cost: Cost of a compute slice of the price.
        survive: Share of the demand that the loss of any failure domain must leave; 0 for none.
        limit: Limit on processors that slices share; None for none.
    """
    draft = Draft()
    scale = draft.real() if goal == "most" else None
    count: dict[Configuration, int] = {}
    losses: list[tuple[int, float]] = []
    busy: list[tuple[int, float]] = []
    requests: list[tuple[int, float]] = []
    processors = limit.processors * limit.nodes if limit is not None else math.inf
    for workload in workloads:
        part = _Part(draft, workload, candidates[workload.graph.name], goal, (running or {}) if price else {})
        part.choose(supplies)
        own_scale = scale if scaled is None or workload.graph.name in scaled else None
        part.flow(own_scale)
        if survive:
            part.survive(survive, own_scale)
        busy += part.busy(limit) if limit is not None else []
        if own_scale is not None:
            requests.append((own_scale, workload.demand_rps * REQUEST_S))
        else:
            processors -= workload.demand_rps * REQUEST_S
        part.limit()
        count |= part.count
        losses += part.losses()
    if busy:
        draft.at_most(processors, busy + requests)
    pools = _pools(draft, count, supplies, unlimited=goal == "ideal")
    for cut in cuts:
        inside = [count[c] for c in cut.configurations if c in count]
        if cut.pool in pools:
            draft.at_least(cut.slices - len(cut.configurations), [(pools[cut.pool], 1.0), *((x, -1.0) for x in inside)])
    taken = [(c.board, c.slice, column) for c, column in count.items() if not c.shares]
    taken += [(pool.board, pool.slice, column) for pool, column in pools.items()]
    priced = _kept(draft, count, running or {}) if price else {}
    staying = [(replica[3], replica, column) for replica, column in priced.items()]
    layouts = _layouts(draft, [*taken, *staying], supplies, unlimited=goal == "ideal")
    node_limit = max(1, TIE_EFFORT // len(draft.columns))
    if scale is not None:
        draft.at_least(least, [(scale, 1.0)])
        draft.minimise([(scale, -1.0)], gap=1e-9, relative_gap=SCALE_GAP)
    else:
        costs = {
            (s.board.name, kind): float(p.compute_slices * s.board.slice_cost)
            for s in supplies
            for kind, p in s.board.profiles.items()
        }
        slices = [(column, costs[board, kind]) for board, kind, column in taken]
        proof = COST_GAP * least if any(s.board.slice_cost > 1 for s in supplies) else 0.0
        if goal == "accurate":
            if price:
                losses += [(column, price / slice_cost * cost) for column, cost in slices]
                losses += [(k, -price) for k in priced.values()]
            if losses:
                draft.minimise(losses, gap=ACCURACY_GAP)
            draft.minimise_count(slices, gap=proof, node_limit=node_limit)
        elif price:
            draft.at_least(least, slices)
            kept = [(k, -price * slice_cost) for k in priced.values()]
            draft.minimise([*slices, *kept], gap=max(PRICE_GAP * slice_cost, gap * least))
            if priced:
                draft.minimise_count(((k, -1.0) for k in priced.values()), node_limit=node_limit)
        else:
            draft.minimise_count(slices, gap=proof, relative_gap=gap, cutoff=enough, lower_bound=least)
        common = math.gcd(*layouts.values()) or 1
        gpus = [(z, float(cost // common)) for z, cost in layouts.items()]
        draft.at_least(math.ceil(least / common), gpus)
        draft.minimise_count(gpus, gap=proof / common, node_limit=node_limit)
    if goal == "least" and losses:
        draft.minimise(losses, gap=ACCURACY_GAP, node_limit=node_limit)
    if goal in ("least", "accurate"):
        staying_columns = {} if price else _kept(draft, count, running or {})
        if staying_columns:
            draft.minimise_count(((k, -1.0) for k in staying_columns.values()), node_limit=node_limit)
    program = draft.program()
    if start:
        slots = [(column, float((pooled or {}).get(pool, 0))) for pool, column in pools.items()]
        program = replace(program, start=(*((column, float(start.get(c, 0))) for c, column in count.items()), *slots))
    return Allocation(program, count, pools, layouts, scale)


class _Part:
    """Columns and rows of one graph.

    Args:
        draft: Program to add to.
        workload: Graph and demand.
        found: Configurations of the graph.
        goal: Goal of the whole program.
        staying: Running replicas that may be kept even if they carry nothing.
    """

    def __init__(
        self, draft: Draft, workload: Workload, found: TaskConfigurations, goal: Goal, staying: Mapping[Replica, int]
    ) -> None:
        self._draft, self._workload, self._found, self._goal = draft, workload, found, goal
        self._staying = staying
        graph = workload.graph
        self._variants = {task: {c.variant: c.loss for c in configurations} for task, configurations in found.items()}
        calls_per_request = most_calls(graph, self._variants)
        # If nothing yields a row, the rate is 0 and any unit will do for the shares.
        self._largest = {task: workload.demand_rps * n or 1.0 for task, n in calls_per_request.items()}
        self.count: dict[Configuration, int] = {}
        self._most: dict[Configuration, float] = {}
        self._share: dict[tuple[str, str], int] = {}
        self._excess: list[int] = []
        self._ranges: list[tuple[int, float, Sequence[Configuration]]] = []

    def choose(self, supplies: Sequence[Supply]) -> None:
        """Adds the counts of replicas, at least one for each task."""
        by_board = {s.board.name: s for s in supplies}
        for configurations in self._found.values():
            for c in configurations:
                self._most[c] = self._most_of(c, by_board[c.board])
                self.count[c] = self._draft.integer(self._most[c])
            self._number(configurations)

    def _number(self, configurations: Sequence[Configuration]) -> None:
        """Requires one replica that shares a slice, or a number of others within one range of their latencies."""
        shared = [(self.count[c], 1.0) for c in configurations if c.shares]
        ranges: dict[ReplicaRange, list[Configuration]] = {}
        for c in configurations:
            if not c.shares:
                ranges.setdefault(c.replica_range, []).append(c)
        chosen = [*shared]
        for (least, most), inside in sorted(ranges.items()):
            some = self._draft.integer(1)
            chosen.append((some, 1.0))
            self._ranges.append((some, float(least), inside))
            counts = [(self.count[c], 1.0) for c in inside]
            self._draft.at_least(0, [*counts, (some, -float(least))])
            self._draft.at_most(0, [*counts, (some, -min(most, sum(self._most[c] for c in inside)))])
        self._draft.equal(1, chosen)

    def _most_of(self, c: Configuration, supply: Supply) -> float:
        """Returns the most replicas that a plan may need: enough to carry the whole task, or to reach its range."""
        if c.shares:
            return 1
        available = math.inf if self._goal == "ideal" else supply.most(c.slice)
        if self._goal == "most":
            return available
        carry_all = math.ceil(self._largest[c.task] / c.throughput_rps)
        return min(available, max(c.replica_range[0], carry_all, self._staying.get(c.replica, 0)))

    def flow(self, scale: int | None) -> None:
        """Adds the shares: at most what the replicas carry, in sum what the requests or the source's shares require."""
        self._share = self._flow(self.count, self._workload.demand_rps, scale)

    def survive(self, part: float, scale: int | None) -> None:
        """Requires that the loss of any failure domain leaves this part of the demand, and enough replicas."""
        for domain in sorted({domain_of(c.board) for c in self.count}):
            left = {c: column for c, column in self.count.items() if domain_of(c.board) != domain}
            shares = self._flow(left, part * self._workload.demand_rps, scale)
            if self._workload.graph.slo.accuracy_mode == "mean":
                for key, column in shares.items():
                    self._draft.equal(0, [(column, 1.0), (self._share[key], -part)])
            for some, least, inside in self._ranges:
                self._draft.at_least(0, [*((left[c], 1.0) for c in inside if c in left), (some, -least)])

    def _flow(self, count: Mapping[Configuration, int], demand: float, scale: int | None) -> dict[tuple[str, str], int]:
        """Adds the shares of a demand, in requests a second, that these replicas carry, and returns their columns."""
        share: dict[tuple[str, str], int] = {}
        for task, variants in self._variants.items():
            for variant in variants:
                f = share[task, variant] = self._draft.real()
                carried = [
                    (count[c], -c.throughput_rps / self._largest[task])
                    for c in self._found[task]
                    if c.variant == variant and c in count
                ]
                self._draft.at_most(0, [(f, 1), *carried])
        graph = self._workload.graph
        for task, variants in self._variants.items():
            rule = calls(graph, graph.tasks[task])
            shares = [(share[task, v], 1.0) for v in variants]
            if rule.source is not None:
                ratio = self._largest[rule.source] / self._largest[task]
                taken = [(share[rule.source, v], -ratio * rule.weight(graph, v)) for v in self._variants[rule.source]]
                self._draft.equal(0, shares + taken)
            elif scale is not None:
                self._draft.equal(0, [*shares, (scale, -rule.factor * demand / self._largest[task])])
            else:
                self._draft.equal(rule.factor * demand / self._largest[task], shares)
        return share

    def busy(self, limit: ProcessorLimit) -> list[tuple[int, float]]:
        """Returns the terms of a lower bound on the processors that the calls keep busy.

        The calls of a variant take at least the processor time of its most economical configuration.
        """
        graph, terms = self._workload.graph.name, []
        for task, configurations in self._found.items():
            seconds: dict[str, float] = {}
            for c in configurations:
                known = limit.call_s(graph, task, c.variant, c.board, c.slice, c.batch) or 0.0
                seconds[c.variant] = min(known, seconds.get(c.variant, math.inf))
            terms += [(self._share[task, v], self._largest[task] * s) for v, s in seconds.items() if s]
        return terms

    def limit(self) -> None:
        """Keeps the configurations in use within the SLO's latency and accuracy along every path."""
        graph = self._workload.graph
        tasks_ms = graph.tasks_ms
        # Latencies are scaled by the SLO so that the solver's absolute tolerance becomes relative to the SLO.
        latency = self._levels(self._found, {c: c.latency_ms / tasks_ms for c in self.count})
        self._keep(1.0, {task: levels.weight for task, levels in latency.items()})
        means: dict[str, Weight] = {}
        if graph.slo.accuracy_mode == "mean" and self._goal != "most":
            shares = {task: {v: self._share[task, v] for v in losses} for task, losses in self._variants.items()}
            means = mean_weights(self._draft, graph, shares, dict.fromkeys(shares, 1.0))
        floors = {task: found for task, found in self._found.items() if task not in means}
        loss = self._levels(floors, {c: c.loss for c in self.count})
        self._keep(accuracy_budget(graph) + FLOAT_ERROR, means | {task: levels.weight for task, levels in loss.items()})
        if self._goal != "most":
            for task, levels in loss.items():
                variants = self._variants[task].items()
                for level in levels.levels:
                    beyond = [(self._share[task, v], 1.0) for v, lost in variants if lost >= level.weight]
                    self._draft.at_most(0, [*beyond, (level.column, -1)])

        count = {c: (column, self._most[c]) for c, column in self.count.items()}
        columns = exclude(self._draft, graph, count)
        if self._goal in ("least", "accurate"):
            self._excess = measured_excess(self._draft, graph, count, columns)
        for use, column in columns.items():
            if self._goal != "most" and use in self._share:
                self._draft.at_most(0, [(self._share[use], 1.0), (column, -1.0)])

    def _levels(
        self, configurations: TaskConfigurations, weight: Mapping[Configuration, float]
    ) -> dict[str, IncrementalLevels]:
        """Adds levels that must be reached before the configurations above them may be used."""
        levels = {
            task: incremental_levels(self._draft, (weight[c] for c in found)) for task, found in configurations.items()
        }
        for c in (c for found in configurations.values() for c in found):
            if (gate := levels[c.task].gate(weight[c])) is not None:
                self._draft.at_most(0, [(self.count[c], 1), (gate, -self._most[c])])
        return levels

    def _keep(self, budget: float, weights: Mapping[str, Weight]) -> None:
        """Limits the sum of the tasks' weights along every path."""
        for end in path_ends(self._draft, self._workload.graph, weights):
            self._draft.at_most(budget, [(end, 1)])

    def losses(self) -> list[tuple[int, float]]:
        """Returns the terms of the accuracy loss: losses of variants by shares, and what pairs in use lose beyond."""
        own = [
            (self._share[task, v], loss)
            for task, variants in self._variants.items()
            for v, loss in variants.items()
            if loss > 0
        ]
        return own + [(column, 1.0) for column in self._excess]


def _pools(
    draft: Draft, count: Mapping[Configuration, int], supplies: Sequence[Supply], *, unlimited: bool
) -> dict[Pool, int]:
    """Adds the number of slices of each pool.

    The configurations of a pool fit its slices by each measure of size, and each slice has a task at most once.
    """
    found: dict[Pool, list[Configuration]] = {}
    for c in count:
        if c.shares:
            found.setdefault(pool_of(c), []).append(c)
    by_board = {s.board.name: s for s in supplies}
    pools: dict[Pool, int] = {}
    for pool, inside in found.items():
        n = pools[pool] = draft.integer(None if unlimited else by_board[pool.board].most(pool.slice))
        for measure in sorted(set(zip(*(weights(c) for c in inside), strict=True))):
            if any(measure):
                draft.at_most(0, [(n, -1.0), *((count[c], m) for c, m in zip(inside, measure, strict=True) if m)])
        tasks: dict[tuple[str, str], list[int]] = {}
        for c in inside:
            tasks.setdefault((c.graph, c.task), []).append(count[c])
        for columns in tasks.values():
            draft.at_most(0, [(n, -1.0), *((column, 1.0) for column in columns)])
    return pools


def _layouts(
    draft: Draft, taken: Sequence[tuple[str, SupplyUnit, int]], supplies: Sequence[Supply], *, unlimited: bool
) -> dict[int, int]:
    """Adds the numbers of GPUs by group and multiset, which together supply the slices in use.

    Returns the cost of a GPU by column.

    Args:
        draft: Program to add to.
        taken: (model of GPU, kind of slice or running replica, column of the number in use).
        supplies: Supply of each model of GPU.
        unlimited: True if there are unlimited GPUs.
    """
    layouts: dict[int, int] = {}
    for supply in supplies:
        z: list[tuple[int, Counter[SupplyUnit]]] = []
        if unlimited:
            z = [(draft.integer(None), m) for m in supply.whole]
        for group in () if unlimited else supply.groups:
            cuts = [(draft.integer(group.gpus), m) for m in group.multisets]
            draft.at_most(group.gpus, [(column, 1) for column, _ in cuts])
            z += cuts
        layouts |= dict.fromkeys((column for column, _ in z), supply.board.compute_slices * supply.board.slice_cost)
        used: dict[SupplyUnit, list[tuple[int, float]]] = {}
        for board, kind, column in taken:
            if board == supply.board.name:
                unit, number = supply.takes(kind)
                used.setdefault(unit, []).append((column, number))
        for unit, terms in used.items():
            draft.at_most(0, [*terms, *((column, -m[unit]) for column, m in z if m[unit])])
    return layouts


def _kept(draft: Draft, count: Mapping[Configuration, int], running: Mapping[Replica, int]) -> dict[Replica, int]:
    """Adds, for each running replica, the number of them that stay in use."""
    columns: dict[Replica, list[int]] = {}
    for c, column in count.items():
        columns.setdefault(c.replica, []).append(column)
    kept = {}
    for replica, alike in columns.items():
        if n := running.get(replica, 0):
            kept[replica] = draft.integer(n)
            draft.at_most(0, [(kept[replica], 1), *((column, -1) for column in alike)])
    return kept
