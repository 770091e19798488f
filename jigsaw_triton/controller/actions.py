"""What the controller's core asks its shell to do. Plain values; `shell` carries them out."""

from collections.abc import Mapping
from dataclasses import dataclass

from jigsaw_triton.compiler.bundle import ModelFolder, RouteEntry, Worker, WorkerModel
from jigsaw_triton.controller.generation import Generation, Wanted
from jigsaw_triton.graph.model import TaskGraph


@dataclass(frozen=True, slots=True)
class Solve:
    """Find a plan and compile it.

    Attributes:
        wanted: Graphs, cluster and profiles.
        demand_rps: Graph -> requests a second to plan for.
        generation: Number of the generation that comes of it.
        reason: In the user's words.
        running: The generation to stay close to.
        graphs: As they are to be planned: with what was measured in place of estimates.
        may_fall_short: Whether demands above what was asked for are cut where the cluster cannot carry them all.
    """

    wanted: Wanted
    demand_rps: Mapping[str, float]
    generation: int
    reason: str
    running: Generation | None
    graphs: Mapping[str, TaskGraph]
    may_fall_short: bool = False


@dataclass(frozen=True, slots=True)
class StartGateway:
    """Start the gateway's tritonserver, without models."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class BringUp:
    """Create a worker's MIG instance, start its tritonserver, load and verify its models; all of it or nothing."""

    worker: Worker


@dataclass(frozen=True, slots=True)
class LoadModels:
    """Load and verify further models on a running worker; all of them or none."""

    worker: str
    models: tuple[WorkerModel, ...]


@dataclass(frozen=True, slots=True)
class LoadGateway:
    """Write routes, and load and verify models behind fronts at the gateway; all of them or none.

    Attributes:
        models: One-task fronts and pipelines in the order of loading.
        routes: Name of a route -> its entries.
    """

    models: tuple[ModelFolder, ...]
    routes: Mapping[str, tuple[RouteEntry, ...]]


@dataclass(frozen=True, slots=True)
class Flip:
    """Load a graph's front over the one that serves, and verify by index and by a probe through the whole graph."""

    graph: str
    front: ModelFolder


@dataclass(frozen=True, slots=True)
class SetRoutes:
    """Change where batches of running tasks are sent.

    Attributes:
        routes: Name of a route -> its new entries.
    """

    routes: Mapping[str, tuple[RouteEntry, ...]]


@dataclass(frozen=True, slots=True)
class UnloadGateway:
    """Unload models and end routes at the gateway, each once its last request has been answered."""

    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drain:
    """Wait until none of these models of a worker has a batch in flight.

    Attributes:
        worker: Name of the worker.
        models: Names of the models.
    """

    worker: str
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UnloadModels:
    """Unload models of a worker and remove their folders."""

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
    """Start a worker's tritonserver anew on the instance it had, with the models it had.

    Attributes:
        worker: With the models it had.
        delay_s: To wait before.
    """

    worker: Worker
    delay_s: float


@dataclass(frozen=True, slots=True)
class RestartGateway:
    """Start the gateway anew with the models it had.

    Attributes:
        wanted: For the ports.
        models: One-task fronts, pipelines, then fronts. Their routes are where they were: files outlive the gateway.
        delay_s: To wait before.
    """

    wanted: Wanted
    models: tuple[ModelFolder, ...]
    delay_s: float


@dataclass(frozen=True, slots=True)
class Report:
    """Tell what happened: a line of the event log.

    Attributes:
        kind: A word: `plan`, `transition`, `ready`, `restart`, `condemned`, `demand`, `error`, ...
        text: A sentence.
        code: Exit code that goes with an error which ended a change; else 0.
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
    | SetRoutes
    | UnloadGateway
    | Drain
    | UnloadModels
    | Retire
    | StopGateway
    | RestartWorker
    | RestartGateway
)
"""Everything that ends with an event `Done` or `Failed`; a `Report` does not."""


@dataclass(frozen=True, slots=True)
class Issued:
    """An action and the number under which its end is reported."""

    id: int
    action: Action
