"""Reads plan.json, and checks every entry of it."""

import math
from dataclasses import fields
from typing import Any

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import SLICES, GpuId, Placement
from jigsaw_triton.planner.domain.features import SUBSETS
from jigsaw_triton.planner.domain.json_reader import MAX_NUMBER, Field, FieldError
from jigsaw_triton.planner.domain.plan import (
    PLAN_VERSION,
    GraphPlan,
    PlacedModel,
    PlacedSlice,
    Plan,
    PlanCost,
    PlannedGpu,
    PlanSurvival,
    Segment,
    SolverReport,
    Standby,
    TaskPlan,
)
from jigsaw_triton.planner.domain.tolerances import ROUNDING

_SLICES = (*SLICES, *(f"{kind}+me" for kind in SLICES))

MAX_INT = 2**31 - 1
"""Largest integer accepted in a plan: Triton's model configurations hold 32-bit integers."""


def plan_from_json(data: Any, *, where: str) -> Plan:
    """Reads a plan that `Plan.to_json` wrote.

    Args:
        data: Parsed JSON.
        where: Name of the file, for error messages.

    Raises:
        InputError: The data is not a plan, is damaged, or has another version.
    """
    if not isinstance(data, dict) or "version" not in data:
        raise InputError("this is not a plan", where=where, hint="create one with `jigsaw-triton plan -o json`")
    if type(data["version"]) is not int or data["version"] != PLAN_VERSION:
        raise InputError(
            f"plan version {data['version']!r} is not {PLAN_VERSION}",
            where=where,
            hint="plan again with this release",
        )
    try:
        return _plan(Field(data))
    except FieldError as error:
        raise InputError(f"the plan is damaged ({error})", where=where, hint="plan again") from error


def _plan(data: Field) -> Plan:
    return Plan(
        graphs={name: _graph(graph) for name, graph in data["graphs"].named().items()},
        gpus=_gpus(data["gpus"]),
        slices_used=data["slices_used"].integer(0, MAX_INT),
        slices_total=data["slices_total"].integer(0, MAX_INT),
        gpus_used=data["gpus_used"].integer(0, MAX_INT),
        features=data["features"].one_of(SUBSETS),
        formulation=data["formulation"].word(),
        latency_model=data["latency_model"].word(),
        solver=_solver(data["solver"]),
        cost=cost_from_json(data.get("cost")),
        survival=_survival(data.get("survival")),
    )


def _graph(data: Field) -> GraphPlan:
    data.only(_names_of(GraphPlan))
    return GraphPlan(
        demand_rps=data["demand_rps"].number(),
        capacity_rps=data["capacity_rps"].number(most=math.inf),
        accuracy=data["accuracy"].number(),
        latency_ms=data["latency_ms"].number(),
        tasks={name: _task(task) for name, task in data["tasks"].named().items()},
        standby=_standby(data.get("standby")),
    )


def _standby(data: Field | None) -> Standby | None:
    if data is None or data.value is None:
        return None
    data.only(_names_of(Standby))
    return Standby(capacity_rps=data["capacity_rps"].number(), accuracy=data["accuracy"].number())


def _task(data: Field) -> TaskPlan:
    data.only(_names_of(TaskPlan))
    return TaskPlan(
        budget_ms=data["budget_ms"].number(),
        rate_rps=data["rate_rps"].number(),
        segments=tuple(_segment(segment) for segment in data["segments"].listed()),
    )


def _segment(data: Field) -> Segment:
    data.only(_names_of(Segment))
    return Segment(
        variant=data["variant"].name(),
        slice=data["slice"].one_of(_SLICES),
        instances=data["instances"].integer(1, MAX_INT),
        batch=data["batch"].integer(1, MAX_INT),
        count=data["count"].integer(1, MAX_INT),
        share=data["share"].number(most=1 + ROUNDING),
    )


def _gpus(data: Field) -> tuple[PlannedGpu, ...]:
    gpus: dict[GpuId, PlannedGpu] = {}
    for field in data.listed():
        gpu = _gpu(field)
        if gpu.id in gpus:
            raise field.error(f"GPU {gpu.id} is listed twice")
        gpus[gpu.id] = gpu
    return tuple(gpus.values())


def _gpu(data: Field) -> PlannedGpu:
    data.only(("node", "index", "model", "layout"))
    return PlannedGpu(
        id=GpuId(data["node"].name(), data["index"].integer(0, MAX_INT)),
        model=data["model"].word(),
        layout=tuple(_placed_slice(placed) for placed in data["layout"].listed()),
    )


def _placed_slice(data: Field) -> PlacedSlice:
    data.only(("slice", "start", "models", "standby"))
    standby = data.get("standby")
    return PlacedSlice(
        Placement(data["start"].integer(0, MAX_INT), data["slice"].one_of(_SLICES)),
        tuple(_placed_model(model) for model in data["models"].listed()),
        tuple(_placed_model(model) for model in standby.listed()) if standby is not None else (),
    )


def _placed_model(data: Field) -> PlacedModel:
    data.only(_names_of(PlacedModel))
    return PlacedModel(
        graph=data["graph"].name(),
        task=data["task"].name(),
        variant=data["variant"].name(),
        instances=data["instances"].integer(1, MAX_INT),
        batch=data["batch"].integer(1, MAX_INT),
    )


def cost_from_json(data: Field | None) -> PlanCost | None:
    """Reads a cost, if there is one.

    Raises:
        FieldError: The data is not a cost.
    """
    if data is None or data.value is None:
        return None
    data.only(_names_of(PlanCost))
    return PlanCost(
        used=data["used"].number(),
        total=data["total"].number(),
        source="given" if data["source"].one_of(("given", "throughput")) == "given" else "throughput",
        unit=data["unit"].text(),
    )


def _survival(data: Field | None) -> PlanSurvival | None:
    if data is None or data.value is None:
        return None
    data.only(_names_of(PlanSurvival))
    slices, cost = data["more_slices"], data["more_cost"]
    return PlanSurvival(
        loss_of=data["loss_of"].name(),
        share=data["share"].number(most=1.0),
        left_rps={name: rps.number() for name, rps in data["left_rps"].named().items()},
        more_slices=None if slices.value is None else slices.integer(-MAX_INT, MAX_INT),
        more_cost=None if cost.value is None else cost.number(least=-MAX_NUMBER),
    )


def _solver(data: Field) -> SolverReport:
    data.only(_names_of(SolverReport))
    return SolverReport(
        name=data["name"].word(),
        status=data["status"].word(),
        seconds=data["seconds"].number(),
        gap=data["gap"].number(most=math.inf),
    )


def _names_of(
    part: type[GraphPlan | Standby | TaskPlan | Segment | PlacedModel | SolverReport | PlanCost | PlanSurvival],
) -> tuple[str, ...]:
    return tuple(field.name for field in fields(part))
