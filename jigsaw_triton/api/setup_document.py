"""Graphs, profiles and plan behind a result of `simulate` or `evaluate`, as a part of its JSON for `report`."""

from collections.abc import Mapping
from typing import Any

from jigsaw_triton.api.files import Mistakes, variant_templates
from jigsaw_triton.api.profiles import figures_of_graphs
from jigsaw_triton.console.reports.setup import Setup
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.build import build_graph
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.plan_reader import plan_from_json
from jigsaw_triton.profiles.read import parse_with_lines, write_profiles
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.spec.load import load_graph_alone

SETUP = "setup"
"""Key of the part in the JSON of a result."""


def setup_document(
    graphs: Mapping[str, TaskGraph], profiles: Mapping[str, ProfileTable], plan: Plan | None = None
) -> dict[str, Any]:
    """Returns the part of a result.

    Args:
        graphs: Graphs by name.
        profiles: Profiles of each graph.
        plan: Plan to show; None for none.
    """
    return {
        "graphs": [
            {"name": name, "graph": graph.to_yaml(), "profiles": write_profiles(profiles[name].rows())}
            for name, graph in graphs.items()
        ],
        "plan": plan.to_json() if plan is not None else None,
    }


def read_setup(data: Any, *, where: str) -> Setup:
    """Reads the part of a result.

    Args:
        data: The part, as parsed JSON.
        where: Name of the result's file.

    Raises:
        InputError: The part is damaged or of another release.
    """
    mistakes = Mistakes()
    graphs, tables = dict[str, TaskGraph](), dict[str, ProfileTable]()
    try:
        plan = plan_from_json(data["plan"], where=where) if data["plan"] is not None else None
        for one in data["graphs"]:
            name, graph, profiles = (str(one[key]) for key in ("name", "graph", "profiles"))
            with mistakes:
                # The files of the graph may be on another machine.
                loaded = load_graph_alone(graph, name=f"graph {name}")
                graphs[name] = build_graph(loaded, templates=variant_templates())
                tables[name], _ = parse_with_lines(profiles, f"profiles of {name}")
    except (KeyError, TypeError) as error:
        hint = "run the command again, and keep its output as it is"
        raise InputError(
            f"the result is damaged or of another release ({SETUP}: {error!r})", where=where, hint=hint
        ) from error
    mistakes.raise_if_any()
    return Setup(plan, graphs, tuple(figures_of_graphs(graphs, tables)))
