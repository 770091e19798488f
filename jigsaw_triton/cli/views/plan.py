"""A plan as tables of its tasks, totals, and a drawing of the GPUs."""

import math
from collections.abc import Iterator, Mapping

from jigsaw_triton.api.machine import emulation
from jigsaw_triton.cli.io.output import View, drawing, figures, listed
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.gpus.board import draw_text
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.candidates.chained import chains
from jigsaw_triton.planner.domain.accuracy import ProductError, deciding_tables, product_errors
from jigsaw_triton.planner.domain.features import FEATURES
from jigsaw_triton.planner.domain.picture import strips, task_label
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.problem import FORMULATIONS, uses_pairs
from jigsaw_triton.planner.formulation.mixture import mean_accuracy

_NOTABLE = 0.001
"""Smallest difference of accuracies that is shown."""

_NOTABLE_POINTS = 0.05
"""Smallest error of a product that is shown, in percentage points."""

_HEADER = ("task", "variant", "slice", "instances", "batch", "count", "share", "calls/s", "budget ms")


def plan_view(plan: Plan, graphs: dict[str, TaskGraph], cluster: Cluster, *, width: int) -> Iterator[View]:
    """Yields the parts of the view, to be printed one below the other.

    Args:
        plan: The plan.
        graphs: Graphs of the plan, by name.
        cluster: Cluster that the plan was made for.
        width: Number of columns for the drawing.
    """
    yield from graphs_view(plan, graphs)
    yield _totals(plan, cluster)
    yield from survival_view(plan)
    yield ""
    yield drawing(draw_text(strips(plan, cluster.gpus), width=width))
    if words := emulation(cluster):
        yield words


def graphs_view(plan: Plan, graphs: Mapping[str, TaskGraph]) -> Iterator[View]:
    """Yields what each graph of a plan gets, and the slices that several tasks share."""
    for name in plan.graphs:
        yield _tasks(plan, name)
        errors = errors_of_products(plan, graphs[name])
        yield _slo(plan, graphs[name])
        yield from map(_product, errors)
        yield _standby(plan, name)
    yield from _shared(plan, graphs)


def _tasks(plan: Plan, name: str) -> Table:
    rows = [
        (
            task if first else "",
            segment.variant,
            segment.slice,
            segment.instances,
            segment.batch,
            segment.count,
            f"{segment.share:.0%}",
            figures(value.rate_rps) if first else "",
            figures(value.budget_ms) if first else "",
        )
        for task, value in plan.graphs[name].tasks.items()
        for segment in value.segments
        for first in [segment is value.segments[0]]
    ]
    return Table.of(_HEADER, rows, title=name)


def errors_of_products(plan: Plan, graph: TaskGraph) -> tuple[ProductError, ...]:
    """Returns how far products of accuracies are from those measured end to end, for the variants of a plan."""
    used = {name: task.mix.keys() for name, task in plan.graphs[graph.name].tasks.items()}
    return product_errors(graph, used, may_decide=uses_pairs(plan.features, plan.formulation))


def _product(error: ProductError) -> str:
    names = " with ".join(f"{task} {variant}" for task, variant in zip(error.tasks, error.variants, strict=True))
    side = "too low" if error.points < 0 else "too high"
    off = f"{abs(error.points):.1f} points {side}" if abs(error.points) >= _NOTABLE_POINTS else "which is right"
    figure = "measured accuracy" if error.used else "product"
    return (
        f"{names}: accuracy {error.measured:.3f}, measured end to end; the product of both is {error.product:.3f}, "
        f"{off}; planned with the {figure}\n"
    )


def _slo(plan: Plan, graph: TaskGraph) -> str:
    planned, slo = plan.graphs[graph.name], graph.slo
    average = " on average" if slo.accuracy_mode == "mean" else ""
    tables = deciding_tables(graph) if uses_pairs(plan.features, plan.formulation) else ()
    mean = mean_accuracy(graph, {name: task.mix for name, task in planned.tasks.items()}, tables)
    means = f" ({mean:.3f} on average)" if mean - planned.accuracy >= _NOTABLE else ""
    steps = f" ({graph.steps_ms:g} of them for Python steps)" if graph.steps else ""
    return (
        f"demand {figures(planned.demand_rps)} requests/s, capacity {figures(planned.capacity_rps)}; "
        f"p{slo.percentile:g} latency {figures(planned.latency_ms)} ms{steps}, at most {slo.latency_ms:g}; "
        f"accuracy {planned.accuracy:.3f}{means}, at least {slo.accuracy:g}{average}\n"
    )


def _standby(plan: Plan, name: str) -> str:
    standby = plan.graphs[name].standby
    if standby is None:
        return "no standby variants for bursts\n"
    models = {(m.task, m.variant) for gpu in plan.gpus for s in gpu.layout for m in s.standby if m.graph == name}
    variants = listed([f"{task} {variant}" for task, variant in sorted(models)])
    return (
        f"standby variants for bursts: {variants}; with them capacity {figures(standby.capacity_rps)} requests/s, "
        f"accuracy {standby.accuracy:.3f}\n"
    )


def _shared(plan: Plan, graphs: Mapping[str, TaskGraph]) -> Iterator[str]:
    """Yields a line for each shared slice, and one for each chain of tasks that runs in one call."""
    several = len(plan.graphs) > 1
    lines = [
        f"{gpu.id} {placed.placement} is shared by {listed([task_label(model, plan) for model in placed.models])}\n"
        for gpu in plan.gpus
        for placed in gpu.layout
        if len(placed.models) > 1
    ]
    lines += [
        f"{listed([f'{name}.{task}' if several else task for task in chain.tasks])} run in one call\n"
        for name, graph in graphs.items()
        if name in plan.graphs
        for chain in chains(graph, plan)
    ]
    if lines:
        yield "".join(lines)


def survival_view(plan: Plan) -> Iterator[str]:
    """Yields a line about the loss that a plan survives, and what that costs; nothing if there is none."""
    survival = plan.survival
    if survival is None:
        return
    left = listed([f"{figures(rps)} requests/s of {name}" for name, rps in survival.left_rps.items()])
    more = "the time limit left open what surviving it takes"
    if survival.more_slices is not None:
        more = f"surviving it takes {survival.more_slices} more compute slices"
        if survival.more_cost is not None and plan.cost is not None:
            more += f", at a cost of {plan.cost.words(survival.more_cost)}"
    yield f"the loss of a {survival.loss_of} leaves capacity for at least {left}; {more}"


def _cost(plan: Plan, cluster: Cluster) -> str:
    cost = plan.cost
    if cost is not None:
        relative = " by throughput" if cost.source == "throughput" else ""
        return f"cost {cost.used:.2f} of {cost.words(cost.total)}{relative}; "
    if len({gpu.board.name for gpu in cluster.gpus}) > 1:
        return "slices of all models count alike, for no variant is profiled on all of them: give `cost`; "
    return ""


def _totals(plan: Plan, cluster: Cluster) -> str:
    solver = plan.solver
    gap = "gap unknown" if math.isinf(solver.gap) else f"gap at most {solver.gap:.1%}"
    proof = "proven optimal" if solver.status == "optimal" else f"{solver.status}, {gap}"
    proof = "constructed without a solver" if solver.constructed else proof
    baseline = (plan.features, plan.formulation) != (FEATURES, FORMULATIONS[0])
    how = f"; features {plan.features or 'none'}, {plan.formulation} formulation" if baseline else ""
    taken = sum(gpu.board.compute_slices for gpu in cluster.gpus) - cluster.compute_slices
    others = f" ({taken} more are used by others)" if taken else ""
    return (
        f"{plan.slices_used} of {plan.slices_total} compute slices{others} on {plan.gpus_used} of "
        f"{len(cluster.gpus)} GPUs; {_cost(plan, cluster)}"
        f"{solver.name}: {proof}, {solver.seconds:.1f} s{how}"
    )
