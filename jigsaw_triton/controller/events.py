"""What the controller's core is told: by the user, by the clock, and by the shell about the actions it was given."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.generation import Wanted
from jigsaw_triton.controller.rows import Counts
from jigsaw_triton.planner.domain.plan import Plan


@dataclass(frozen=True, slots=True)
class DeployRequested:
    """The user wants this to run from now on."""

    wanted: Wanted


@dataclass(frozen=True, slots=True)
class DownRequested:
    """The user wants nothing to run any more."""


@dataclass(frozen=True, slots=True)
class Solved:
    """A `Solve` has found a plan.

    Attributes:
        id: Of the action.
        plan: Valid.
        bundle: Compiled from it.
    """

    id: int
    plan: Plan
    bundle: Bundle


@dataclass(frozen=True, slots=True)
class Done:
    """An action is done."""

    id: int


@dataclass(frozen=True, slots=True)
class Failed:
    """An action failed and left nothing behind.

    Attributes:
        id: Of the action.
        error: For the user.
        code: Exit code that goes with it (see errors).
    """

    id: int
    error: str
    code: int = 1


@dataclass(frozen=True, slots=True)
class WorkerExited:
    """A worker's tritonserver ended without being told to."""

    worker: str
    status: str


@dataclass(frozen=True, slots=True)
class GatewayExited:
    """The gateway's tritonserver ended without being told to."""

    status: str


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something was seen of the servers that has to be told, and that other events follow up.

    Attributes:
        kind: Kind of the event in the log.
        text: Sentence.
    """

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A second has passed.

    Attributes:
        now_s: Monotonic.
        rates_rps: Graph -> arrivals since the last tick. Graphs that could not be measured are left out.
        counts: Rows and branches counted since the last tick.
    """

    now_s: float
    rates_rps: Mapping[str, float]
    counts: Counts = field(default_factory=dict)


Event = DeployRequested | DownRequested | Solved | Done | Failed | WorkerExited | GatewayExited | Noticed | Tick
