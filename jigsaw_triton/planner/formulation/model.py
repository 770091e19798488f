"""The mixed-integer program: how many replicas of which configuration, on how many GPUs of which cut.

For each configuration c: whole count x_c. For each variant v of a task: share f_v of the task's largest rate. For each
model of GPU, what others have on it, and multiset m of slices: whole number z_m of GPUs so cut. For each task: steps of
latency and of lost accuracy.

    f_v <= sum over v's configurations of usable throughput / largest rate * x_c
    sum of f over a task = what the requests or the source task's shares call for (`planner.domain.rates`)
    of a task's ranges of numbers of replicas one: sum of x over what is for it within it, of all else 0
    x_c <= most_c * (step of c's latency taken), likewise of its loss;  f of what loses more than a step <= that step
    along every path: sum of steps of latency <= SLO, of loss <= -log(accuracy SLO)
    sum of x over a kind of slice <= sum of z_m * (how many of it m has),  sum of z over GPUs alike <= their number

Where slices may be shared (`planner.candidates.sharing`), x_c of what shares is 0 or 1, and each pool p has a whole
number n_p of slices, which count as those that a replica has to itself.

    each of several measures of what shares in p, summed up <= n_p
    of a task: one replica that shares, or any number of others

Where the mean accuracy counts, a task's loss is that of the mean by its shares (`planner.formulation.mixture`), without
steps; the goal `most` keeps to floors there, too.

In the paper's formulation the last line is about compute slices, of which each GPU has as many as others left of it.

Objectives: compute slices; GPUs; loss of accuracy by share; replicas that run already. With a price on changes GPUs
are counted apart by what runs on them, too (`planner.placement.running_supply`), and for each replica r that runs
there is a number k_r of those that stay in place.

    k_r <= sum of x over its loads,  k_r <= sum of z * (how many of them the cut leaves)

The first objectives are then compute slices less price times sum of k, and the sum of k. (The structure follows what is
known of JigsawServe, arXiv 2603.08797; counts of cuts in place of a sum of slices make every solution placeable.)
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
from jigsaw_triton.planner.domain.rates import calls, most_calls
from jigsaw_triton.planner.formulation.incremental_levels import (
    IncrementalLevels,
    Weight,
    incremental_levels,
    path_ends,
)
from jigsaw_triton.planner.formulation.mixture import mean_weights
from jigsaw_triton.planner.formulation.supply import Given, Supply
from jigsaw_triton.planner.solver.program import Draft, Program

ACCURACY_GAP = 1e-3
"""Absolute, in the share-weighted loss of accuracy summed over tasks: 0.1% of accuracy is not worth longer solving."""

SCALE_GAP = 1e-4
"""Relative, of the largest demand."""

PRICE_GAP = 1e-4
"""Absolute, in compute slices, where changes have a price."""

TIE_EFFORT = 60_000
"""Columns times nodes of the search for the best among plans of least slices: large problems are left at that."""

Goal = Literal["least", "most", "ideal"]
"""`least`: the plan. `most`: the largest common scale of demands. `ideal`: least slices, then GPUs, were there
GPUs without end."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """The program and what its columns mean.

    Attributes:
        program: To solve.
        count: Configuration -> column of its count.
        pools: Pool of slices that are shared -> column of their number.
        cuts: Columns of the numbers of GPUs.
        scale: Column of the demands' common scale, for the goal `most`.
    """

    program: Program
    count: Mapping[Configuration, int]
    pools: Mapping[Pool, int]
    cuts: tuple[int, ...]
    scale: int | None

    def counts(self, values: Sequence[float]) -> dict[Configuration, int]:
        """Replicas of each configuration in use."""
        return {c: n for c, column in self.count.items() if (n := round(values[column])) > 0}

    def shared(self, values: Sequence[float]) -> dict[Pool, int]:
        """Slices of each pool in use."""
        return {pool: n for pool, column in self.pools.items() if (n := round(values[column])) > 0}

    def gpus(self, values: Sequence[float]) -> int:
        """GPUs in use."""
        return sum(round(values[column]) for column in self.cuts)


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
) -> Allocation:
    """Builds the program.

    Args:
        workloads: Graphs and demands.
        candidates: Graph name -> task -> configurations, at least one each; of what shares, at these demands.
        supplies: By model of GPU, of all kinds of slices that the configurations are on.
        goal: What for.
        running: Replicas that run now; where given, keeping them is the last objective.
        scaled: Graphs whose demand the goal `most` scales, all where None; the others keep theirs.
        least: Compute slices that are known to be needed; for the goal `most` the scale that is known to be carried.
        gap: Relative, in compute slices, at which a plan is good enough.
        start: Replicas of a plan that may be good.
        enough: More compute slices than this are of no use: such a plan's other objectives are not looked at.
        cuts: What is known of slices that are shared.
        pooled: Slices of each pool that belong to `start`.
        price: Compute slices that it is worth to leave one that runs in place, for the goal `least`; where it is above
            0 the supplies are those of `planner.placement.running_supply`.
    """
    draft = Draft()
    scale = draft.real() if goal == "most" else None
    count: dict[Configuration, int] = {}
    losses: list[tuple[int, float]] = []
    for workload in workloads:
        part = _Part(draft, workload, candidates[workload.graph.name], goal, (running or {}) if price else {})
        part.choose(supplies)
        part.flow(scale if scaled is None or workload.graph.name in scaled else None)
        part.limit()
        count |= part.count
        losses += part.losses()
    pools = _pools(draft, count, supplies, endless=goal == "ideal")
    for cut in cuts:
        inside = [(count[c], 1.0) for c in cut.configurations if c in count]
        if cut.pool in pools:
            draft.at_least(
                cut.slices - len(cut.configurations), [(pools[cut.pool], 1.0), *((x, -1.0) for x, _ in inside)]
            )
    taken = [(c.board, c.slice, column) for c, column in count.items() if not c.shares]
    taken += [(pool.board, pool.slice, column) for pool, column in pools.items()]
    priced = _kept(draft, count, running or {}) if price else {}
    staying = [(replica[3], replica, column) for replica, column in priced.items()]
    layouts = _layouts(draft, [*taken, *staying], supplies, endless=goal == "ideal")
    node_limit = max(1, TIE_EFFORT // len(draft.columns))
    if scale is not None:
        draft.at_least(least, [(scale, 1.0)])
        draft.minimise([(scale, -1.0)], gap=1e-9, relative_gap=SCALE_GAP)
    else:
        sizes = {
            (s.board.name, kind): float(p.compute_slices) for s in supplies for kind, p in s.board.profiles.items()
        }
        slices = [(column, sizes[board, kind]) for board, kind, column in taken]
        if price:
            draft.at_least(least, slices)
            draft.minimise([*slices, *((k, -price) for k in priced.values())], gap=max(PRICE_GAP, gap * least))
            if priced:
                draft.minimise_count(((k, -1.0) for k in priced.values()), node_limit=node_limit)
        else:
            draft.minimise_count(slices, relative_gap=gap, cutoff=enough, lower_bound=least)
        draft.at_least(math.ceil(least / max(s.board.compute_slices for s in supplies)), [(z, 1.0) for z in layouts])
        draft.minimise_count(((column, 1.0) for column in layouts), node_limit=node_limit)
    if goal == "least":
        if losses:
            draft.minimise(losses, gap=ACCURACY_GAP, node_limit=node_limit)
        kept = {} if price else _kept(draft, count, running or {})
        if kept:
            draft.minimise_count(((k, -1.0) for k in kept.values()), node_limit=node_limit)
    program = draft.program()
    if start:
        slots = [(column, float((pooled or {}).get(pool, 0))) for pool, column in pools.items()]
        program = replace(program, start=(*((column, float(start.get(c, 0))) for c, column in count.items()), *slots))
    return Allocation(program, count, pools, tuple(layouts), scale)


class _Part:
    """One graph's columns and rows.

    Args:
        draft: To add to.
        workload: The graph and its demand.
        found: Its configurations.
        goal: Of the whole program.
        staying: Replicas that run, and are worth having though they carry nothing.
    """

    def __init__(
        self, draft: Draft, workload: Workload, found: TaskConfigurations, goal: Goal, staying: Mapping[Replica, int]
    ) -> None:
        self._draft, self._workload, self._found, self._goal = draft, workload, found, goal
        self._staying = staying
        graph = workload.graph
        self._variants = {task: {c.variant: c.loss for c in of} for task, of in found.items()}
        calls_per_request = most_calls(graph, self._variants)
        # A rate of 0 (nothing yields a row) is as good as any other to take shares of.
        self._largest = {task: workload.demand_rps * n if n > 0 else 1.0 for task, n in calls_per_request.items()}
        self.count: dict[Configuration, int] = {}
        self._most: dict[Configuration, float] = {}
        self._share: dict[tuple[str, str], int] = {}

    def choose(self, supplies: Sequence[Supply]) -> None:
        """Counts; each task gets at least one replica."""
        by_board = {s.board.name: s for s in supplies}
        for configurations in self._found.values():
            for c in configurations:
                self._most[c] = self._most_of(c, by_board[c.board])
                self.count[c] = self._draft.integer(self._most[c])
            self._number(configurations)

    def _number(self, configurations: Sequence[Configuration]) -> None:
        """One replica that shares, or so many others as the latencies of one range of numbers hold for."""
        shared = [(self.count[c], 1.0) for c in configurations if c.shares]
        ranges: dict[ReplicaRange, list[Configuration]] = {}
        for c in configurations:
            if not c.shares:
                ranges.setdefault(c.among, []).append(c)
        chosen = [*shared]
        for (least, most), among in sorted(ranges.items()):
            some = self._draft.integer(1)
            chosen.append((some, 1.0))
            counts = [(self.count[c], 1.0) for c in among]
            self._draft.at_least(0, [*counts, (some, -float(least))])
            self._draft.at_most(0, [*counts, (some, -min(most, sum(self._most[c] for c in among)))])
        self._draft.equal(1, chosen)

    def _most_of(self, c: Configuration, supply: Supply) -> float:
        """Replicas beyond which no plan needs any: as many as carry the whole task, or make up its range's numbers."""
        if c.shares:
            return 1
        there_are = math.inf if self._goal == "ideal" else supply.most(c.slice)
        if self._goal == "most":
            return there_are
        carry_all = math.ceil(self._largest[c.task] / c.throughput_rps)
        return min(there_are, max(c.among[0], carry_all, self._staying.get(c.replica, 0)))

    def flow(self, scale: int | None) -> None:
        """Shares: what replicas can carry, adding up to what the requests, or the source's shares, call for."""
        for task, variants in self._variants.items():
            for variant in variants:
                f = self._share[task, variant] = self._draft.real()
                carried = [
                    (self.count[c], -c.throughput_rps / self._largest[task])
                    for c in self._found[task]
                    if c.variant == variant
                ]
                self._draft.at_most(0, [(f, 1), *carried])
        graph, demand = self._workload.graph, self._workload.demand_rps
        for task, variants in self._variants.items():
            rule = calls(graph, graph.tasks[task])
            shares = [(self._share[task, v], 1.0) for v in variants]
            if rule.source is not None:
                ratio = self._largest[rule.source] / self._largest[task]
                taken = [
                    (self._share[rule.source, v], -ratio * rule.weight(graph, v)) for v in self._variants[rule.source]
                ]
                self._draft.equal(0, shares + taken)
            elif scale is not None:
                self._draft.equal(0, [*shares, (scale, -rule.factor * demand / self._largest[task])])
            else:
                self._draft.equal(rule.factor * demand / self._largest[task], shares)

    def limit(self) -> None:
        """What is in use stays within the latency and the accuracy of the SLO along every path."""
        graph = self._workload.graph
        tasks_ms = graph.tasks_ms
        # In parts of the SLO, so that the solver's absolute tolerance is one of the SLO.
        latency = self._levels(self._found, {c: c.latency_ms / tasks_ms for c in self.count})
        self._keep(1.0, {task: levels.weight for task, levels in latency.items()})
        means: dict[str, Weight] = {}
        if graph.slo.accuracy_mode == "mean" and self._goal != "most":
            shares = {task: {v: self._share[task, v] for v in of} for task, of in self._variants.items()}
            means = mean_weights(self._draft, graph, shares, dict.fromkeys(shares, 1.0))
        floors = {task: of for task, of in self._found.items() if task not in means}
        loss = self._levels(floors, {c: c.loss for c in self.count})
        self._keep(accuracy_budget(graph) + 1e-9, means | {task: levels.weight for task, levels in loss.items()})
        if self._goal != "most":
            for task, levels in loss.items():
                variants = self._variants[task].items()
                for level in levels.levels:
                    beyond = [(self._share[task, v], 1.0) for v, lost in variants if lost >= level.weight]
                    self._draft.at_most(0, [*beyond, (level.column, -1)])

    def _levels(self, of: TaskConfigurations, weight: Mapping[Configuration, float]) -> dict[str, IncrementalLevels]:
        """Levels that must be reached before configurations may be used."""
        levels = {task: incremental_levels(self._draft, (weight[c] for c in found)) for task, found in of.items()}
        for c in (c for found in of.values() for c in found):
            if (gate := levels[c.task].gate(weight[c])) is not None:
                self._draft.at_most(0, [(self.count[c], 1), (gate, -self._most[c])])
        return levels

    def _keep(self, budget: float, weights: Mapping[str, Weight]) -> None:
        """Along every path the tasks' weights add up to no more."""
        for end in path_ends(self._draft, self._workload.graph, weights):
            self._draft.at_most(budget, [(end, 1)])

    def losses(self) -> list[tuple[int, float]]:
        """The terms of lost accuracy, by share."""
        return [
            (self._share[task, v], loss)
            for task, variants in self._variants.items()
            for v, loss in variants.items()
            if loss > 0
        ]


def _pools(
    draft: Draft, count: Mapping[Configuration, int], supplies: Sequence[Supply], *, endless: bool
) -> dict[Pool, int]:
    """Numbers of slices that are shared; what shares them fits them by each measure, and each has a task but once."""
    found: dict[Pool, list[Configuration]] = {}
    for c in count:
        if c.shares:
            found.setdefault(pool_of(c), []).append(c)
    by_board = {s.board.name: s for s in supplies}
    pools: dict[Pool, int] = {}
    for pool, inside in found.items():
        n = pools[pool] = draft.integer(None if endless else by_board[pool.board].most(pool.slice))
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
    draft: Draft, taken: Sequence[tuple[str, Given, int]], supplies: Sequence[Supply], *, endless: bool
) -> list[int]:
    """Numbers of GPUs by what stands on them and by multiset; together they have the slices that are in use.

    Args:
        draft: To add to.
        taken: Model of GPU, kind of slice, column of how many are in use; likewise replicas that stay.
        supplies: By model of GPU.
        endless: Whether there are GPUs without end.
    """
    layouts: list[int] = []
    for supply in supplies:
        z: list[tuple[int, Counter[Given]]] = []
        if endless:
            z = [(draft.integer(None), m) for m in supply.whole]
        for group in () if endless else supply.groups:
            of_group = [(draft.integer(group.gpus), m) for m in group.multisets]
            draft.at_most(group.gpus, [(column, 1) for column, _ in of_group])
            z += of_group
        layouts += [column for column, _ in z]
        used: dict[Given, list[tuple[int, float]]] = {}
        for board, kind, column in taken:
            if board == supply.board.name:
                given, number = supply.takes(kind)
                used.setdefault(given, []).append((column, number))
        for given, terms in used.items():
            draft.at_most(0, [*terms, *((column, -m[given]) for column, m in z if m[given])])
    return layouts


def _kept(draft: Draft, count: Mapping[Configuration, int], running: Mapping[Replica, int]) -> dict[Replica, int]:
    """Columns of how many replicas that run are in use again."""
    columns: dict[Replica, list[int]] = {}
    for c, column in count.items():
        columns.setdefault(c.replica, []).append(column)
    kept = {}
    for replica, alike in columns.items():
        if n := running.get(replica, 0):
            kept[replica] = draft.integer(n)
            draft.at_most(0, [(kept[replica], 1), *((column, -1) for column in alike)])
    return kept
