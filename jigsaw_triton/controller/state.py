"""The state of the controller's core. A value: nothing in it refers to a process, a file or a clock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from jigsaw_triton.controller.actions import Action
from jigsaw_triton.controller.actual import Actual
from jigsaw_triton.controller.demand import Demand
from jigsaw_triton.controller.generation import Generation, Wanted
from jigsaw_triton.controller.rows import Counts
from jigsaw_triton.controller.settings import Settings
from jigsaw_triton.controller.transition import Stage


class Phase(StrEnum):
    """What the controller is doing.

    idle:      nothing was asked for yet.
    solving:   a plan is being made; what runs goes on.
    changing:  stages of a transition are under way.
    ready:     what was asked for serves.
    stopping:  on the way to nothing.
    stopped:   nothing runs; the end.
    """

    IDLE = "idle"
    SOLVING = "solving"
    CHANGING = "changing"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Restarts:
    """Of one server.

    Attributes:
        at_s: When it was restarted, oldest first.
        lost: Whether it was given up.
        waiting: Whether a restart is under way.
    """

    at_s: tuple[float, ...] = ()
    lost: bool = False
    waiting: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """All the core knows.

    Attributes:
        settings: Fixed.
        phase: See Phase.
        now_s: Of the last tick.
        by_user: Whether the change under way was asked for by the user (else by the measured load).
        wanted: Of the last accepted request; what a re-solve starts from.
        running: What serves.
        pending: What the transition leads to.
        actual: What runs.
        stages: Of the transition, still to come.
        stage: Under way.
        stage_ids: Actions that it waits for.
        inflight: All actions given to the shell and not yet ended.
        failed: Whether an action of the transition failed.
        rolling_back: Whether the transition undoes a failed one.
        queued: A request that waits for the change under way to end.
        restarts: Server name (a worker's, or `gateway`) -> its restarts.
        demand: Graph -> recent arrivals.
        counts: Rows and branches counted of late.
        beyond: Graphs whose load is more than the cluster carries; what runs is what priorities leave them of it.
        quiet_until_s: No change by measured load before this.
        linger_until_s: Routes and pipelines of earlier generations stay until then.
        error: Of the last change that failed; empty when it succeeded.
        error_code: Exit code that goes with it.
        next_id: Of the next action.
        next_generation: Number of the next plan.
    """

    settings: Settings = field(default_factory=Settings)
    phase: Phase = Phase.IDLE
    now_s: float = 0.0
    by_user: bool = False
    wanted: Wanted | None = None
    running: Generation | None = None
    pending: Generation | None = None
    actual: Actual = field(default_factory=Actual)
    stages: tuple[Stage, ...] = ()
    stage: Stage | None = None
    stage_ids: frozenset[int] = frozenset()
    inflight: Mapping[int, Action] = field(default_factory=dict)
    failed: bool = False
    rolling_back: bool = False
    queued: Wanted | None = None
    restarts: Mapping[str, Restarts] = field(default_factory=dict)
    demand: Mapping[str, Demand] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    beyond: frozenset[str] = frozenset()
    quiet_until_s: float = 0.0
    linger_until_s: float = 0.0
    error: str = ""
    error_code: int = 0
    next_id: int = 1
    next_generation: int = 1

    @property
    def degraded(self) -> bool:
        """Whether a server that the plan needs was given up, or is being started again."""
        return any(r.lost or r.waiting for r in self.restarts.values())
