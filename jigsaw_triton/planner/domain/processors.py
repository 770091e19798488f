"""Processors of one machine that the slices of the board `cpu` share.

MIG divides the compute of a GPU. Nothing divides a processor: each configuration was profiled with the whole machine to
itself. So what slices carry together is less than the sum of what each carries alone, and follows from the processor
time of a call.

An instance keeps one processor busy, or as many as it has threads. So the processor time of an item is the number of
busy processors over the profiled throughput. It is taken from the profile with the most instances: the closer the
machine is to being full, the longer an item takes, since processors share memory and execution units.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.gpus.model import Board
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.gateway_load import gateway_load
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.profiles.table import ProfileTable

_ROUNDING = 1e-6
"""Relative rounding error of a demand that fills the processors."""


@dataclass(frozen=True, slots=True)
class ProcessorLoad:
    """Processors that a plan keeps busy at its demands.

    Attributes:
        processors: Processors of the machine.
        busy_by_graph: Graph -> processors that its slices and the gateway keep busy for it.
        carried_rps: Requests a second of each graph that the processors carry, if all demands grow together.
    """

    processors: float
    busy_by_graph: Mapping[str, float]
    carried_rps: Mapping[str, float]

    @property
    def busy(self) -> float:
        """Processors that slices and gateway keep busy."""
        return sum(self.busy_by_graph.values())

    def scale(self, growing: Collection[str] | None = None) -> float:
        """Returns the largest factor by which demands can be multiplied; 0 if the other demands leave no processor.

        Args:
            growing: Names of the graphs whose demands are multiplied; None for all.
        """
        own = sum(busy for name, busy in self.busy_by_graph.items() if growing is None or name in growing)
        return max(0.0, self.processors - (self.busy - own)) / own

    @property
    def exceeded(self) -> bool:
        """True if the demands need more processors than there are."""
        return self.busy > self.processors * (1 + _ROUNDING)


def processor_load(plan: Plan, problem: Problem, *, standby: bool = False) -> ProcessorLoad | None:
    """Returns the processors that a plan keeps busy; None if they are not known, or it uses no slice of a processor.

    Assumed rows do not say how much processor time a call takes.

    Args:
        plan: The plan.
        problem: Problem that it was made for.
        standby: True if standby variants serve in their slices.
    """
    processors = problem.cluster.processors
    boards = {board.name: board for board in problem.boards if board.arch == "cpu"}
    if processors is None or not any(gpu.model in boards for gpu in plan.gpus):
        return None
    graphs = {workload.graph.name: workload.graph for workload in problem.workloads}
    busy, batches_rps = dict.fromkeys(plan.graphs, 0.0), dict.fromkeys(plan.graphs, 0.0)
    for gpu in plan.gpus:
        for placed in gpu.layout if gpu.model in boards else ():
            for model in placed.models:
                name, rate_rps = model.graph, _rate_rps(plan, placed, model)
                serving = placed.standby[0] if standby and placed.standby else model
                batches_rps[name] += rate_rps / serving.batch
                if not _waits(graphs[name], serving):
                    table, board = problem.unloaded.get(name, problem.profiles[name]), boards[gpu.model]
                    item_s = _item_s(table, serving, board, placed.placement.slice, processors)
                    if item_s is None:
                        return None
                    busy[name] += rate_rps * item_s
    for name, one in plan.graphs.items():
        # The batches of a full machine are full, and each is one call.
        gateway = replace(gateway_load(graphs, replace(plan, graphs={name: one})), calls_rps=batches_rps[name])
        busy[name] += gateway.processors
    everything = sum(busy.values())
    carried = {name: one.demand_rps * processors / everything for name, one in plan.graphs.items()}
    return ProcessorLoad(processors, busy, carried)


def _rate_rps(plan: Plan, placed: PlacedSlice, model: PlacedModel) -> float:
    """Returns the planned calls a second of a model in a slice."""
    task = plan.graphs[model.graph].tasks[model.task]
    configuration = (model.variant, placed.placement.slice, model.instances, model.batch)
    for segment in task.segments:
        if (segment.variant, segment.slice, segment.instances, segment.batch) == configuration:
            return task.rate_rps * segment.share / segment.count
    return 0.0


def _item_s(table: ProfileTable, model: PlacedModel, board: Board, kind: str, processors: float) -> float | None:
    """Returns the processor time of an item in seconds; None if no row of it was measured.

    Args:
        table: Profiles of the graph.
        model: Model of the item.
        board: Board of its slice.
        kind: Kind of its slice, whose instances have as many threads together as it has compute slices.
        processors: Processors of the machine.
    """
    rows = table.rows(task=model.task, variant=model.variant, gpu=board.name)
    alike = [row for row in rows if (row.key.slice, row.key.batch) == (kind, model.batch) and row.source != "assumed"]
    if not alike:
        return None
    fullest = max(alike, key=lambda row: row.key.instances)
    instances = fullest.key.instances
    threads = max(1, board.profiles[kind].compute_slices // instances)
    return min(instances * threads, processors) / fullest.throughput_rps


def with_carried(plan: Plan, load: ProcessorLoad | None) -> Plan:
    """Returns the plan with the capacity of each graph limited by the processors."""
    if load is None:
        return plan
    graphs = {
        name: replace(one, capacity_rps=max(one.demand_rps, min(one.capacity_rps, load.carried_rps[name])))
        for name, one in plan.graphs.items()
    }
    return replace(plan, graphs=graphs)


def _waits(graph: TaskGraph, model: PlacedModel) -> bool:
    """Returns True if a model waits instead of computing."""
    return graph.tasks[model.task].variant(model.variant).template == "emulated"
