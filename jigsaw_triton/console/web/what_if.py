"""Plans for other requirements, and explanations of plans, as the console's API has them. Nothing that runs changes."""

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from typing import Any

from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.slowness import Kind, slowed
from jigsaw_triton.errors import InfeasibleError, InputError, JigsawError
from jigsaw_triton.gpus.model import Cluster, GpuId
from jigsaw_triton.graph.model import TaskGraph, Workload
from jigsaw_triton.planner.domain.costs import board_costs
from jigsaw_triton.planner.domain.difference import difference
from jigsaw_triton.planner.domain.plan import Segment
from jigsaw_triton.planner.domain.problem import MAX_DEMAND_RPS, Problem
from jigsaw_triton.planner.explain.explain import explained
from jigsaw_triton.planner.explain.explanation import Effect, Explanation, Limit
from jigsaw_triton.planner.search.solve import SolverFactory, make_plan
from jigsaw_triton.spec.words import nearest

Json = dict[str, Any]

WHAT_IF_S = 0.5
"""Time limit of the search for a what-if plan: a slider shows its effect within a second, with all else that a plan
takes. The best plan until then is shown."""

WHAT_IF_GAP = 0.001
"""Relative gap at which a what-if plan is good enough, unless the deployment allows more."""

EXPLAIN_S = 30.0
"""Time limit of an explanation."""

MOST_GPUS = 10_000
"""Largest number of GPUs to plan for. A convention."""

MOST_CHANGES = 200
"""Lines of a difference that are shown."""


def what_if(generation: Generation, asked: Mapping[str, Any], solvers: SolverFactory) -> Json:
    """Plans for other requirements.

    Args:
        generation: Generation that serves.
        asked: Body of the request: `demand` and `slo` by graph, and `gpus`. What is absent stays as it is.
        solvers: Factory of solvers by name.

    Raises:
        InputError: A requirement is not possible, or the graph is unknown.
    """
    began_s = time.monotonic()
    problem = varied(generation, asked)
    options = generation.wanted.options
    options = replace(options, time_limit_s=WHAT_IF_S, gap=max(options.gap, WHAT_IF_GAP))
    try:
        plan = make_plan(problem, options, solvers=solvers)
    except InfeasibleError as error:
        return _none(error.reasons, error.hint, began_s)
    except InputError:
        raise
    except JigsawError as error:
        return _none([error.message], error.hint, began_s)
    changes = [str(change) for change in difference(generation.plan, plan)]
    more = len(changes) - MOST_CHANGES
    return {
        "feasible": True,
        "reasons": [],
        "hint": "",
        "slices": plan.slices_used,
        "gpus": plan.gpus_used,
        "plan": plan.to_json(),
        "difference": [*changes[:MOST_CHANGES], *([f"and {more} more"] if more > 0 else [])],
        "seconds": round(time.monotonic() - began_s, 3),
    }


def _none(reasons: Collection[str], hint: str, began_s: float) -> Json:
    seconds = round(time.monotonic() - began_s, 3)
    nothing: Json = {"slices": None, "gpus": None, "plan": None, "difference": []}
    return {"feasible": False, "reasons": list(reasons), "hint": hint, **nothing, "seconds": seconds}


def varied(generation: Generation, asked: Mapping[str, Any]) -> Problem:
    """Returns the planning problem of a generation with other requirements.

    Raises:
        InputError: A requirement is not possible, or the graph is unknown.
    """
    names = sorted(generation.wanted.graphs)
    for key in asked:
        if key not in ("demand", "slo", "gpus"):
            raise InputError(f"there is no requirement {key!r}", hint=nearest(key, ["demand", "slo", "gpus"]))
    demand, slo = _by_graph(asked, "demand", names), _by_graph(asked, "slo", names)
    workloads = tuple(
        Workload(
            _with_slo(_graph(generation, name), slo.get(name)),
            _number(demand[name], f"demand.{name}", MAX_DEMAND_RPS)
            if name in demand
            else generation.plan.graphs[name].demand_rps,
        )
        for name in names
    )
    problem = _problem(generation, workloads)
    cluster = problem.cluster if asked.get("gpus") is None else with_gpus(problem.cluster, asked["gpus"])
    return replace(problem, cluster=cluster, running=generation.plan)


def _problem(generation: Generation, workloads: tuple[Workload, ...]) -> Problem:
    """Returns the planning problem of these workloads, with the profiles and the GPUs that the plan was made with."""
    wanted, basis = generation.wanted, generation.basis
    usable = tuple(gpu for gpu in wanted.cluster.gpus if gpu.id not in basis.unusable)
    return Problem(
        workloads,
        replace(wanted.cluster, gpus=usable),
        slowed(wanted.profiles, {Kind(*kind): ratio for kind, ratio in basis.slow.items()}),
        unloaded=wanted.profiles,
        costs=board_costs(wanted.cluster, wanted.profiles),
    )


def _graph(generation: Generation, name: str) -> TaskGraph:
    """Returns a graph as the plan was made for it: with the measured values in place of the estimates."""
    return generation.basis.graphs.get(name, generation.wanted.graphs[name])


def with_gpus(cluster: Cluster, count: object) -> Cluster:
    """Returns a cluster with the first GPUs of another, or with more GPUs like its last one.

    Raises:
        InputError: The number is not possible.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_GPUS:
        raise InputError(f"{count!r} is not a number of GPUs", where="gpus", hint=f"give 1 to {MOST_GPUS}")
    last = cluster.gpus[-1]
    more = tuple(
        replace(last, id=GpuId(last.id.node, last.id.index + n), foreign=(), uncut="")
        for n in range(1, count - len(cluster.gpus) + 1)
    )
    return replace(cluster, gpus=(*cluster.gpus[:count], *more))


def _by_graph(asked: Mapping[str, Any], key: str, names: list[str]) -> Mapping[str, Any]:
    found = asked.get(key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InputError(f"{key} is not an object with graphs as its keys", where=key)
    for name in found:
        if name not in names:
            raise InputError(f"there is no graph {name!r}", where=key, hint=nearest(name, names, "graphs"))
    return found


def _with_slo(graph: TaskGraph, asked: object) -> TaskGraph:
    if asked is None:
        return graph
    where = f"slo.{graph.name}"
    if not isinstance(asked, dict):
        raise InputError("the SLO is not an object", where=where)
    slo = graph.slo
    if asked.get("latency_ms") is not None:
        latency_ms = _number(asked["latency_ms"], f"{where}.latency_ms", math.inf)
        if latency_ms <= graph.steps_ms:
            text = f"{latency_ms:g} ms leave nothing for the models, since {graph.steps_ms:g} ms are for Python steps"
            raise InputError(text, where=f"{where}.latency_ms", hint="give more")
        slo = replace(slo, latency_ms=latency_ms)
    if asked.get("accuracy") is not None:
        slo = replace(slo, accuracy=_number(asked["accuracy"], f"{where}.accuracy", 1.0))
    return replace(graph, slo=slo)


def _number(value: object, where: str, most: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most or math.isinf(value):
        limit = f" up to {most:g}" if math.isfinite(most) else ""
        raise InputError(f"{value!r} is not a number above 0{limit}", where=where)
    return float(value)


def explain(generation: Generation, solvers: SolverFactory) -> Json:
    """Explains the plan of a generation. It takes up to `EXPLAIN_S`."""
    wanted, plan = generation.wanted, generation.plan
    names = sorted(wanted.graphs)
    problem = _problem(
        generation, tuple(Workload(_graph(generation, name), plan.graphs[name].demand_rps) for name in names)
    )
    options = replace(wanted.options, time_limit_s=EXPLAIN_S)
    return explanation_document(explained(plan, problem, options, solvers=solvers, clock=time.monotonic))


def explanation_document(found: Explanation) -> Json:
    """Returns an explanation as the API has it."""
    return {
        "binding": [str(limit.requirement) for limit in found.limits if limit.binds],
        "requirements": [_requirement(limit) for limit in found.limits],
        "alternatives": [
            {
                "graph": choice.graph,
                "task": choice.task,
                "what": choice.what,
                "chosen": choice.chosen,
                "instead": ", ".join(_segment(segment) for segment in choice.instead),
                **_effect(choice.effect),
            }
            for choice in found.choices
        ],
        "paths": [asdict(path) for path in found.paths],
        "seconds": found.seconds,
    }


def _requirement(limit: Limit) -> Json:
    easing = [-step.effect.slices for step in limit.steps if step.eases and step.effect.outcome == "plan"]
    return {
        "name": str(limit.requirement),
        "value": limit.value,
        "binds": limit.binds,
        "steps": [{"change": step.change, "eases": step.eases, **_effect(step.effect)} for step in limit.steps],
        # Slices that the least relaxation saves.
        "cost_slices": easing[0] if easing else None,
    }


def _effect(effect: Effect) -> Json:
    return {"outcome": effect.outcome, "slices": effect.slices, "gpus": effect.gpus, "accuracy": dict(effect.accuracy)}


def _segment(segment: Segment) -> str:
    return f"{segment.count}x {segment.variant} on {segment.slice}"
