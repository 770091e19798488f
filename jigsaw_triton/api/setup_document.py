"""Graphs, profiles and plan behind a result of `simulate` or `evaluate`, as a part of its JSON for `report`."""

from collections.abc import Mapping
from typing import Any

from jigsaw_triton.api.files import GraphText, Mistakes, read_graphs
from jigsaw_triton.api.profile_files import read_profile_tables
from jigsaw_triton.api.profiles import figures_of_graphs
from jigsaw_triton.console.reports.setup import Setup
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.planner.domain.plan_reader import plan_from_json
from jigsaw_triton.profiles.table import ProfileTable

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
    texts = [GraphText.of(graph, profiles[name]) for name, graph in graphs.items()]
    return {
        "graphs": [{"name": text.name, "graph": text.yaml, "profiles": text.profiles} for text in texts],
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
    try:
        texts = [GraphText(str(one["name"]), str(one["graph"]), "/", str(one["profiles"])) for one in data["graphs"]]
        plan = plan_from_json(data["plan"], where=where) if data["plan"] is not None else None
    except (KeyError, TypeError) as error:
        hint = "run the command again, and keep its output as it is"
        raise InputError(
            f"the result is damaged or of another release ({SETUP}: {error!r})", where=where, hint=hint
        ) from error
    mistakes = Mistakes()
    graphs = read_graphs(texts, mistakes)
    tables = read_profile_tables(graphs, mistakes, sources=texts)
    mistakes.raise_if_any()
    return Setup(plan, graphs, tuple(figures_of_graphs(graphs, tables)))
