"""Plans that are given by their placements alone."""

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
"""Models as `task.variant` or `task.variant/instances/batch`, by placement as `slice@start`, by GPU index."""


def placed_model(text: str, graph: str = "chain") -> PlacedModel:
    """Parses a model such as `task.variant` or `task.variant/instances/batch`."""
    name, *counts = text.split("/")
    task, variant = name.split(".")
    instances, batch = map(int, counts) if counts else (1, 1)
    return PlacedModel(graph, task, variant, instances, batch)


def placed(places: Places, *, graph: str = "chain", node: str = "a", model: str = "cpu") -> tuple[PlannedGpu, ...]:
    """Returns the GPUs of a plan with these placements."""
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
    """Returns a plan with these placements and equal shares for all replicas of a task."""
    gpus = placed(places, graph=graph)
    return Plan({graph: graph_of(gpus, demand_rps)}, gpus, 0, 0, len(gpus), "AST", "exact", "2p95", REPORT)


def graph_of(gpus: Sequence[PlannedGpu], demand_rps: float) -> GraphPlan:
    """Returns the plan of the graph that the GPUs serve."""
    counts: dict[str, dict[tuple[str, str, int, int], int]] = {}
    for gpu in gpus:
        for s in gpu.layout:
            for m in s.models:
                replicas = counts.setdefault(m.task, {})
                key = (m.variant, s.placement.slice, m.instances, m.batch)
                replicas[key] = replicas.get(key, 0) + 1
    tasks = {
        task: TaskPlan(
            100.0,
            demand_rps,
            tuple(Segment(*k, count=n, share=n / sum(replicas.values())) for k, n in sorted(replicas.items())),
        )
        for task, replicas in counts.items()
    }
    return GraphPlan(demand_rps, demand_rps, 1.0, 100.0, tasks)


REPORT = SolverReport("HiGHS", "optimal", 0.0, 0.0)
