"""Validation of a plan.

Every constraint is recomputed from the graphs, profiles and cluster, and nothing is taken from the program that was
solved. The arithmetic is deliberately independent of the code that makes plans; see `graph_part`.
"""

import math
from collections import Counter
from collections.abc import Iterator
from functools import partial

from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import Board
from jigsaw_triton.planner.domain.features import canonical, has
from jigsaw_triton.planner.domain.plan import PlacedSlice, Plan
from jigsaw_triton.planner.domain.problem import SHARED_LOAD, Options, Problem
from jigsaw_triton.planner.validation.graph_part import TOLERANCE, GraphPart, busy, profiled, replicas_placed
from jigsaw_triton.planner.validation.graph_validation import graph_violations
from jigsaw_triton.planner.validation.standby_validation import standby_violations
from jigsaw_triton.profiles.table import ProfileTable


def violations(plan: Plan, problem: Problem, options: Options) -> tuple[str, ...]:
    """Describes every way in which the plan breaks the problem's requirements or contradicts itself; empty if valid."""
    problem = problem.prepared(options)
    found = [
        *_label_violations(plan, options),
        *_board_violations(plan, problem),
        *_shared_violations(plan, problem, options),
        *_segment_violations(plan, problem, options),
        *_total_violations(plan, problem),
    ]
    names = {w.graph.name for w in problem.workloads}
    if names != set(plan.graphs):
        return (*found, f"the plan is for {sorted(plan.graphs)}, not for {sorted(names)}")
    found += standby_violations(plan, problem, options)
    placed = replicas_placed(plan)
    for workload in problem.workloads:
        table = problem.profiles.get(workload.graph.name, ProfileTable(()))
        most_load = _most_shared_load(problem, options)
        part = GraphPart(
            plan, plan.graphs[workload.graph.name], workload, table, options, problem.profiles, most_load, placed
        )
        found += [f"{workload.graph.name}: {reason}" for reason in graph_violations(part)]
    return tuple(found)


def _label_violations(plan: Plan, options: Options) -> Iterator[str]:
    for what, said, asked in (
        ("features", plan.features, canonical(options.features)),
        ("formulation", plan.formulation, options.formulation),
        ("latency model", plan.latency_model, options.latency_model),
    ):
        if said != asked:
            yield f"{what}: the plan says {said!r}, the options say {asked!r}"


def _segment_violations(plan: Plan, problem: Problem, options: Options) -> Iterator[str]:
    """Checks what features and formulation allow for each replica on its own."""
    boards = {board.name: board for board in problem.boards}
    for gpu in plan.gpus:
        for placed in gpu.layout:
            for model in placed.models:
                where = f"{gpu.id} {placed.placement}"
                if model.graph not in plan.graphs or model.task not in plan.graphs[model.graph].tasks:
                    yield f"{where}: {model.graph}/{model.task} is not in the plan"
                if options.formulation == "paper" and model.instances > 4:
                    yield f"{where}: {model.instances} instances exceed the paper's limit of four"
                board = boards.get(gpu.model)
                if model.instances > 1 and not has(options.features, "P"):
                    yield f"{where}: {model.instances} instances without the feature P"
                profile = board.profiles.get(placed.placement.slice) if board is not None else None
                smaller = board is not None and profile is not None and profile.compute_slices != board.compute_slices
                if smaller and not has(options.features, "M"):
                    yield f"{where}: a slice smaller than a GPU without the feature M"


def _board_violations(plan: Plan, problem: Problem) -> Iterator[str]:
    gpus = {gpu.id: gpu for gpu in problem.cluster.gpus}
    for gpu, count in Counter(g.id for g in plan.gpus).items():
        if count > 1:
            yield f"{gpu} is listed {count} times"
    for gpu_plan in plan.gpus:
        known = gpus.get(gpu_plan.id)
        board = known.board if known is not None else None
        if known is None:
            yield f"{gpu_plan.id} is not in the cluster"
        elif known.board.name != gpu_plan.model:
            yield f"{gpu_plan.id} is a {known.board.name}, not a {gpu_plan.model}"
        elif reason := fits(known.board, (*known.foreign, *(placed.placement for placed in gpu_plan.layout))):
            yield f"{gpu_plan.id}: {reason}"
        elif known.uncut and any(placed.placement != known.board.whole for placed in gpu_plan.layout):
            yield f"{gpu_plan.id} cannot be cut: {known.uncut}"
        if not gpu_plan.layout:
            yield f"{gpu_plan.id} has no slices"
        for placed in gpu_plan.layout:
            where = f"{gpu_plan.id} {placed.placement}"
            if not placed.models:
                yield f"{where} holds no model"
            elif board is not None and placed.placement.slice in board.profiles:
                yield from _memory_violations(where, board, placed, problem)


def _memory_violations(where: str, board: Board, placed: PlacedSlice, problem: Problem) -> Iterator[str]:
    room, taken = board.profiles[placed.placement.slice].memory_mib, 0.0
    for model in (*placed.models, *placed.standby):
        row = profiled(problem.profiles.get(model.graph, ProfileTable(())), board.name, placed.placement.slice, model)
        if row is None:
            yield f"{where}: {model.graph}/{model.task} {model.variant} has no profile there"
        else:
            taken += row.memory_mib
    if room is not None and taken > room * (1 + TOLERANCE):
        yield f"{where}: {taken:.0f} MiB in {room} MiB"


def _shared_violations(plan: Plan, problem: Problem, options: Options) -> Iterator[str]:
    """Checks the requirements of slices with several models, except latency."""
    tables = {name: problem.profiles.get(name, ProfileTable(())) for name in plan.graphs}
    most = _most_shared_load(problem, options)
    for gpu in plan.gpus:
        for placed in gpu.layout:
            if len(placed.models) < 2:
                continue
            where, load = f"{gpu.id} {placed.placement}", 0.0
            if not options.share:
                yield f"{where} holds {len(placed.models)} models, not one"
            for model in placed.models:
                task = plan.graphs[model.graph].tasks.get(model.task) if model.graph in plan.graphs else None
                table = tables.get(model.graph, ProfileTable(()))
                row = profiled(table, gpu.model, placed.placement.slice, model)
                if task is None or row is None:
                    yield f"{where}: {model.graph}/{model.task} is not in the plan, or has no profile there"
                    continue
                load += busy(task.rate_rps, row)
                if model.instances != 1:
                    yield f"{where}: {model.instances} instances of {model.graph}/{model.task} share a slice"
                if sum(s.count for s in task.segments) != 1:
                    yield f"{where}: {model.graph}/{model.task} shares a slice and has other replicas"
            if load > most * (1 + TOLERANCE):
                yield f"{where} is shared and busy for {load:.3f} of its time, more than {most:.3f}"


def _most_shared_load(problem: Problem, options: Options) -> float:
    if options.latency_model == "2p95":
        return min(SHARED_LOAD, options.usable)
    # The factor 1.2 is explained in `planner.candidates.sharing`.
    late = min((1 - w.graph.slo.percentile / 100) / len(w.graph.tasks) for w in problem.workloads)
    return min(SHARED_LOAD, math.cbrt(late / 1.2))


def _total_violations(plan: Plan, problem: Problem) -> Iterator[str]:
    boards = {board.name: board for board in problem.boards}
    slices = sum(
        boards[gpu.model].profiles[placed.placement.slice].compute_slices
        for gpu in plan.gpus
        for placed in gpu.layout
        if gpu.model in boards and placed.placement.slice in boards[gpu.model].profiles
    )
    for what, said, counted in (
        ("slices used", plan.slices_used, slices),
        ("total slices", plan.slices_total, problem.cluster.compute_slices),
        ("GPUs used", plan.gpus_used, len(plan.gpus)),
    ):
        if said != counted:
            yield f"{what}: the plan says {said}, counted {counted}"
    cost = problem.cost_of(plan.gpus)
    said_cost, counted_cost = ((c.used, c.total) if c is not None else (0.0, 0.0) for c in (plan.cost, cost))
    if not all(map(partial(math.isclose, rel_tol=TOLERANCE), said_cost, counted_cost)):
        yield f"cost: the plan says {plan.cost}, counted {cost}"
