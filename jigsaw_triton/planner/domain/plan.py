"""The plan: configurations, counts, placements and predictions; and its JSON format."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import SLICES, GpuId, Placement
from jigsaw_triton.planner.domain.features import SUBSETS
from jigsaw_triton.planner.domain.json_reader import MAX_NUMBER, Field, FieldError
from jigsaw_triton.planner.domain.tolerances import ROUNDING

PLAN_VERSION = 1
"""Version of the format of plan.json. Plans of other versions are rejected."""

_SLICES = (*SLICES, *(f"{kind}+me" for kind in SLICES))

_MAX_INT = 2**31 - 1
"""Largest integer accepted in a plan: Triton's model configurations hold 32-bit integers."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A configuration in use and the number of its replicas.

    Attributes:
        variant: Variant of the task.
        slice: Kind of MIG instance.
        instances: Triton instance count of the model in the slice.
        batch: Largest batch of one execution.
        count: Number of replicas.
        share: Share of the task's rate planned for these replicas, 0 to 1.
    """

    variant: str
    slice: str
    instances: int
    batch: int
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """A task's part of the plan.

    Attributes:
        budget_ms: Latency budget; along every path the budgets add up to at most the SLO.
        rate_rps: Calls a second at the planned demand (rows a second if the task iterates).
        segments: Configurations in use, sorted.
    """

    budget_ms: float
    rate_rps: float
    segments: tuple[Segment, ...]

    @property
    def mix(self) -> dict[str, float]:
        """Variant -> share of the task's rate."""
        shares: dict[str, float] = {}
        for segment in self.segments:
            shares[segment.variant] = shares.get(segment.variant, 0.0) + segment.share
        return shares


@dataclass(frozen=True, slots=True)
class Standby:
    """A graph's service while its standby variants are in use.

    Attributes:
        capacity_rps: Requests a second that the graph then carries within its latency SLO, more than without them.
        accuracy: Least relative accuracy of a request that standby variants answer, alone or with others.
    """

    capacity_rps: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class GraphPlan:
    """A graph's part of the plan.

    Attributes:
        demand_rps: Demand planned for, in requests a second.
        capacity_rps: Requests a second that the segments can carry, at least the demand.
        accuracy: Relative accuracy along the worst path: the minimum over requests, or the mean if the SLO is a mean.
        latency_ms: Predicted end-to-end latency, by `Plan.latency_model`.
        tasks: Task name -> its part.
        standby: Service with standby variants in use; None if the graph has none.
    """

    demand_rps: float
    capacity_rps: float
    accuracy: float
    latency_ms: float
    tasks: Mapping[str, TaskPlan]
    standby: Standby | None = None

    @property
    def mix(self) -> dict[str, dict[str, float]]:
        """Task -> variant -> share of the task's rate."""
        return {name: task.mix for name, task in self.tasks.items()}


@dataclass(frozen=True, slots=True)
class PlacedModel:
    """A model of a replica in a slice."""

    graph: str
    task: str
    variant: str
    instances: int
    batch: int


@dataclass(frozen=True, slots=True)
class PlacedSlice:
    """A MIG instance of the plan and the models in it.

    Attributes:
        placement: Slice and its start on the GPU.
        models: Models that serve.
        standby: Lighter model of the same task, loaded beside the only model that serves; empty if there is none.
    """

    placement: Placement
    models: tuple[PlacedModel, ...]
    standby: tuple[PlacedModel, ...] = ()


@dataclass(frozen=True, slots=True)
class PlannedGpu:
    """A GPU that the plan uses, with its layout sorted by start."""

    id: GpuId
    model: str
    layout: tuple[PlacedSlice, ...]


CONSTRUCTED = "first-fit"
"""Name, in place of a solver's, of the construction of a plan without a solver."""


@dataclass(frozen=True, slots=True)
class SolverReport:
    """The solver's part in the plan.

    Attributes:
        name: `HiGHS` or `CBC`; `first-fit` if the plan was constructed without a solver.
        status: `optimal` (proven) or `feasible` (the time limit came first, or slices share processors whose limit the
            program does not know exactly; see `gap`).
        seconds: Wall-clock time of planning.
        gap: Relative gap of the first objective: cost (compute slices if all count alike) or the loss of accuracy,
            less the price of changes if they have one.
    """

    name: str
    status: str
    seconds: float
    gap: float

    @property
    def constructed(self) -> bool:
        """True if the plan was constructed without a solver."""
        return self.name == CONSTRUCTED


@dataclass(frozen=True, slots=True)
class PlanCost:
    """Cost of a plan's slices. A slice costs its share of the compute slices of its GPU.

    Attributes:
        used: Cost of the slices in use.
        total: Cost of all slices of the cluster that are not taken by others.
        source: `given` for costs of cluster.yaml, `throughput` for the relative throughput of mixed boards.
        unit: `per hour`; or with `throughput` the slowest model of GPU, of which one GPU costs 1.
    """

    used: float
    total: float
    source: Literal["given", "throughput"]
    unit: str

    def words(self, used: float) -> str:
        """Returns an amount with its unit as text, such as `1.25 per hour` or `2.10 GPUs of A30-24GB`."""
        return f"{used:.2f} {self.unit}" if self.source == "given" else f"{used:.2f} GPUs of {self.unit}"


@dataclass(frozen=True, slots=True)
class PlanSurvival:
    """Loss that a plan survives, and what that costs.

    Attributes:
        loss_of: `node`, or the label of nodes whose values are failure domains.
        share: Share of each graph's demand that the loss of any domain leaves at least.
        left_rps: Graph -> requests a second that the worst loss leaves.
        more_slices: Compute slices in use beyond those of the best plan that need not survive; None if the time limit
            left that open.
        more_cost: Cost beyond that of the best plan that need not survive; None if that is open, or if all slices count
            alike.
    """

    loss_of: str
    share: float
    left_rps: Mapping[str, float]
    more_slices: int | None = None
    more_cost: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """An allocation: the result of the planner, the input of the compiler.

    `cost` is None if all slices count alike, and `survival` if the plan need not survive any loss.
    """

    graphs: Mapping[str, GraphPlan]
    gpus: tuple[PlannedGpu, ...]
    slices_used: int
    slices_total: int
    gpus_used: int
    features: str
    formulation: str
    latency_model: str
    solver: SolverReport
    cost: PlanCost | None = None
    survival: PlanSurvival | None = None

    def to_svg(self) -> str:
        """Returns a drawing of the GPUs that the plan uses, as an SVG document.

        Raises:
            InputError: The catalog lacks one of the GPU models.
        """
        from jigsaw_triton.planner.domain.picture import svg

        return svg(self)

    def _repr_html_(self) -> str | None:
        """Drawing that notebooks show; None if the catalog lacks one of the GPU models."""
        try:
            return self.to_svg()
        except InputError:
            return None

    def to_json(self) -> dict[str, Any]:
        """Returns the content of plan.json."""
        data = {"version": PLAN_VERSION, **asdict(replace(self, gpus=()))}
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
                        "standby": [asdict(model) for model in placed.standby],
                    }
                    for placed in gpu.layout
                ],
            }
            for gpu in self.gpus
        ]
        return data


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
        slices_used=data["slices_used"].integer(0, _MAX_INT),
        slices_total=data["slices_total"].integer(0, _MAX_INT),
        gpus_used=data["gpus_used"].integer(0, _MAX_INT),
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
        instances=data["instances"].integer(1, _MAX_INT),
        batch=data["batch"].integer(1, _MAX_INT),
        count=data["count"].integer(1, _MAX_INT),
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
        id=GpuId(data["node"].name(), data["index"].integer(0, _MAX_INT)),
        model=data["model"].word(),
        layout=tuple(_placed_slice(placed) for placed in data["layout"].listed()),
    )


def _placed_slice(data: Field) -> PlacedSlice:
    data.only(("slice", "start", "models", "standby"))
    standby = data.get("standby")
    return PlacedSlice(
        Placement(data["start"].integer(0, _MAX_INT), data["slice"].one_of(_SLICES)),
        tuple(_placed_model(model) for model in data["models"].listed()),
        tuple(_placed_model(model) for model in standby.listed()) if standby is not None else (),
    )


def _placed_model(data: Field) -> PlacedModel:
    data.only(_names_of(PlacedModel))
    return PlacedModel(
        graph=data["graph"].name(),
        task=data["task"].name(),
        variant=data["variant"].name(),
        instances=data["instances"].integer(1, _MAX_INT),
        batch=data["batch"].integer(1, _MAX_INT),
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
        more_slices=None if slices.value is None else slices.integer(-_MAX_INT, _MAX_INT),
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


def plan_to_text(plan: Plan) -> str:
    """Returns the text of plan.json; equal plans give equal texts."""
    return json.dumps(plan.to_json(), indent=2, sort_keys=False) + "\n"
