"""Processors of one machine that the slices of the board `cpu` share.

MIG divides the compute of a GPU. Nothing divides a processor: each configuration was profiled with the whole machine to
itself. So what slices carry together is less than the sum of what each carries alone, and follows from the processor
time of a call.

An instance keeps one processor busy, or as many as it has threads. So the processor time of an item is the number of
busy processors over the profiled throughput. It is taken from the profile with the most instances: the closer the
machine is to being full, the longer an item takes, since processors share memory and execution units.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.gateway_load import gateway_load
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.profiles.table import ProfileKey, ProfileTable

_ROUNDING = 1e-6
"""Relative rounding error of a demand that fills the processors."""


@dataclass(frozen=True, slots=True)
class ProcessorLoad:
    """Processors that a plan keeps busy at its demands.

    Attributes:
        processors: Processors of the machine.
        busy: Processors that slices and gateway keep busy.
        carried_rps: Requests a second of each graph that the processors carry, if all demands grow together.
    """

    processors: float
    busy: float
    carried_rps: Mapping[str, float]

    @property
    def scale(self) -> float:
        """Largest factor by which the demands can be multiplied."""
        return self.processors / self.busy

    @property
    def exceeded(self) -> bool:
        """True if the demands need more processors than there are."""
        return self.busy > self.processors * (1 + _ROUNDING)


def processor_load(plan: Plan, problem: Problem) -> ProcessorLoad | None:
    """Returns the processors that a plan keeps busy; None if it uses no slice of a processor, or they are not known.

    Args:
        plan: The plan.
        problem: Problem that it was made for.
    """
    processors = problem.cluster.processors
    boards = {board.name: board for board in problem.boards if board.arch == "cpu"}
    if processors is None or not any(gpu.model in boards for gpu in plan.gpus):
        return None
    graphs = {workload.graph.name: workload.graph for workload in problem.workloads}
    placed = Counter(
        (
            model.graph,
            ProfileKey(gpu.model, model.task, model.variant, one.placement.slice, model.instances, model.batch),
        )
        for gpu in plan.gpus
        for one in gpu.layout
        for model in one.models
    )
    busy, batches_rps = 0.0, 0.0
    for (name, key), count in placed.items():
        board = boards.get(key.gpu)
        if board is None:
            continue
        task = plan.graphs[name].tasks[key.task]
        for segment in task.segments:
            if (segment.variant, segment.slice, segment.instances, segment.batch) == _segment(key):
                # A segment may be on several boards.
                rate_rps = task.rate_rps * segment.share * count / segment.count
                batches_rps += rate_rps / segment.batch
                if not _waits(graphs[name], key):
                    slices = board.profiles[key.slice].compute_slices
                    busy += rate_rps * _item_s(problem.profiles[name], key, slices, processors)
    # The batches of a full machine are full, and each is one call.
    busy += replace(gateway_load(graphs, plan), calls_rps=batches_rps).processors
    carried = {name: one.demand_rps * processors / busy for name, one in plan.graphs.items()}
    return ProcessorLoad(processors, busy, carried)


def _item_s(table: ProfileTable, key: ProfileKey, slices: int, processors: float) -> float:
    """Returns the processor time of an item in seconds.

    Args:
        table: Profiles of the graph.
        key: Configuration of the item.
        slices: Compute slices of its slice; its instances have this many threads together, at least one each.
        processors: Processors of the machine.
    """
    rows = [
        row
        for row in table.rows(task=key.task, variant=key.variant, gpu=key.gpu)
        if (row.key.slice, row.key.batch) == (key.slice, key.batch) and row.throughput_rps > 0
    ]
    fullest = max(rows, key=lambda row: row.key.instances, default=None)
    if fullest is None:
        return 0.0
    instances = fullest.key.instances
    return min(instances * max(1, slices // instances), processors) / fullest.throughput_rps


def with_carried(plan: Plan, load: ProcessorLoad | None) -> Plan:
    """Returns the plan with the capacity of each graph limited by the processors."""
    if load is None:
        return plan
    graphs = {
        name: replace(one, capacity_rps=max(one.demand_rps, min(one.capacity_rps, load.carried_rps[name])))
        for name, one in plan.graphs.items()
    }
    return replace(plan, graphs=graphs)


def _segment(key: ProfileKey) -> tuple[str, str, int, int]:
    return key.variant, key.slice, key.instances, key.batch


def _waits(graph: TaskGraph, key: ProfileKey) -> bool:
    """True if a variant waits instead of computing."""
    return any(v.name == key.variant and v.template == "emulated" for v in graph.tasks[key.task].variants)
