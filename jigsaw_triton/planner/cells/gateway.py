"""Load that a plan puts on its gateway, compared with the limits of one gateway (`GatewayLimits`)."""

from collections.abc import Mapping
from dataclasses import dataclass

from jigsaw_triton.gpus.gateway import GatewayLimits
from jigsaw_triton.gpus.model import Processes
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.gateway_load import gateway_load
from jigsaw_triton.planner.domain.plan import Plan


@dataclass(frozen=True, slots=True)
class GatewayUse:
    """Load that a plan puts on its gateway.

    Attributes:
        processors: Processors that the gateway keeps busy at the planned demand.
        workers: Workers of the task that has most of them.
    """

    processors: float
    workers: int

    def load(self, limits: GatewayLimits) -> float:
        """Returns the part of what a gateway carries that is in use; above 1 if it does not carry all."""
        return max(self.processors / limits.processors, self.workers / limits.workers)

    def described(self, limits: GatewayLimits) -> str:
        """Returns the limit that is nearest as text, such as `80 workers of a task, of 64`."""
        if self.workers / limits.workers >= self.processors / limits.processors:
            return f"{self.workers} workers of a task, of {limits.workers}"
        return f"{self.processors:.1f} processors, of {limits.processors}"


def gateway_use(graphs: Mapping[str, TaskGraph], plan: Plan, processes: Processes) -> GatewayUse:
    """Returns the load that a plan puts on its gateway.

    Args:
        graphs: Graph name -> graph, for each graph of the plan.
        plan: Plan.
        processes: Implementation of a replica's instances: one worker, or under MPS one for each of them.
    """
    workers = (
        sum(segment.count * (segment.instances if processes == "mps" else 1) for segment in task.segments)
        for graph in plan.graphs.values()
        for task in graph.tasks.values()
    )
    return GatewayUse(gateway_load(graphs, plan).processors, max(workers, default=0))
