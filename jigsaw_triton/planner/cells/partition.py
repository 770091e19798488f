"""Divides a cluster into cells: chooses their number, assigns the nodes, divides the demand, and plans each cell.

The whole demand is planned once for one pool. That plan says how large each graph is, what it asks of gateways, and
what cells cost. Each cell is then planned for its own share on its own nodes; cells with like nodes and shares are
planned once. Every cell's plan is optimal for its share, within the options' gap and time limit. The division itself is
a heuristic:

- Graphs are either in all cells, in equal proportions, or in one (`weights`). Other divisions are not tried, so a
  cheaper one may exist.
- The number is the least, counted up from what the pool's plan asks of gateways, whose cells are not too large for
  theirs, or the next one that divides the nodes evenly. Fewer cells round up less often, but a larger number may be
  cheaper by chance.
- If a cell does not carry its share, the largest share of each cell is computed, and the demand is divided once more in
  proportion to these. Only the graphs that are in all cells are divided anew.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from jigsaw_triton.errors import InfeasibleError, InputError, JigsawError, OverloadedGatewayError
from jigsaw_triton.gpus.model import NODE
from jigsaw_triton.planner.cells.gateway import GatewayUse, gateway_use
from jigsaw_triton.planner.cells.model import Cell, Partition
from jigsaw_triton.planner.cells.nodes import NodeKind, assigned, kinds_of, matched, moved, nodes_of
from jigsaw_triton.planner.cells.subproblem import subproblem
from jigsaw_triton.planner.cells.validation import partition_violations
from jigsaw_triton.planner.cells.weights import Weights, graph_sizes, levelled, settled, spread_graphs
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Options, Problem
from jigsaw_triton.planner.domain.survival import condition, failure_domains
from jigsaw_triton.planner.domain.tolerances import ROUNDING
from jigsaw_triton.planner.search.solve import SolverFactory, largest_demand, make_plan
from jigsaw_triton.planner.standby import with_standby

Progress = Callable[[str], None]
"""Function that receives a line about the work in progress."""

Running = Mapping[frozenset[str], Plan]
"""Nodes of a cell -> plan that runs there. A cell of other nodes starts anew."""

_Likeness = tuple[tuple[NodeKind, ...], tuple[tuple[str, float], ...], bool]
"""Kinds of a cell's nodes, its weights, and true if a plan runs there. Cells of equal likeness have the same plan."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A cell to plan: its nodes, its weights, and the plan that runs there."""

    nodes: tuple[str, ...]
    weights: Weights
    running: Plan | None


@dataclass(frozen=True, slots=True)
class Alternative:
    """Another number of cells.

    Attributes:
        cells: The number.
        slices: Compute slices of the partition; None if there is none.
        price: Price of the partition over one pool; None if there is none.
        reason: Reason why there is none; empty if there is one.
    """

    cells: int
    slices: int | None
    price: float | None
    reason: str = ""


class Cells:
    """Partitions of one cluster.

    Args:
        problem: Problem of the whole cluster. Its running plan does not count.
        options: Options of planning; the time limit holds for each plan.
        solvers: Factory of solvers by name.
        running: Plans that run now.
        progress: Function that receives a line before each plan.

    Raises:
        InputError: The problem or the options are invalid.
        InfeasibleError: Not even one pool has a plan.
        JigsawError: No plan was found within the time limit.
    """

    def __init__(
        self,
        problem: Problem,
        options: Options,
        *,
        solvers: SolverFactory,
        running: Running | None = None,
        progress: Progress = lambda _: None,
    ) -> None:
        if options.formulation == "paper":
            raise InputError("the paper's formulation knows no cells", hint="leave one of the two out")
        self._problem, self._options, self._solvers = replace(problem, running=None), options, solvers
        self._running, self._progress = running or {}, progress
        self._graphs = {workload.graph.name: workload.graph for workload in problem.workloads}
        self._limits = problem.cluster.gateway_limits
        self._nodes = nodes_of(problem.cluster)
        survive = problem.cluster.survive
        several = survive is not None and survive.loss_of != NODE
        self._domains = failure_domains(problem.cluster) if several else {}
        self._hardware = kinds_of(self._nodes, domains=self._domains)
        self._plans: dict[_Likeness, tuple[_Part, Plan | InfeasibleError]] = {}
        progress("planning one pool")
        whole = _Part(tuple(self._nodes), dict.fromkeys(self._graphs, 1.0), self._running.get(frozenset(self._nodes)))
        pool = self._plan(whole)
        if isinstance(pool, InfeasibleError):
            raise pool
        self._pool = pool
        # All cells use the costs of the whole cluster, even those whose GPUs are all of one model.
        self._problem = replace(self._problem, costs=self._problem.board_costs)
        self._sizes = graph_sizes(pool, self._problem)

    @property
    def fewest(self) -> int:
        """Least number of cells whose gateways carry the pool's plan, if nodes are divided evenly."""
        load, nodes = self._use(self._pool).load(self._limits), len(self._nodes)
        fitting = (cells for cells in range(1, nodes + 1) if load * math.ceil(nodes / cells) / nodes <= 1)
        return next(fitting, nodes)

    def choose(self) -> Partition:
        """Returns the cheaper of two partitions, and of equal ones that with fewer cells.

        The first has the fewest cells whose gateways carry the demand, counted up from `fewest`. The second has the
        next number, up to twice as many, that divides the nodes evenly: then no cell is smaller than others. With the
        objective `accuracy`, the result is the first.

        Raises:
            InfeasibleError: No partition into cells of that size carries the demand.
            JigsawError: No plan was found within the time limit.
        """
        first, nodes = self._fewest(), len(self._nodes)
        cells = len(first.cells)
        even = next((more for more in range(cells + 1, 2 * cells + 1) if nodes % more == 0), None)
        # With the objective `accuracy` a lower price may be a lower accuracy.
        if even is None or first.reaches_bound or self._options.objective != "slices":
            return first
        try:
            return min(first, self.divide(even), key=lambda partition: partition.price)
        except InfeasibleError:
            return first

    def _fewest(self) -> Partition:
        cells = self.fewest
        while True:
            try:
                return self.divide(cells)
            except OverloadedGatewayError as error:
                if cells == len(self._nodes):
                    raise
                cells = min(len(self._nodes), max(cells + 1, math.floor(cells * error.load)))

    def alternatives(self, cells: int) -> tuple[Alternative, ...]:
        """Returns what a cell less, a cell more, and twice as many cells would cost.

        Args:
            cells: Chosen number of cells.
        """
        others = sorted({cells - 1, cells + 1, 2 * cells} & set(range(1, len(self._nodes) + 1)))
        return tuple(map(self._alternative, others))

    def _alternative(self, cells: int) -> Alternative:
        try:
            found = self.divide(cells)
        except InfeasibleError as error:
            return Alternative(cells, None, None, "; ".join(error.reasons))
        return Alternative(cells, found.slices_used, found.price)

    def divide(self, cells: int) -> Partition:
        """Returns the partition into this number of cells.

        Raises:
            InputError: There are fewer nodes than cells.
            OverloadedGatewayError: A gateway does not carry its cell.
            InfeasibleError: No division of the demand among these cells was found that they carry.
            JigsawError: No plan was found within the time limit.
        """
        if not 1 <= cells <= len(self._nodes):
            few = f"{len(self._nodes)} node" + ("s" if len(self._nodes) > 1 else "")
            raise InputError(
                f"a cluster of {few} cannot be divided into {cells} cells",
                where="cells",
                hint=f"give 1 to {len(self._nodes)}, or list more nodes in cluster.yaml",
            )
        nodes = assigned(self._hardware, cells)
        spread = spread_graphs(self._sizes, cells, self._limits)
        slices = [sum(gpu.compute_slices for name in own for gpu in self._nodes[name]) for own in nodes]
        given, room = settled(self._sizes, spread, slices)
        weights = levelled(given, room, self._sizes, spread)
        plans = self._planned(nodes, weights)
        if any(isinstance(plan, InfeasibleError) for plan in plans):
            shares = [self._largest_share(own, other, spread, cells) for own, other in zip(nodes, given, strict=True)]
            weights = levelled(given, shares, self._sizes, spread) if any(shares) else weights
            # A cell that carries nothing would serve no graph.
            plans = self._planned(nodes, weights) if all(weights) else plans
            if any(isinstance(plan, InfeasibleError) for plan in plans):
                raise self._too_small(cells, math.fsum(shares), spread)
        return self._checked(nodes, weights, [plan for plan in plans if isinstance(plan, Plan)])

    def _planned(self, nodes: Sequence[tuple[str, ...]], weights: Sequence[Weights]) -> list[Plan | InfeasibleError]:
        """Plans each cell; cells that are alike once.

        Raises:
            OverloadedGatewayError: A gateway does not carry its cell. The cells with most to serve are planned first.
        """
        parts = [
            _Part(own, shares, self._running.get(frozenset(own))) for own, shares in zip(nodes, weights, strict=True)
        ]
        kinds = {self._likeness(part): index for index, part in reversed(list(enumerate(parts)))}
        if new := len(kinds.keys() - self._plans.keys()):
            self._progress(f"planning {len(parts)} cells: {new} new plan{'s' if new > 1 else ''}")
        for index in sorted(kinds.values(), key=lambda index: (-self._slices(weights[index]), index)):
            plan = self._plan(parts[index])
            if isinstance(plan, Plan):
                self._check_gateway(plan, index, len(parts))
        return [self._plan(part) for part in parts]

    def _slices(self, weights: Weights) -> float:
        """Returns the compute slices of the pool's plan for these shares of the demand."""
        return sum(weight * self._sizes[name].slices for name, weight in weights.items())

    def _use(self, plan: Plan) -> GatewayUse:
        return gateway_use(self._graphs, plan, self._problem.cluster.processes)

    def _check_gateway(self, plan: Plan, index: int, cells: int) -> None:
        use = self._use(plan)
        if (load := use.load(self._limits)) > 1:
            enough = max(cells + 1, self.fewest)
            more = f"choose {enough} cells or more, or " if enough <= len(self._nodes) else ""
            raise OverloadedGatewayError(
                [f"{_name(index, cells)} of {cells} asks its gateway for {use.described(self._limits)}"],
                hint=f"{more}raise gateway.processors and gateway.workers in cluster.yaml",
                load=load,
            )

    def _likeness(self, part: _Part) -> _Likeness:
        kinds = self._kinds(part)
        return (
            tuple(sorted(kinds.values(), key=repr)),
            tuple(sorted(part.weights.items())),
            part.running is not None,
        )

    def _kinds(self, part: _Part) -> dict[str, NodeKind]:
        if part.running is None:
            return {name: self._hardware[name] for name in part.nodes}
        return kinds_of({name: self._nodes[name] for name in part.nodes}, part.running, self._domains)

    def _plan(self, part: _Part) -> Plan | InfeasibleError:
        """Returns the plan of a cell, or why it has none."""
        likeness = self._likeness(part)
        if likeness not in self._plans:
            problem = subproblem(self._problem, part.nodes, part.weights, part.running)
            found: Plan | InfeasibleError
            try:
                found = with_standby(problem, make_plan(problem, self._options, solvers=self._solvers), self._options)
            except InfeasibleError as error:
                found = error
            self._plans[likeness] = part, found
        first, found = self._plans[likeness]
        if first is part or isinstance(found, InfeasibleError):
            return found
        kinds = self._kinds(first) | self._kinds(part)
        return moved(found, matched(first.nodes, part.nodes, kinds))

    def _largest_share(self, nodes: tuple[str, ...], given: Weights, spread: Sequence[str], cells: int) -> float:
        """Returns the largest share of the graphs in all cells that a cell carries beside the others."""
        problem = subproblem(self._problem, nodes, {**given, **dict.fromkeys(spread, 1 / cells)})
        try:
            found = largest_demand(problem, self._options, scaled=spread, solvers=self._solvers)
        except InfeasibleError:
            return 0.0
        first = next(workload for workload in self._problem.workloads if workload.graph.name in spread)
        return found.rps[first.graph.name] / first.demand_rps

    def _too_small(self, cells: int, share: float, spread: Sequence[str]) -> InfeasibleError:
        reason = f"no division among {cells} cells was found that carries the demand, which one pool carries"
        if share < 1:
            reason += f"; they carry {share:.1%} of that of {', '.join(spread)}"
        if (survive := self._problem.cluster.survive) is not None:
            reason += f"; in each cell, {condition(survive)}"
        fewer = f", or choose fewer than {cells} cells" if cells > self.fewest else ""
        return InfeasibleError([reason], hint=f"add nodes, or plan for less{fewer}")

    def _checked(
        self, nodes: Sequence[tuple[str, ...]], weights: Sequence[Weights], plans: Sequence[Plan]
    ) -> Partition:
        cells = tuple(
            Cell(_name(index, len(plans)), tuple(sorted(own)), shares, self._use(plan), plan)
            for index, (own, shares, plan) in enumerate(zip(nodes, weights, plans, strict=True))
        )
        pool, cost = self._pool, self._pool.cost
        least = 1 - pool.solver.gap if self._options.objective == "slices" else 0.0
        # The gap is that of the objective: of slices, or of the cost.
        bound = math.ceil(pool.slices_used * least - ROUNDING) if cost is None else 0
        least_cost = cost.used * least if cost is not None else 0.0
        partition = Partition(cells, pool.slices_used, max(0, bound), cost, least_cost)
        if wrong := partition_violations(partition, self._problem, self._options):
            raise JigsawError(
                f"the partition is invalid: {'; '.join(wrong[:3])}", hint="report this with the input files"
            )
        return partition


def _name(index: int, cells: int) -> str:
    """Returns the name of a cell; names of all cells have the same length."""
    return f"cell{index + 1:0{len(str(cells))}}"
