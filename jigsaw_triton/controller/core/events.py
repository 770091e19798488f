"""Events that the controller's core handles: user requests, clock ticks, and outcomes of actions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import REQUESTED, Canary, Generation, Wanted
from jigsaw_triton.controller.core.request_counts import CountsByGeneration
from jigsaw_triton.controller.core.rows import Counts
from jigsaw_triton.controller.core.slowness import ServedTimes
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.planner.domain.plan import Plan


@dataclass(frozen=True, slots=True)
class DeployRequested:
    """The user has requested a deployment or an update.

    Attributes:
        wanted: Deployment input.
        canary: Canary that decides about the update; None for none.
        reason: Reason, as the event log and the history show it.
        provided_rps: See `ChangeRequest`.
    """

    wanted: Wanted
    canary: Canary | None = None
    reason: str = REQUESTED
    provided_rps: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RollbackRequested:
    """The user has requested a return to an earlier generation.

    Attributes:
        earlier: Generation whose input and plan are to serve again, under a new number.
    """

    earlier: Generation


@dataclass(frozen=True, slots=True)
class CanaryEndRequested:
    """The user has requested that the canary in progress be rolled back."""


@dataclass(frozen=True, slots=True)
class PauseRequested:
    """The user has requested that the measured load cause no change, or that it do so again.

    Attributes:
        paused: True to pause, False to resume.
    """

    paused: bool


@dataclass(frozen=True, slots=True)
class CordonRequested:
    """The user has withdrawn a node from new plans, or has returned it.

    Attributes:
        node: Name of the node.
        cordoned: True to withdraw it.
        drain: True to plan at once, so that the workers on it are replaced; False to leave them until the next plan.
    """

    node: str
    cordoned: bool
    drain: bool = False


@dataclass(frozen=True, slots=True)
class DownRequested:
    """The user has requested that the whole deployment be stopped."""


@dataclass(frozen=True, slots=True)
class Solved:
    """A `Solve` has found a plan.

    Attributes:
        id: Id of the action.
        plan: Plan, already validated.
        bundle: Bundle compiled from the plan.
        start: Servers and models from which `stages` leads to the plan; None if the core has to compute the stages.
        stages: Stages of the change. Computing those of a large cluster would delay the core for seconds.
        standby: Graphs that standby variants serve at `start`.
    """

    id: int
    plan: Plan
    bundle: Bundle
    start: Actual | None = None
    stages: tuple[Stage, ...] = ()
    standby: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Done:
    """An action has succeeded."""

    id: int


@dataclass(frozen=True, slots=True)
class Failed:
    """An action has failed and left nothing behind.

    Attributes:
        id: Id of the action.
        error: Error message for the user.
        code: Exit code of the error; see `errors`.
    """

    id: int
    error: str
    code: int = 1


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """A worker's tritonserver has ended unexpectedly.

    Attributes:
        worker: Name of the worker.
        status: Exit status in words, or the reason why the server was killed.
    """

    worker: str
    status: str


@dataclass(frozen=True, slots=True)
class GatewayExited:
    """The gateway's tritonserver has ended unexpectedly.

    Attributes:
        status: Exit status in words, or the reason why the server was killed.
    """

    status: str


@dataclass(frozen=True, slots=True)
class Stalled:
    """A server runs but has not answered for some seconds.

    Attributes:
        server: Name of a worker, or `gateway`.
        seconds: Seconds since its last answer.
    """

    server: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Loading:
    """A server that was adopted still loads models that it must have."""

    server: str


@dataclass(frozen=True, slots=True)
class Answered:
    """A server that had stalled has answered, or one that was adopted has all of its models."""

    server: str


@dataclass(frozen=True, slots=True)
class GpusLost:
    """The GPUs that are lost have been looked up.

    Attributes:
        gpus: All lost GPUs, including those of earlier clusters.
    """

    gpus: frozenset[GpuId]


@dataclass(frozen=True, slots=True)
class Noticed:
    """An observation about the servers for the event log. It does not change the core's state.

    Attributes:
        kind: Kind of the log entry.
        text: Sentence that describes the observation.
    """

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A second has passed.

    Attributes:
        now_s: Current time of the monotonic clock.
        rates_rps: Graph -> arrival rate since the last tick. Graphs that could not be measured are absent.
        counts: Rows and branches counted since the last tick.
        requests: Requests of each generation since the last tick.
        times: Service times of batches since the last tick.
        utc_offset_s: Seconds by which the time since the epoch is ahead of the monotonic clock.
    """

    now_s: float
    rates_rps: Mapping[str, float]
    counts: Counts = field(default_factory=dict)
    requests: CountsByGeneration = field(default_factory=dict)
    times: ServedTimes = field(default_factory=dict)
    utc_offset_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Arrived:
    """Arrivals have been counted, more often than ticks come, for graphs that have standby variants.

    Attributes:
        now_s: Current time of the monotonic clock.
        seconds: Seconds since the last count.
        requests: Graph -> requests that arrived in these seconds.
    """

    now_s: float
    seconds: float
    requests: Mapping[str, float]


Exited = WorkerExited | GatewayExited
Event = (
    DeployRequested
    | RollbackRequested
    | CanaryEndRequested
    | PauseRequested
    | CordonRequested
    | DownRequested
    | Solved
    | Done
    | Failed
    | Exited
    | Stalled
    | Loading
    | Answered
    | GpusLost
    | Noticed
    | Tick
    | Arrived
)
