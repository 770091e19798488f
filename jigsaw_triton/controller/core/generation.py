"""The input of a deployment, and the generations that are planned from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.core.forecast import DEFAULT_FORECAST, WINDOW_S, ForecastSettings
from jigsaw_triton.controller.core.settings import PERIOD_S
from jigsaw_triton.gpus.model import Cluster, GpuId
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.features import FEATURES
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import Formulation, LatencyModel, Objective, Options, StandbyMode
from jigsaw_triton.profiles.table import ProfileTable

SHARE_DIGITS = 4
"""Decimal digits to which two routing shares must agree to count as equal."""

LEAST_ACCURACY_GAIN = 0.001
"""Accuracy, as a share, that a deployment must gain by each slice and each change, with the objective `accuracy`. A
convention: without a price, a plan would change with every change of the load."""

PLANNING = ("share", "change_price", "latency_model", "features", "formulation", "objective", "standby")
"""Options of the planner that a deployment keeps; `Wanted` has them under the same names."""

REQUESTED = "requested by the user"
"""Reason of a change, if there is no better one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The input of a deployment.

    Attributes:
        graphs: Task graphs, by name.
        demand_rps: Graph -> requests per second that every plan must cover. The controller follows load above it.
        profiles: Profile tables, by graph.
        cluster: Cluster to serve on.
        share: True if models may share slices.
        change_price: Compute slices that a new plan must save for each running MIG instance that it removes.
        latency_model: Model that predicts a task's latency.
        features: Features of the planner; fewer are a baseline.
        formulation: Formulation of the planner; the paper's is a baseline.
        objective: Objective of the planner: the fewest slices, or the highest accuracy.
        deterministic: True if emulated variants do not draw their times and rows.
        standby: `auto` loads standby variants where they fit, `off` does not.
        period_s: Seconds between two reviews of a plan whose load has fallen.
        forecast: Name of the forecast of the load, of `forecast.FORECASTS`.
        window_s: Seconds of load whose peaks the forecast sees.
    """

    graphs: Mapping[str, TaskGraph]
    demand_rps: Mapping[str, float]
    profiles: Mapping[str, ProfileTable]
    cluster: Cluster
    share: bool = False
    change_price: float = 0.0
    latency_model: LatencyModel = "queue"
    features: str = FEATURES
    formulation: Formulation = "exact"
    objective: Objective = "slices"
    deterministic: bool = False
    standby: StandbyMode = "auto"
    period_s: float = PERIOD_S
    forecast: str = DEFAULT_FORECAST
    window_s: float = WINDOW_S

    @property
    def forecast_settings(self) -> ForecastSettings:
        """Forecast of the load."""
        return ForecastSettings(self.forecast, self.window_s)

    @property
    def options(self) -> Options:
        """Planner options. With the objective `accuracy` a change has a price in any case."""
        least = LEAST_ACCURACY_GAIN if self.objective == "accuracy" else 0.0
        kept = {name: getattr(self, name) for name in PLANNING}
        return Options(**{**kept, "change_price": max(self.change_price, least)})


@dataclass(frozen=True, slots=True)
class Basis:
    """Values that a plan was made with, beside the input of the deployment.

    Attributes:
        graphs: Graphs in which measured values replace the estimates; absent for those of the input.
        slow: (Graph, task, variant, GPU model, slice) -> ratio by which its profile was scaled; see `slowness.Kind`.
        unusable: GPUs that were lost, or on nodes that were withdrawn.
    """

    graphs: Mapping[str, TaskGraph] = field(default_factory=dict)
    slow: Mapping[tuple[str, str, str, str, str], float] = field(default_factory=dict)
    unusable: frozenset[GpuId] = frozenset()


@dataclass(frozen=True, slots=True)
class Generation:
    """A plan that serves or is being rolled out.

    Attributes:
        wanted: Deployment input that the plan was made for.
        plan: Plan.
        bundle: Bundle compiled from the plan.
        basis: Values that the plan was made with, which only the journal keeps.
    """

    wanted: Wanted
    plan: Plan
    bundle: Bundle
    basis: Basis = Basis()

    def samples(self, graph: str) -> Mapping[str, Path]:
        """Returns the files of a graph's sample request; none unless every input has one."""
        known = self.wanted.graphs.get(graph)
        return known.samples if known is not None and known.samples.keys() == known.inputs.keys() else {}

    def serves_like(self, other: "Generation") -> bool:
        """Returns True if a change from one generation to the other would change nothing that runs."""
        return (
            self.bundle.workers == other.bundle.workers
            and self.wanted.graphs == other.wanted.graphs
            and _targets(self.bundle) == _targets(other.bundle)
            and _shares(self.bundle) == _shares(other.bundle)
        )


@dataclass(frozen=True, slots=True)
class Canary:
    """A share of the requests that the new generation answers before it takes over or is rolled back.

    Attributes:
        share: Share of the requests, greater than 0 and less than 1.
        seconds: Seconds until the verdict.
    """

    share: float
    seconds: float


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """A change that the user has asked for.

    Attributes:
        wanted: Deployment input.
        reason: Reason, as the event log and the history show it.
        restored: Earlier generation to return to; None to plan anew.
        canary: Canary that decides about the change; None for none.
        provided_rps: Graph -> requests a second that the running plan provides for. The next plan provides for them,
            too, as far as there is room beside the demand. Empty to plan for the demand alone.
    """

    wanted: Wanted
    reason: str = REQUESTED
    restored: Generation | None = None
    canary: Canary | None = None
    provided_rps: Mapping[str, float] = field(default_factory=dict)

    @property
    def demand_rps(self) -> Mapping[str, float]:
        """Graph -> requests a second to plan for."""
        if self.restored is None:
            return {name: max(rps, self.provided_rps.get(name, 0.0)) for name, rps in self.wanted.demand_rps.items()}
        return {name: graph.demand_rps for name, graph in self.restored.plan.graphs.items()}


def _targets(bundle: Bundle) -> dict[str, str]:
    return {name: graph.target for name, graph in bundle.graphs.items()}


def _shares(bundle: Bundle) -> dict[tuple[str, str, str], float]:
    """Returns the share of a task's items for each (graph, task, variant), rounded to `SHARE_DIGITS`."""
    return {
        (name, task.task, entry.variant): round(entry.share, SHARE_DIGITS)
        for name, graph in bundle.graphs.items()
        for task in graph.tasks
        for entry in task.route
    }
