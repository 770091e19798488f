"""State of the controller's core. It is a plain value without references to processes, files or clocks."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from jigsaw_triton.controller.core.actions import Action, Solve
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.canary import Watch
from jigsaw_triton.controller.core.demand import Demand
from jigsaw_triton.controller.core.events import Solved
from jigsaw_triton.controller.core.generation import ChangeRequest, Generation, Wanted
from jigsaw_triton.controller.core.rows import Counts
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.slowness import Kind, Served, ServedTimes
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.standby import RecentArrivals
from jigsaw_triton.gpus.model import GpuId

GATEWAY = "gateway"
"""Name of the gateway among the servers, whose other names are those of workers."""


class Phase(StrEnum):
    """Phase of the controller.

    idle:      no deployment has been requested yet.
    solving:   a plan is being computed; the running generation continues to serve.
    changing:  the stages of a transition are being carried out.
    ready:     a generation serves, and no change is in progress.
    stopping:  the deployment is being taken down.
    stopped:   nothing runs any more; the controller ends.
    """

    IDLE = "idle"
    SOLVING = "solving"
    CHANGING = "changing"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Restarts:
    """Restarts of one server.

    Attributes:
        at_s: Times of recent restarts, oldest first.
        waiting: True if a restart is in progress.
        cause: Sentence that says why the server was restarted last.
    """

    at_s: tuple[float, ...] = ()
    waiting: bool = False
    cause: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """State of the core.

    Attributes:
        settings: Settings of the control loop, which never change.
        phase: Current phase.
        now_s: Time of the last tick.
        wanted: Input of the last accepted request, on which later plans are based.
        running: Generation that serves.
        solved: Solve that has found a plan, and the plan, while a switch of variants has not ended; else None.
        pending: Generation that the transition leads to.
        actual: Servers, models and routes that exist now.
        stages: Stages of the transition that have not started.
        stage: Stage in progress.
        watch: Canary of the change in progress, or of the last one; None if it had none.
        stage_ids: Ids of the stage's actions that have not ended.
        inflight: Actions that the shell has not finished, by id.
        failed: True if an action of the transition has failed.
        rolling_back: True if the transition undoes a failed one.
        reorder: True if the stages that have not started must be computed again, since other variants serve or a GPU
            is lost.
        restore_at_s: Time at which the running generation is restored, because a rollback left it incomplete, or
            servers of the one before could not be ended; None if there is no need.
        queued: Request of the user that waits for the change in progress to end.
        asked: Request of the user that the change in progress carries out; None if the load caused it.
        paused: True if the measured load causes no change.
        restarts: Server name (a worker's, or `gateway`) -> its restarts.
        stalled: Names of the servers that run but have not answered for some seconds.
        lost: GPUs of the cluster that are lost.
        cordoned: Names of the nodes that the user has withdrawn from new plans.
        replan: Reason to plan again as soon as no change is in progress; empty if there is none.
        replan_at_s: Time before which that is not tried again.
        carried: Solve whose plan the change in progress carries out; None if there is none.
        demand: Graph -> recent arrivals.
        counts: Rows and branches counted recently.
        times: Recent service times of batches.
        slow: Model on a worker -> ratio of its service times to the profile, if it is slow.
        slow_kinds: Model on a kind of slice -> ratio by which the next plans scale its profile.
        slow_planned: Ratios of `slow_kinds` at the last plan.
        arrivals: Graph -> recent arrivals, for the graphs that have standby variants.
        standby: Graphs that standby variants serve.
        switch_at_s: Time before which no switch of variants begins, because the last one failed.
        overloaded: Graphs whose load exceeds the cluster's capacity. The running plan covers only the part of it that
            their priorities allow.
        quiet_until_s: Time before which the measured load causes no change.
        review_at_s: Time before which no review of the plan begins.
        linger_until_s: Time before which routes and pipelines of earlier generations stay.
        error: Error of the last change; empty if it succeeded.
        error_code: Exit code of that error.
        asked_error: Error of the last change that the user asked for; empty if it succeeded. Later changes, which the
            load or a lost GPU causes, leave it, so that whoever has asked learns of it.
        asked_error_code: Exit code of that error.
        next_id: Id of the next action.
        next_generation: Number of the next generation.
    """

    settings: Settings = field(default_factory=Settings)
    phase: Phase = Phase.IDLE
    now_s: float = 0.0
    wanted: Wanted | None = None
    running: Generation | None = None
    solved: tuple[Solve, Solved] | None = None
    pending: Generation | None = None
    actual: Actual = field(default_factory=Actual)
    stages: tuple[Stage, ...] = ()
    stage: Stage | None = None
    watch: Watch | None = None
    stage_ids: frozenset[int] = frozenset()
    inflight: Mapping[int, Action] = field(default_factory=dict)
    failed: bool = False
    rolling_back: bool = False
    reorder: bool = False
    restore_at_s: float | None = None
    queued: ChangeRequest | None = None
    asked: ChangeRequest | None = None
    paused: bool = False
    restarts: Mapping[str, Restarts] = field(default_factory=dict)
    stalled: frozenset[str] = frozenset()
    lost: frozenset[GpuId] = frozenset()
    cordoned: frozenset[str] = frozenset()
    replan: str = ""
    replan_at_s: float = 0.0
    carried: Solve | None = None
    demand: Mapping[str, Demand] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    times: ServedTimes = field(default_factory=dict)
    slow: Mapping[Served, float] = field(default_factory=dict)
    slow_kinds: Mapping[Kind, float] = field(default_factory=dict)
    slow_planned: Mapping[Kind, float] = field(default_factory=dict)
    arrivals: Mapping[str, RecentArrivals] = field(default_factory=dict)
    standby: frozenset[str] = frozenset()
    switch_at_s: float = 0.0
    overloaded: frozenset[str] = frozenset()
    quiet_until_s: float = 0.0
    review_at_s: float = 0.0
    linger_until_s: float = 0.0
    error: str = ""
    error_code: int = 0
    asked_error: str = ""
    asked_error_code: int = 0
    next_id: int = 1
    next_generation: int = 1

    @property
    def cordoned_gpus(self) -> frozenset[GpuId]:
        """GPUs of the nodes that the user has withdrawn from new plans."""
        gpus = self.wanted.cluster.gpus if self.wanted is not None and self.cordoned else ()
        return frozenset(gpu.id for gpu in gpus if gpu.id.node in self.cordoned)
