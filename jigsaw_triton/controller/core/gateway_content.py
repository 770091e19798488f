"""Routes of tasks and models of pipelines at the gateway: names of generations, and what a change adds and removes."""

from collections.abc import Iterable, Mapping

from jigsaw_triton.compiler.bundle import Bundle, CompiledGraph, ModelFolder
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.interim_routes import Routes, generation_of, graph_of


def lingering(actual: Actual, running: Generation | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the pipelines and the routes of earlier generations that still exist. Pipelines must be removed first.

    They still answer the requests in their queues. Removing one waits for these requests, which can take long after a
    rise of the load. A change that waited for them would delay the next change.
    """
    forms = [form for graph in running.bundle.graphs.values() for form in graph.forms] if running is not None else []
    wanted = {name for form in forms for name in gateway_names(form)}
    existing = dict.fromkeys((*actual.models, *actual.routes))
    return by_kind(actual, (name for name in existing if name not in wanted))


def obstructive(actual: Actual, running: Generation | None, target: Generation) -> tuple[str, ...]:
    """Returns routes that may lead to workers that make room, and that must therefore be removed before a change.

    They are those of later generations than the running one, for the graphs whose front has never called them, so that
    no request waits in them. Routes of earlier generations are among them only if they could not be handed over.
    """
    if running is None:
        return ()
    number, graphs = running.bundle.generation, running.bundle.graphs
    serving = {n for n, graph in graphs.items() if actual.fronts.get(n) in [form.front for form in graph.forms]}
    stay = task_names(target.bundle)
    tasks = [name for name in lingering(actual, running)[1] if name not in stay]
    later = {name for name in tasks if generation_of(name) > number and graph_of(name) in serving}
    alone = {name for name in tasks if generation_of(name) < number and not _is_handed_over(actual, name)}
    return tuple(name for name in tasks if name in later | alone)


def followers(actual: Actual, running: Generation | None) -> tuple[str, ...]:
    """Returns the routes of earlier generations that have been handed over: they lead where the running ones do."""
    if running is None:
        return ()
    number = running.bundle.generation
    earlier = (name for name in lingering(actual, running)[1] if generation_of(name) < number)
    return tuple(name for name in earlier if _is_handed_over(actual, name))


def followed(actual: Actual, running: Generation | None, routes: Routes, names: Iterable[str]) -> Routes:
    """Returns routes with those that follow them.

    Args:
        actual: Servers, models and routes that exist now.
        running: Generation that serves; None if none does.
        routes: Routes of the running generation to set.
        names: Names of the routes that follow, as `followers` returned them when the change began.
    """
    if running is None:
        return routes
    likes = {name: f"{without_generation(name)}.g{running.bundle.generation}" for name in names}
    following = {name: routes[like] for name, like in likes.items() if name in actual.routes and like in routes}
    return routes | following


def without_generation(name: str) -> str:
    """Returns the name of a route without its generation: names of routes are `<graph>.<task>.g<generation>`."""
    return name.rpartition(".g")[0]


def _is_handed_over(actual: Actual, name: str) -> bool:
    """Returns True if workers of later generations answer the requests in the queue of an earlier one's route.

    After a change that was broken off, these may be workers of the generation that failed.
    """
    bound = {number for entry in actual.routes[name] for number in entry.generations}
    return not actual.routes[name] or (bool(bound) and generation_of(name) not in bound)


def missing(actual: Actual, graphs: Iterable[CompiledGraph]) -> tuple[tuple[ModelFolder, ...], Routes]:
    """Returns the models and the routes behind the fronts of these graphs that the gateway lacks."""
    graphs = tuple(graphs)
    models = tuple(model for graph in graphs for model in graph.models if model.name not in actual.models)
    routes = {task.name: task.route for graph in graphs for task in graph.tasks if task.name not in actual.routes}
    return models, routes


def parting(
    actual: Actual, running: Generation | None, chained: Iterable[str]
) -> Mapping[str, tuple[CompiledGraph, CompiledGraph]]:
    """Returns the present form and the form without chains of the running graphs whose fronts call chains.

    Args:
        actual: Present fronts.
        running: Generation that serves; None if none does.
        chained: Names of the graphs to look at.
    """
    graphs = running.bundle.graphs if running is not None else {}
    return {
        name: (graphs[name], apart)
        for name in dict.fromkeys(chained)
        if name in graphs
        and (apart := graphs[name].apart) is not None
        and actual.fronts.get(name) == graphs[name].front
    }


def task_names(bundle: Bundle) -> frozenset[str]:
    """Returns the names of all tasks and pipelines of a bundle at the gateway."""
    return frozenset(name for graph in bundle.graphs.values() for name in gateway_names(graph))


def gateway_names(graph: CompiledGraph) -> tuple[str, ...]:
    """Returns the names of the routes and models behind the front of one form of a graph."""
    return tuple(dict.fromkeys((*(task.name for task in graph.tasks), *(model.name for model in graph.models))))


def handed_over(running: Generation | None, tasks: frozenset[str]) -> frozenset[str]:
    """Returns the gateway names of the running graphs' forms whose tasks have all been handed over."""
    forms = [form for graph in running.bundle.graphs.values() for form in graph.forms] if running is not None else []
    handed = (form for form in forms if all(task.name in tasks for task in form.tasks))
    return frozenset(name for form in handed for name in gateway_names(form))


def by_kind(actual: Actual, names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divides names into pipelines and tasks. Only tasks have routes."""
    listed = list(names)
    return tuple(n for n in listed if n not in actual.routes), tuple(n for n in listed if n in actual.routes)
