"""What the user asked for, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import LatencyModel, Options
from jigsaw_triton.profiles.table import ProfileTable

SHARE_DIGITS = 4
"""Shares that differ less than in these are one."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The input of a deployment.

    Attributes:
        graphs: By name.
        demand_rps: Graph -> requests a second that are always provided for; load above it is followed.
        profiles: By graph.
        cluster: To serve on.
        share: Whether models may share slices.
        change_price: Compute slices that a change has to save for each running MIG instance that it does not leave.
        latency_model: How long a task is planned to take.
    """

    graphs: Mapping[str, TaskGraph]
    demand_rps: Mapping[str, float]
    profiles: Mapping[str, ProfileTable]
    cluster: Cluster
    share: bool = False
    change_price: float = 0.0
    latency_model: LatencyModel = "queue"

    @property
    def options(self) -> Options:
        """How to plan for it."""
        return Options(share=self.share, change_price=self.change_price, latency_model=self.latency_model)


@dataclass(frozen=True, slots=True)
class Generation:
    """A plan that serves, or is about to.

    Attributes:
        wanted: What it was made for.
        plan: Of the planner.
        bundle: Of the compiler.
    """

    wanted: Wanted
    plan: Plan
    bundle: Bundle

    def serves_like(self, other: "Generation") -> bool:
        """Whether going from one to the other changes nothing that runs."""
        return (
            self.bundle.workers == other.bundle.workers
            and self.wanted.graphs == other.wanted.graphs
            and _targets(self.bundle) == _targets(other.bundle)
            and _shares(self.bundle) == _shares(other.bundle)
        )


def _targets(bundle: Bundle) -> dict[str, str]:
    return {name: graph.target for name, graph in bundle.graphs.items()}


def _shares(bundle: Bundle) -> dict[tuple[str, str, str], float]:
    """(graph, task, variant) -> its share of the task's items, as far as it matters that it is kept."""
    return {
        (name, task.task, entry.variant): round(entry.share, SHARE_DIGITS)
        for name, graph in bundle.graphs.items()
        for task in graph.tasks
        for entry in task.route
    }
