"""Actions that the controller's core asks its shell to carry out, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from jigsaw_triton.compiler.bundle import ModelFolder, RouteEntry, Worker, WorkerModel
from jigsaw_triton.controller.core.generation import Canary, Generation, Wanted
from jigsaw_triton.controller.core.slowness import Kind
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.graph.model import TaskGraph


@dataclass(frozen=True, slots=True)
class Solve:
    """Compute a plan and compile it.

    Attributes:
        wanted: Graphs, cluster and profiles.
        demand_rps: Graph -> requests a second to plan for.
        generation: Number of the new generation.
        reason: Cause of the change, as the event log shows it.
        running: Generation that serves; the new plan stays close to it.
        graphs: Graphs to plan, in which measured values replace the estimates.
        may_fall_short: True if demand above the user's own figures may be cut when the cluster cannot carry all of it.
        restored: Earlier generation whose plan is to be compiled again; None to compute a plan.
        canary: Canary that decides about the change; None for none.
        first: True to take the first feasible plan, if one can be constructed without a solver.
        review: True if the outcome is the running plan unless another one saves enough; see `core.review`.
        lost: GPUs of the cluster that are lost. If there are any, even the user's own demand may be cut.
        cordoned: GPUs of the cluster that the user has withdrawn from new plans.
        slow: Model on a kind of slice -> ratio by which its profile is scaled.
        by_user: True if the user has asked for the change.
    """

    wanted: Wanted
    demand_rps: Mapping[str, float]
    generation: int
    reason: str
    running: Generation | None
    graphs: Mapping[str, TaskGraph]
    may_fall_short: bool = False
    restored: Generation | None = None
    canary: Canary | None = None
    first: bool = False
    review: bool = False
    lost: frozenset[GpuId] = frozenset()
    slow: Mapping[Kind, float] = field(default_factory=dict)
    by_user: bool = False
    cordoned: frozenset[GpuId] = frozenset()

    @property
    def unusable(self) -> frozenset[GpuId]:
        """GPUs on which the plan puts nothing."""
        return self.lost | self.cordoned


@dataclass(frozen=True, slots=True)
class StartGateway:
    """Start the gateway's tritonserver without models."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class BringUp:
    """Create a worker's MIG instance, start its tritonserver, and load and verify its models.

    A failure at any step undoes the steps before it.
    """

    worker: Worker


@dataclass(frozen=True, slots=True)
class LoadModels:
    """Load and verify more models on a running worker: all of them or none."""

    worker: str
    models: tuple[WorkerModel, ...]


@dataclass(frozen=True, slots=True)
class LoadGateway:
    """Write routes, and load and verify the models behind the fronts at the gateway: all of them or none.

    Attributes:
        models: One-task fronts and pipelines, in loading order.
        routes: Name of a route -> its entries.
    """

    models: tuple[ModelFolder, ...]
    routes: Mapping[str, tuple[RouteEntry, ...]]


@dataclass(frozen=True, slots=True)
class Flip:
    """Replace a graph's front after the new one has answered a probe through the whole graph, and verify it.

    Attributes:
        graph: Name of the graph.
        front: The new front.
        samples: Graph input -> file with the tensor of the probe; empty for a probe of zeros.
    """

    graph: str
    front: ModelFolder
    samples: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Compare:
    """Send one request to a graph's front and to a copy of its next one, and report how far the answers agree.

    Attributes:
        graph: Name of the graph.
        front: The next front.
        samples: Graph input -> file with the tensor of the request; empty for a request of zeros.
    """

    graph: str
    front: ModelFolder
    samples: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SetRoutes:
    """Change the workers to which batches of running tasks are sent.

    Attributes:
        routes: Name of a route -> its new entries.
    """

    routes: Mapping[str, tuple[RouteEntry, ...]]


@dataclass(frozen=True, slots=True)
class UnloadGateway:
    """Unload models and remove routes at the gateway, each after its last request has been answered."""

    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """Wait until none of the given models of a worker has a batch in flight.

    Attributes:
        worker: Name of the worker.
        models: Names of the models.
    """

    worker: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settle:
    """Wait until no request of a graph is bound to a generation; see `interim_routes`.

    Attributes:
        graph: Name of the graph.
        generation: Number of the generation.
    """

    graph: str
    generation: int


@dataclass(frozen=True, slots=True)
class UnloadModels:
    """Unload models from a worker and remove their folders."""

    worker: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Retire:
    """Stop a worker's tritonserver and destroy its MIG instance."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class StopGateway:
    """Stop the gateway's tritonserver."""


@dataclass(frozen=True, slots=True)
class RestartWorker:
    """Restart a worker's tritonserver on the same MIG instance with the same models.

    Attributes:
        worker: Worker and the models to load.
        delay_s: Seconds to wait before the restart.
    """

    worker: Worker
    delay_s: float


@dataclass(frozen=True, slots=True)
class RestartGateway:
    """Restart the gateway with the same models.

    Attributes:
        wanted: Deployment input, which holds the ports.
        models: One-task fronts, pipelines, then the graphs' fronts. Their routes are files, which outlive the gateway.
        delay_s: Seconds to wait before the restart.
    """

    wanted: Wanted
    models: tuple[ModelFolder, ...]
    delay_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """Write a line to the event log.

    Attributes:
        kind: Kind of the event, one word: `plan`, `transition`, `ready`, `restart`, `condemned`, `demand`, `error`, ...
        text: Sentence that describes the event.
        code: Exit code for an error that ended a change; 0 for any other event.
    """

    kind: str
    text: str
    code: int = 0


Action = (
    Solve
    | StartGateway
    | BringUp
    | LoadModels
    | LoadGateway
    | Flip
    | Compare
    | SetRoutes
    | UnloadGateway
    | Drain
    | Settle
    | UnloadModels
    | Retire
    | StopGateway
    | RestartWorker
    | RestartGateway
)
"""Actions that end with an event `Solved`, `Done` or `Failed`. A `Report` is not one of them."""


@dataclass(frozen=True, slots=True)
class Issued:
    """An action to carry out.

    Attributes:
        id: Number with which its outcome is reported.
        action: Action.
        node: Node that carries it out: a worker's, or the controller's own.
    """

    id: int
    action: Action
    node: str
