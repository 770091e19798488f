"""Plans of nothing but places, and problems in which they run."""

from collections.abc import Mapping, Sequence

from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.planner.domain.plan import (
    GraphPlan,
    PlacedModel,
    PlacedSlice,
    Plan,
    PlannedGpu,
    Segment,
    SolverReport,
    TaskPlan,
)

Places = Mapping[int, Mapping[str, str]]
"""GPU index -> `slice@start` -> `task.variant` or `task.variant/instances/batch`."""


def placed_model(text: str, graph: str = "chain") -> PlacedModel:
    """Of `task.variant/instances/batch`."""
    name, *counts = text.split("/")
    task, variant = name.split(".")
    instances, batch = map(int, counts) if counts else (1, 1)
    return PlacedModel(graph, task, variant, instances, batch)


def placed(places: Places, *, graph: str = "chain", node: str = "a", model: str = "cpu") -> tuple[PlannedGpu, ...]:
    """The GPUs of a plan."""
    gpus = []
    for index, layout in sorted(places.items()):
        slices = []
        for place, text in layout.items():
            kind, start = place.split("@")
            slices.append(PlacedSlice(Placement(int(start), kind), (placed_model(text, graph),)))
        if slices:
            gpus.append(PlannedGpu(GpuId(node, index), model, tuple(sorted(slices, key=lambda s: s.placement))))
    return tuple(gpus)


def plan_of(places: Places, *, demand_rps: float = 10.0, graph: str = "chain") -> Plan:
    """A plan whose shares are equal for all replicas of a task."""
    gpus = placed(places, graph=graph)
    return Plan({graph: graph_of(gpus, demand_rps)}, gpus, 0, 0, len(gpus), "AST", "exact", "2p95", REPORT)


def graph_of(gpus: Sequence[PlannedGpu], demand_rps: float) -> GraphPlan:
    """What the graph of these GPUs gets."""
    counts: dict[str, dict[tuple[str, str, int, int], int]] = {}
    for gpu in gpus:
        for s in gpu.layout:
            for m in s.models:
                of = counts.setdefault(m.task, {})
                key = (m.variant, s.placement.slice, m.instances, m.batch)
                of[key] = of.get(key, 0) + 1
    tasks = {
        task: TaskPlan(
            100.0, demand_rps, tuple(Segment(*k, count=n, share=n / sum(of.values())) for k, n in sorted(of.items()))
        )
        for task, of in counts.items()
    }
    return GraphPlan(demand_rps, demand_rps, 1.0, 100.0, tasks)


REPORT = SolverReport("HiGHS", "optimal", 0.0, 0.0)
