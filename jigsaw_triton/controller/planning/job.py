"""A job of the planning process, and its outcome. Pure.

The controller imports this module, but neither the planner nor the compiler, which take long to import.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.domain.plan import Plan


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


def gave_way() -> StateError:
    """Returns the error of a review that has ended early."""
    return StateError("planning was interrupted, because another plan is needed first")
