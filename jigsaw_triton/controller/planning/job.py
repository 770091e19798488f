"""A job of the planning process, and its outcome. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.lost_gpus import without_lost
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.transition import stages_to
from jigsaw_triton.controller.solving import Planner
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.search.solve import SolverFactory


@dataclass(frozen=True, slots=True)
class Job:
    """A plan to make, or an existing one for which to compute the stages of the change to it.

    Attributes:
        action: Action of the core.
        cluster: Cluster with the MIG instances of others.
        actual: Servers and models that exist now.
        standby: Graphs that standby variants serve now.
        templates: Templates of model repositories, by name.
        backends: Backends of the workers' tritonserver.
        made: Plan whose stages are computed, and its bundle; None to make a plan.
    """

    action: a.Solve
    cluster: Cluster
    actual: Actual
    standby: frozenset[str]
    templates: Mapping[str, Template]
    backends: frozenset[str]
    made: tuple[Plan, Bundle] | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A new plan and the change to it.

    Attributes:
        plan: Plan.
        bundle: Bundle compiled from the plan.
        stages: Stages of the change from what exists.
    """

    plan: Plan
    bundle: Bundle
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True)
class Fault:
    """An error of the program that ended a job.

    Attributes:
        text: Class and message of the error.
        traceback: Traceback of the error, as Python prints it.
    """

    text: str
    traceback: str


def carried_out(job: Job, identity: Callable[[Path], str], solvers: SolverFactory) -> Planned | None:
    """Plans and compiles, unless the job has a plan, and computes the stages of the change to it.

    Args:
        job: Job.
        identity: Function that maps an artifact's path to a string that identifies its content.
        solvers: Factory of solvers by name.

    Returns:
        The plan; None if a review keeps what runs.

    Raises:
        JigsawError: No plan is feasible, or none was found, or it cannot be compiled.
    """
    action = job.action
    plan, bundle = job.made or Planner(job.templates, job.backends, identity, solvers).solve(action, job.cluster)
    if action.running is not None and bundle is action.running.bundle:
        return None
    target = without_lost(Generation(action.wanted, plan, bundle), action.unusable)
    return Planned(plan, bundle, stages_to(job.actual, action.running, target, action.canary, job.standby, action.lost))


def gave_way() -> StateError:
    """Returns the error of a review that has ended early."""
    return StateError("planning was interrupted, because another plan is needed first")
