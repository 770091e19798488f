"""Graphs and paths of a request to deploy, in the form in which the controller reads them."""

import os
from typing import Any

from jigsaw_triton.api.files import ONLY_GRAPH, GraphText, Mistakes, PathLike, load_graph
from jigsaw_triton.api.planning import Graphs, Profiles, as_profiles, as_sources
from jigsaw_triton.api.profile_files import read_profile_tables
from jigsaw_triton.errors import InputError
from jigsaw_triton.graph.model import TaskGraph


def absolute_path(path: PathLike) -> str:
    """Returns the absolute form of a path that the controller will read.

    Raises:
        InputError: The path is standard input.
    """
    if str(path) == "-":
        raise InputError(
            "a deployment cannot be read from standard input", where="-", hint="save the graph in a folder of its own"
        )
    return os.path.abspath(path)  # noqa: PTH100 - Path.resolve would follow links


def request_graphs(graphs: Graphs, profiles: Profiles | None) -> tuple[Any, ...]:
    """Returns graphs in the form in which the controller reads them."""
    sources, given = as_sources(graphs), as_profiles(profiles)
    if not given and not any(isinstance(source, TaskGraph) for source in sources):
        return tuple(source if isinstance(source, GraphText) else absolute_path(str(source)) for source in sources)
    mistakes = Mistakes()
    loaded = {}
    for source in sources:
        with mistakes:
            graph = source if isinstance(source, TaskGraph) else load_graph(str(source))
            loaded[graph.name] = graph
    named = {name for name in given if name != ONLY_GRAPH} or ({*loaded} if given else set())
    tables = read_profile_tables({n: g for n, g in loaded.items() if n in named}, mistakes, given=given)
    mistakes.raise_if_any()
    return tuple(GraphText.of(graph, tables.get(name)) for name, graph in loaded.items())
