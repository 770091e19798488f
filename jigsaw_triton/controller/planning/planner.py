"""Carries out the jobs of the planning process. Pure."""

from collections.abc import Callable
from pathlib import Path

from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.lost_gpus import without_lost
from jigsaw_triton.controller.core.transition import stages_to
from jigsaw_triton.controller.planning.job import Job, Planned
from jigsaw_triton.controller.solving import Planner
from jigsaw_triton.planner.search.solve import SolverFactory


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
