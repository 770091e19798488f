"""The plan: which configurations, how many, where, and what they are predicted to do; and its JSON."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.spec.schema import NAME_PATTERN

PLAN_VERSION = 1

_NODE = re.compile(NAME_PATTERN)
_MOST = 2**31 - 1
"""What Triton's configurations have room for."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A configuration in use and how many replicas of it.

    Attributes:
        variant: Of the task.
        slice: Kind of MIG instance.
        instances: Triton instance count of the model in the slice.
        batch: Largest batch of one execution.
        count: Replicas.
        share: Of the task's rate that these replicas are planned to take, 0 to 1.
    """

    variant: str
    slice: str
    instances: int
    batch: int
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """What a task gets.

    Attributes:
        budget_ms: Latency it may take; along every path the budgets fit the SLO.
        rate_rps: Calls a second at the planned demand (rows where it iterates).
        segments: Sorted.
    """

    budget_ms: float
    rate_rps: float
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """What a graph gets.

    Attributes:
        demand_rps: Planned for.
        capacity_rps: That the segments can carry, at least the demand.
        accuracy: Least relative accuracy along any path.
        latency_ms: Predicted end to end, by `Plan.latency_model`.
        tasks: By name.
    """

    demand_rps: float
    capacity_rps: float
    accuracy: float
    latency_ms: float
    tasks: Mapping[str, TaskPlan]


@dataclass(frozen=True, slots=True)
class PlacedModel:
    """A replica in a slice."""

    graph: str
    task: str
    variant: str
    instances: int
    batch: int


@dataclass(frozen=True, slots=True)
class PlacedSlice:
    """A MIG instance of the plan and the models in it."""

    placement: Placement
    models: tuple[PlacedModel, ...]


@dataclass(frozen=True, slots=True)
class PlannedGpu:
    """A GPU that the plan uses; its layout sorted by start."""

    id: GpuId
    model: str
    layout: tuple[PlacedSlice, ...]


@dataclass(frozen=True, slots=True)
class SolverReport:
    """How the plan was found.

    Attributes:
        name: `HiGHS` or `CBC`.
        status: `optimal` (proven) or `feasible` (time limit; see gap).
        seconds: Wall clock.
        gap: Relative, of the first objective (slices).
    """

    name: str
    status: str
    seconds: float
    gap: float


@dataclass(frozen=True, slots=True)
class Plan:
    """An allocation: the result of the planner, the input of the compiler."""

    graphs: Mapping[str, GraphPlan]
    gpus: tuple[PlannedGpu, ...]
    slices_used: int
    slices_total: int
    gpus_used: int
    features: str
    formulation: str
    latency_model: str
    solver: SolverReport

    def to_json(self) -> dict[str, Any]:
        """As plan.json has it."""
        data = {"version": PLAN_VERSION, **asdict(self)}
        data["gpus"] = [
            {
                "node": gpu.id.node,
                "index": gpu.id.index,
                "model": gpu.model,
                "layout": [
                    {
                        "slice": placed.placement.slice,
                        "start": placed.placement.start,
                        "models": [asdict(model) for model in placed.models],
                    }
                    for placed in gpu.layout
                ],
            }
            for gpu in self.gpus
        ]
        return data


def plan_from_json(data: Any, *, where: str) -> Plan:
    """Reads what `Plan.to_json` wrote.

    Args:
        data: Parsed JSON.
        where: The file, for messages.

    Raises:
        InputError: Not a plan, or of another version.
    """
    if not isinstance(data, dict) or "version" not in data:
        raise InputError("this is not a plan", where=where, hint="make one with `jigsaw-triton plan -o json`")
    if data["version"] != PLAN_VERSION:
        raise InputError(
            f"plan version {data['version']!r} is not {PLAN_VERSION}",
            where=where,
            hint="plan again with this release",
        )
    try:
        return _plan(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the plan is damaged ({type(error).__name__}: {error})", where=where, hint="plan again"
        ) from error


def _plan(data: dict[str, Any]) -> Plan:
    graphs = {
        name: GraphPlan(
            demand_rps=float(graph["demand_rps"]),
            capacity_rps=float(graph["capacity_rps"]),
            accuracy=float(graph["accuracy"]),
            latency_ms=float(graph["latency_ms"]),
            tasks={
                task: TaskPlan(
                    budget_ms=float(value["budget_ms"]),
                    rate_rps=float(value["rate_rps"]),
                    segments=tuple(Segment(**segment) for segment in value["segments"]),
                )
                for task, value in graph["tasks"].items()
            },
        )
        for name, graph in data["graphs"].items()
    }
    gpus = tuple(
        PlannedGpu(
            id=GpuId(_node(gpu["node"]), int(gpu["index"])),
            model=gpu["model"],
            layout=tuple(
                PlacedSlice(
                    Placement(int(placed["start"]), placed["slice"]),
                    tuple(_placed_model(model) for model in placed["models"]),
                )
                for placed in gpu["layout"]
            ),
        )
        for gpu in data["gpus"]
    )
    rest = {
        key: data[key]
        for key in ("slices_used", "slices_total", "gpus_used", "features", "formulation", "latency_model")
    }
    return Plan(graphs=graphs, gpus=gpus, solver=SolverReport(**data["solver"]), **rest)


def _node(name: str) -> str:
    """A node's name, which becomes part of paths."""
    if not _NODE.fullmatch(name):
        raise ValueError(f"{name!r} is no node's name")
    return name


def _placed_model(data: Mapping[str, Any]) -> PlacedModel:
    model = PlacedModel(**data)
    for count in (model.instances, model.batch):
        if type(count) is not int or not 1 <= count <= _MOST:
            raise ValueError(f"{count!r} is not a number of instances or a batch size")
    return model


def plan_to_text(plan: Plan) -> str:
    """The bytes of plan.json: the same plan gives the same text."""
    return json.dumps(plan.to_json(), indent=2, sort_keys=False) + "\n"
