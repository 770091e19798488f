"""How long a request may wait in the queues of its tasks before it cannot be answered in time any more."""

from collections.abc import Mapping
from dataclasses import dataclass

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.plan import Plan
from jigsaw_triton.profiles.table import ProfileKey, ProfileTable


def service_ms(plan: Plan, graph: TaskGraph, profiles: ProfileTable | None) -> dict[str, float]:
    """Time that a batch of each task takes: the 95th percentile of the slowest replica, half the budget if not known.

    Args:
        plan: Whose replicas do the tasks.
        graph: Of the plan.
        profiles: Of the graph.
    """
    slowest: dict[str, float] = {}
    for gpu in plan.gpus:
        for placed in gpu.layout:
            for model in placed.models:
                if model.graph != graph.name or profiles is None:
                    continue
                kind = placed.placement.slice
                row = profiles.get(ProfileKey(gpu.model, model.task, model.variant, kind, model.instances, model.batch))
                if row is not None:
                    slowest[model.task] = max(slowest.get(model.task, 0.0), row.latency_p95_ms)
    budgets = plan.graphs[graph.name].tasks
    return {task: slowest.get(task, budgets[task].budget_ms / 2) for task in graph.tasks}


@dataclass(frozen=True, slots=True)
class Slack:
    """How long requests may wait for a task.

    Attributes:
        all_ms: For all tasks on their way together, as the SLO leaves it.
        share_ms: For this task, as its budget leaves it.
    """

    all_ms: float
    share_ms: float


def slack(graph: TaskGraph, budgets_ms: Mapping[str, float], services_ms: Mapping[str, float]) -> dict[str, Slack]:
    """What is left for waiting, by task.

    Budgets fit the SLO along every path, so that waiting for no longer than the shares does too. At least half a
    service is left: the batch under way is waited for that long on average, whatever a plan's budgets say.

    Args:
        graph: With the SLO.
        budgets_ms: By task.
        services_ms: By task, as of `service_ms`.
    """
    found = {}
    for task, service in services_ms.items():
        slowest = max(sum(services_ms[other] for other in path) for path in graph.paths() if task in path)
        share_ms = max(budgets_ms[task] - service, service / 2)
        found[task] = Slack(max(graph.tasks_ms - slowest, share_ms), share_ms)
    return found
