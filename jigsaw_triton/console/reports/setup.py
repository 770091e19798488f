"""Part of a report about the setup of a result: a plan, the graphs and their profiles."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from jigsaw_triton.console.reports.plan import graph_picture_of, plan_facts, plan_sections
from jigsaw_triton.console.reports.profiles import profile_sections
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.picture import planned_gpus
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.profiles.report.figures import ReportFigures
from jigsaw_triton.report.frame import facts, section


@dataclass(frozen=True, slots=True)
class Setup:
    """Setup of a result: its input, and a plan.

    Attributes:
        plan: Plan to show; None for none.
        graphs: Graphs by name.
        profiles: Figures of the profiles of each graph.
    """

    plan: Plan | None
    graphs: Mapping[str, TaskGraph]
    profiles: Sequence[ReportFigures]


def setup_sections(setup: Setup, title: str) -> Iterator[Element]:
    """Yields the plan with its GPUs and budgets, the graphs and their profiles.

    Args:
        setup: Setup to show.
        title: Title of the plan.

    Raises:
        InputError: The catalog lacks a board of the plan.
    """
    if setup.plan is not None:
        yield section(title, facts(plan_facts(setup.plan)), name="plan")
        yield from plan_sections(setup.plan, setup.graphs, planned_gpus(setup.plan))
    else:
        for name, graph in setup.graphs.items():
            yield section(f"Graph {name}", graph_picture_of(graph), name=f"graph.{name}")
    yield from profile_sections(setup.profiles)
