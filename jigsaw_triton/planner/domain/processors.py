"""Processors of a machine that the slices of the board `cpu` share.

MIG divides the compute of a GPU. Nothing divides a processor: each configuration was profiled with the whole machine to
itself. So what slices carry together is less than the sum of what each carries alone, and follows from the processor
time of a call.

`profile` measures the processor time of an item. It is taken from the row with the most instances: the closer the
machine is to being full, the longer an item takes, since processors share memory and execution units. Rows that do not
have it, such as those of earlier releases, are taken to keep one processor busy for each instance, or as many as it has
threads. That is an upper bound, since instances also wait. To this comes the time of the gateway.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.gpus.model import Board
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.gateway_load import CALL_US, REQUEST_US, tensors_us
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.domain.survival import model_of
from jigsaw_triton.planner.domain.tolerances import ROUNDING
from jigsaw_triton.profiles.table import ProfileRow, ProfileTable

FILLED = 0.7
"""Share of the largest batch that batches have on average while processors are short. The gateway sends what waits as
soon as an instance is free, and has to share the processors with the instances, so that little waits. Measured on the
application digits with two processors: 0.6 to 0.75 with 128 to 384 clients."""

REQUEST_S = REQUEST_US / 1e6
"""Processor time of the gateway for a request, in seconds, without its calls."""

Busy = Mapping[str, float]
"""Graph -> processors that are kept busy for it."""


@dataclass(frozen=True, slots=True)
class ProcessorLoad:
    """Processors that a plan keeps busy at its demands.

    Attributes:
        processors: Processors of each machine.
        busy_by_node: Node -> graph -> processors that its slices keep busy. Those of the gateway count for the first
            node.
        demands_rps: Graph -> demand in requests a second.
    """

    processors: float
    busy_by_node: Mapping[str, Busy]
    demands_rps: Mapping[str, float]

    @property
    def busy(self) -> float:
        """Processors that slices and gateway keep busy on the busiest node."""
        return max(sum(busy.values()) for busy in self.busy_by_node.values())

    @property
    def carried_rps(self) -> Mapping[str, float]:
        """Requests a second of each graph that the processors carry, if all demands grow together."""
        return {name: rps * self.processors / self.busy for name, rps in self.demands_rps.items()}

    def scale(self, growing: Collection[str] | None = None) -> float:
        """Returns the largest factor by which demands can be multiplied; 0 if the other demands leave no processor.

        Args:
            growing: Names of the graphs whose demands are multiplied; None for all.
        """
        scales = []
        for busy in self.busy_by_node.values():
            own = sum(used for name, used in busy.items() if growing is None or name in growing)
            left = self.processors - (sum(busy.values()) - own)
            scales += [max(0.0, left) / own] if own else [0.0] if left < 0 else []
        return min(scales)

    @property
    def exceeded(self) -> bool:
        """True if the demands need more processors than there are."""
        return self.busy > self.processors * (1 + ROUNDING)


def processor_load(plan: Plan, problem: Problem, *, standby: bool = False) -> ProcessorLoad | None:
    """Returns the processors that a plan keeps busy; None if they are not known, or it uses no slice of a processor.

    Assumed rows do not say how much processor time a call takes.

    Args:
        plan: The plan.
        problem: Problem that it was made for.
        standby: True if standby variants serve in their slices.
    """
    limit = processor_limit(problem)
    nodes = sorted({gpu.id.node for gpu in plan.gpus if limit is not None and gpu.model in limit.boards})
    if limit is None or not nodes:
        return None
    busy = {node: dict.fromkeys(plan.graphs, 0.0) for node in nodes}
    for name, one in plan.graphs.items():
        busy[nodes[0]][name] += one.demand_rps * REQUEST_S
    for gpu in plan.gpus:
        for placed in gpu.layout if gpu.model in limit.boards else ():
            for model in placed.models:
                serving = placed.standby[0] if standby and placed.standby else model
                own_s = limit.worker_s(*_place(serving, model, gpu.model, placed))
                if own_s is None:
                    return None
                rate_rps = _rate_rps(plan, placed, model)
                busy[gpu.id.node][model.graph] += rate_rps * own_s
                busy[nodes[0]][model.graph] += rate_rps * limit.gateway_s(model.graph, model.task, serving.batch)
    return ProcessorLoad(limit.processors, busy, {name: one.demand_rps for name, one in plan.graphs.items()})


def slice_processors(plan: Plan, limit: "ProcessorLimit", board: str, placed: PlacedSlice) -> float | None:
    """Returns the processors that the models of a slice keep busy, without the gateway; None if they are not known."""
    total = 0.0
    for model in placed.models:
        own_s = limit.worker_s(*_place(model, model, board, placed))
        if own_s is None:
            return None
        total += _rate_rps(plan, placed, model) * own_s
    return total


def _place(
    serving: PlacedModel, model: PlacedModel, board: str, placed: PlacedSlice
) -> tuple[str, str, str, str, str, int]:
    """Returns the arguments of `ProcessorLimit.worker_s` for the model that serves in the place of a planned one."""
    return model.graph, model.task, serving.variant, board, placed.placement.slice, serving.batch


@dataclass(frozen=True, slots=True)
class ProcessorLimit:
    """Processors that a plan may keep busy, and the processor time of each call.

    Attributes:
        processors: Processors of each machine.
        nodes: Number of machines.
        boards: Boards whose slices share them, by name.
        graphs: Graphs by name.
        profiles: Graph name -> its profiles on an otherwise idle machine.
    """

    processors: float
    nodes: int
    boards: Mapping[str, Board]
    graphs: Mapping[str, TaskGraph]
    profiles: Mapping[str, ProfileTable]

    def call_s(self, graph: str, task: str, variant: str, board: str, kind: str, batch: int) -> float | None:
        """Returns the processor time of a call in seconds, the gateway's included; None if it is not known.

        Args:
            graph: Name of the graph.
            task: Name of the task.
            variant: Name of the variant.
            board: Board of the slice, in any failure domain.
            kind: Kind of the slice.
            batch: Largest batch.
        """
        if model_of(board) not in self.boards:
            return 0.0
        own_s = self.worker_s(graph, task, variant, board, kind, batch)
        return None if own_s is None else own_s + self.gateway_s(graph, task, batch)

    def gateway_s(self, graph: str, task: str, batch: int) -> float:
        """Returns the gateway's processor time of a call in seconds."""
        of = self.graphs[graph]
        return (CALL_US / _filled(batch) + tensors_us(of, of.tasks[task])) / 1e6

    def worker_s(self, graph: str, task: str, variant: str, board: str, kind: str, batch: int) -> float | None:
        """Returns the worker's processor time of a call in seconds; None if no row of it was measured.

        The instances of a slice have as many threads together as it has compute slices.
        """
        if self.graphs[graph].tasks[task].variant(variant).template == _WAITING:
            return 0.0
        board = model_of(board)
        rows = self.profiles[graph].rows(task=task, variant=variant, gpu=board)
        alike = [row for row in rows if (row.key.slice, row.key.batch) == (kind, batch) and row.source != "assumed"]
        if not alike:
            return None
        timed = {
            row.key.batch: row.processor_ms
            for row in sorted(rows, key=_instances)
            if row.key.slice == kind and row.processor_ms is not None
        }
        if (whole_ms := timed.get(batch)) is not None:
            filled = _filled(batch)
            smaller = max((size for size in timed if size <= filled), default=None)
            if smaller is None or smaller == batch:
                return whole_ms / 1000
            # The time of a batch is interpolated between the sizes that were measured.
            part = (filled - smaller) / (batch - smaller)
            return ((1 - part) * smaller * timed[smaller] + part * batch * whole_ms) / filled / 1000
        fullest = max(alike, key=_instances)
        instances = fullest.key.instances
        threads = max(1, self.boards[board].profiles[kind].compute_slices // instances)
        return min(instances * threads, self.processors) / fullest.throughput_rps


def _instances(row: ProfileRow) -> int:
    return row.key.instances


def _filled(batch: int) -> float:
    """Returns the mean number of items in a batch while processors are short."""
    return max(1.0, FILLED * batch)


_WAITING = "emulated"
"""Template of models that wait instead of computing."""


def processor_limit(problem: Problem) -> ProcessorLimit | None:
    """Returns the limit of a problem; None if it has no slice of a processor, or if the processors are not known."""
    processors = problem.cluster.processors
    boards = {model_of(board.name): board for board in problem.boards if board.arch == "cpu"}
    if processors is None or not boards:
        return None
    nodes = {gpu.id.node for gpu in problem.cluster.gpus if model_of(gpu.board.name) in boards}
    graphs = {workload.graph.name: workload.graph for workload in problem.workloads}
    profiles = {name: problem.unloaded.get(name) or problem.profiles.get(name) or ProfileTable(()) for name in graphs}
    return ProcessorLimit(processors, len(nodes), boards, graphs, profiles)


def _rate_rps(plan: Plan, placed: PlacedSlice, model: PlacedModel) -> float:
    """Returns the planned calls a second of a model in a slice."""
    task = plan.graphs[model.graph].tasks[model.task]
    configuration = (model.variant, placed.placement.slice, model.instances, model.batch)
    for segment in task.segments:
        if (segment.variant, segment.slice, segment.instances, segment.batch) == configuration:
            return task.rate_rps * segment.share / segment.count
    return 0.0


def with_carried(plan: Plan, load: ProcessorLoad | None) -> Plan:
    """Returns the plan with the capacity of each graph limited by the processors."""
    if load is None:
        return plan
    graphs = {
        name: replace(one, capacity_rps=max(one.demand_rps, min(one.capacity_rps, load.carried_rps[name])))
        for name, one in plan.graphs.items()
    }
    return replace(plan, graphs=graphs)
