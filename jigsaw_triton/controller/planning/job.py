"""A job of the planning process, its outcome, and the bytes in which both travel. Pure."""

import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.compiler.templates import Template
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.lost_gpus import without_lost
from jigsaw_triton.controller.core.transition import Stage, stages_to
from jigsaw_triton.controller.solving import Planner
from jigsaw_triton.errors import StateError
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.search.solve import SolverFactory
from jigsaw_triton.profiles.table import ProfileTable


@dataclass(frozen=True, slots=True)
class Job:
    """A plan to make.

    Attributes:
        action: Action of the core.
        cluster: Cluster with the MIG instances of others.
        actual: Servers and models that exist now.
        standby: Graphs that standby variants serve now.
        templates: Templates of model repositories, by name.
        backends: Backends of the workers' tritonserver.
    """

    action: a.Solve
    cluster: Cluster
    actual: Actual
    standby: frozenset[str]
    templates: Mapping[str, Template]
    backends: frozenset[str]


@dataclass(frozen=True, slots=True)
class Change:
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
        traceback: Where it was raised, in lines.
    """

    text: str
    traceback: str


def carried_out(job: Job, identity: Callable[[Path], str], solvers: SolverFactory) -> Change | None:
    """Plans, compiles, and computes the stages of the change; returns None if a review keeps what runs.

    Args:
        job: Job.
        identity: Function that maps an artifact's path to a string that identifies its content.
        solvers: Factory of solvers by name.

    Raises:
        JigsawError: No plan is feasible, or none was found, or it cannot be compiled.
    """
    action = job.action
    plan, bundle = Planner(job.templates, job.backends, identity, solvers).solve(action, job.cluster)
    if action.running is not None and bundle is action.running.bundle:
        return None
    target = without_lost(Generation(action.wanted, plan, bundle), action.lost)
    return Change(plan, bundle, stages_to(job.actual, action.running, target, action.canary, job.standby))


def gave_way() -> StateError:
    """Returns the error of a review that has ended early."""
    return StateError("planning was interrupted, because another plan is needed first")


def packed(value: object) -> bytes:
    """Returns the bytes of a value."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = {ProfileTable: _reduced}
    pickler.dump(value)
    return file.getvalue()


def unpacked(data: bytes) -> Any:
    """Returns the value of these bytes. Equal profile tables are one object, by which the planner knows them again."""
    return pickle.loads(data)


_MOST_TABLES = 128
"""Number of profile tables that are kept. A convention; a graph has one."""

_tables: dict[str, ProfileTable] = {}
"""State of a profile table -> the table; the latest come last."""


def _reduced(table: ProfileTable) -> tuple[Callable[[str], ProfileTable], tuple[str]]:
    state = table.__getstate__()
    _keep(state, table)
    return _table, (state,)


def _table(state: str) -> ProfileTable:
    table = _tables.get(state)
    if table is None:
        table = ProfileTable(())
        table.__setstate__(state)
    _keep(state, table)
    return table


def _keep(state: str, table: ProfileTable) -> None:
    _tables.pop(state, None)
    _tables[state] = table
    while len(_tables) > _MOST_TABLES:
        del _tables[next(iter(_tables))]
