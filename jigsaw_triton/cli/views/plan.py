"""A plan for readers: tables of what each task gets, totals, and the GPUs as boards of slices."""

from collections.abc import Iterator

from jigsaw_triton.cli.inputs.machine import emulation
from jigsaw_triton.cli.io.output import View, drawing, figures, listed
from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.gpus.board import Piece, Strip, draw_svg, draw_text
from jigsaw_triton.gpus.model import Cluster
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.candidates.chained import chains
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, Plan
from jigsaw_triton.planner.domain.problem import FEATURES, FORMULATIONS

_TAKEN = "taken"
"""What stands in a slice that is others'."""

_HEADER = ("task", "variant", "slice", "instances", "batch", "count", "share", "calls/s", "budget ms")


def plan_view(plan: Plan, graphs: dict[str, TaskGraph], cluster: Cluster, *, width: int) -> Iterator[View]:
    """The parts of the view, one below the other.

    Args:
        plan: To show.
        graphs: Of the plan, by name.
        cluster: It was made for.
        width: Columns to draw in.
    """
    for name in plan.graphs:
        yield _tasks(plan, name)
        yield _promises(plan, graphs[name])
    yield from _shared(plan, graphs)
    yield _totals(plan, cluster)
    yield ""
    yield drawing(draw_text(strips(plan, cluster), width=width))
    if words := emulation(cluster):
        yield words


def plan_svg(plan: Plan, cluster: Cluster) -> str:
    """The GPUs as an SVG document."""
    return draw_svg(strips(plan, cluster))


def strips(plan: Plan, cluster: Cluster) -> list[Strip]:
    """The cluster's GPUs with the plan's slices and those of others on them, in the order of their ids."""
    layouts = {gpu.id: gpu.layout for gpu in plan.gpus}
    several = len(plan.graphs) > 1
    return [
        Strip(
            str(gpu.id),
            gpu.board,
            (
                *(_piece(placed, several) for placed in layouts.get(gpu.id, ())),
                *(Piece(placement, _TAKEN) for placement in gpu.foreign),
            ),
        )
        for gpu in cluster.gpus
    ]


def _piece(placed: PlacedSlice, several: bool) -> Piece:
    """A slice is of the task of its first model; a model alone in it says all of itself."""
    models = placed.models
    if len(models) == 1:
        (model,) = models
        label = f"{model.task}\n{model.variant}\n{model.instances}x b{model.batch}"
    else:
        label = "\n".join(f"{model.task} {model.variant}" for model in models)
    return Piece(placed.placement, label, _key(models[0], several) if models else "")


def _key(model: PlacedModel, several: bool) -> str:
    return f"{model.graph}.{model.task}" if several else model.task


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


def _promises(plan: Plan, graph: TaskGraph) -> str:
    planned, slo = plan.graphs[graph.name], graph.slo
    average = " on average" if slo.accuracy_mode == "mean" else ""
    steps = f", {graph.steps_ms:g} of them python steps," if graph.steps else ""
    return (
        f"demand {figures(planned.demand_rps)} requests/s, capacity {figures(planned.capacity_rps)}; "
        f"latency {figures(planned.latency_ms)} ms{steps} of {slo.latency_ms:g} (p{slo.percentile:g}); "
        f"accuracy {planned.accuracy:.3f}, at least {slo.accuracy:g}{average}\n"
    )


def _shared(plan: Plan, graphs: dict[str, TaskGraph]) -> Iterator[str]:
    """What shares which slice, a line each, and what is called at once there."""
    several = len(plan.graphs) > 1
    lines = [
        f"{gpu.id} {placed.placement} is shared by {listed([_key(model, several) for model in placed.models])}\n"
        for gpu in plan.gpus
        for placed in gpu.layout
        if len(placed.models) > 1
    ]
    lines += [
        f"{listed([f'{name}.{task}' if several else task for task in chain.tasks])} are called at once\n"
        for name, graph in graphs.items()
        for chain in chains(graph, plan)
    ]
    if lines:
        yield "".join(lines)


def _totals(plan: Plan, cluster: Cluster) -> str:
    solver = plan.solver
    proof = "proven optimal" if solver.status == "optimal" else f"{solver.status}, at most {solver.gap:.1%} off"
    baseline = (plan.features, plan.formulation) != (FEATURES, FORMULATIONS[0])
    how = f"; features {plan.features or 'none'}, {plan.formulation} formulation" if baseline else ""
    taken = sum(gpu.board.compute_slices for gpu in cluster.gpus) - cluster.compute_slices
    others = f" ({taken} more are taken by others)" if taken else ""
    return (
        f"{plan.slices_used} of {plan.slices_total} compute slices{others} on {plan.gpus_used} of "
        f"{len(cluster.gpus)} GPUs; "
        f"{solver.name}: {proof}, {solver.seconds:.1f} s{how}"
    )
