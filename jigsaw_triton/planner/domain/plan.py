"""The plan: configurations, counts, placements and predictions. `planner.domain.plan_reader` reads its JSON format."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import GpuId, Placement

PLAN_VERSION = 1
"""Version of the format of plan.json. Plans of other versions are rejected."""


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


def plan_to_text(plan: Plan) -> str:
    """Returns the text of plan.json; equal plans give equal texts."""
    return json.dumps(plan.to_json(), indent=2, sort_keys=False) + "\n"
