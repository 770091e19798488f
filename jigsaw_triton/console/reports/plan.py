"""Report about a plan: its GPUs as boards, its graphs, and their budgets."""

from collections.abc import Iterable, Iterator, Mapping
from xml.etree.ElementTree import Element

from jigsaw_triton import __version__
from jigsaw_triton.console.emulated import emulated_parts
from jigsaw_triton.gpus.model import Cluster, Gpu
from jigsaw_triton.graph import picture as graph_picture
from jigsaw_triton.graph.draw import slo_words
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.picture import svg
from jigsaw_triton.planner.domain.plan import GraphPlan, Plan
from jigsaw_triton.report.axes import groups_axis, linear_axis
from jigsaw_triton.report.chart import Bar, Chart, Rule
from jigsaw_triton.report.frame import Panel, charts, facts, page, picture, section, table
from jigsaw_triton.report.markup import tag
from jigsaw_triton.report.numbers import number, percent

_SEGMENTS = ("task", "variant", "slice", "#instances", "#batch", "#count", "#share", "#calls/s", "#budget ms")
_CHARTED = 12
"""Largest number of tasks whose budgets are drawn. The table has all of them."""


def plan_page(plan: Plan, graphs: Mapping[str, TaskGraph], cluster: Cluster) -> str:
    """Returns the report about a plan.

    Args:
        plan: The plan.
        graphs: Graphs of the plan, by name.
        cluster: Cluster that the plan was made for.
    """
    return page(
        f"Plan for {', '.join(plan.graphs)}",
        *notice(emulated_parts(graphs, cluster)),
        facts([*plan_facts(plan), ("Release", __version__)]),
        *plan_sections(plan, graphs, cluster.gpus),
    )


def notice(emulated: tuple[str, ...]) -> Iterator[Element]:
    """Yields what is emulated; nothing if nothing is."""
    if emulated:
        parts = tag("ul", *(tag("li", words) for words in emulated))
        yield tag("div", tag("p", tag("strong", "Emulated parts")), parts, class_="notice", role="note")


def plan_facts(plan: Plan) -> Iterator[tuple[str, str]]:
    """Yields the totals of a plan."""
    yield "Slices", f"{plan.slices_used} of {plan.slices_total}, on {plan.gpus_used} GPUs"
    if plan.cost is not None:
        yield "Cost", f"{plan.cost.words(plan.cost.used)} of {plan.cost.words(plan.cost.total)}"
    if plan.survival is not None:
        yield "Survives", f"the loss of any {plan.survival.loss_of}, with {percent(plan.survival.share)} of the demand"
    solver = plan.solver
    gap = f", gap {percent(solver.gap)}" if solver.gap else ""
    yield "Planned", f"by {solver.name}, {solver.status}{gap}, in {solver.seconds:.1f} s"
    yield (
        "Model",
        f"{plan.formulation} formulation, features {plan.features or 'none'}, latency by {plan.latency_model}",
    )


def plan_sections(plan: Plan, graphs: Mapping[str, TaskGraph], gpus: Iterable[Gpu]) -> Iterator[Element]:
    """Yields the boards, and a section for each graph."""
    words = f"{plan.slices_used} compute slices in use on {plan.gpus_used} GPUs, coloured by task"
    yield section("GPUs", picture(svg(plan, gpus), words), name="gpus")
    for name, part in plan.graphs.items():
        yield _graph(graphs[name], part)


def graph_picture_of(graph: TaskGraph) -> Element:
    """Returns the picture of a graph."""
    return picture(graph_picture.svg(graph), f"Task graph {graph.name}")


def _graph(graph: TaskGraph, part: GraphPlan) -> Element:
    slo = graph.slo
    found = [
        ("SLO", slo_words(graph)),
        ("Demand", f"{number(part.demand_rps)} requests/s, capacity {number(part.capacity_rps)} requests/s"),
        ("Latency", f"{number(part.latency_ms)} ms predicted at p{slo.percentile:g}, of {slo.latency_ms:g} ms"),
        ("Accuracy", f"{part.accuracy:.3f} planned, at least {slo.accuracy:g}"),
    ]
    if part.standby is not None:
        carried = number(part.standby.capacity_rps)
        found.append(("Standby", f"lighter variants carry {carried} requests/s, accuracy {part.standby.accuracy:.3f}"))
    return section(
        f"Graph {graph.name}",
        facts(found),
        graph_picture_of(graph),
        tag("h3", "Budgets and segments"),
        table(_SEGMENTS, list(_segments(part))),
        *_budgets(graph, part),
        name=f"graph.{graph.name}",
    )


def _segments(part: GraphPlan) -> Iterator[list[str]]:
    for name, task in part.tasks.items():
        for index, one in enumerate(task.segments):
            sizes = (one.instances, one.batch, one.count)
            rates = (number(task.rate_rps), number(task.budget_ms)) if index == 0 else ("", "")
            shown = name if index == 0 else ""
            yield [shown, one.variant, one.slice, *map(str, sizes), percent(one.share), *rates]


def _budgets(graph: TaskGraph, part: GraphPlan) -> Iterator[Element]:
    names = list(part.tasks)[:_CHARTED]
    if not names:
        return
    limit = graph.slo.latency_ms
    budgets = [part.tasks[name].budget_ms for name in names]
    title = f"Latency budgets of the tasks of {graph.name}, and the latency of its SLO"
    chart = Chart(groups_axis("task", names), linear_axis("ms", [*budgets, limit]), title, width=420, height=240)
    chart.bars([Bar(i, 0, ms, f"{names[i]}: {number(ms)} ms", "h0") for i, ms in enumerate(budgets)], 1)
    chart.rule(Rule(limit, f"SLO {limit:g} ms"))
    yield charts([Panel("Budgets", chart.svg, "Along every path, they add up to at most the SLO.")], "charts large")
