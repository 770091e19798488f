"""Names under which generations are known at the gateway: routes of tasks and models of pipelines."""

from collections.abc import Iterable

from jigsaw_triton.compiler.bundle import Bundle, CompiledGraph
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation


def lingering(actual: Actual, running: Generation | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the pipelines and the routes of earlier generations that still exist. Pipelines must be removed first.

    They still answer the requests in their queues. Removing one waits for these requests, which can take long after a
    rise of the load. A change that waited for them would delay the next change.
    """
    forms = [form for graph in running.bundle.graphs.values() for form in graph.forms] if running is not None else []
    wanted = {name for form in forms for name in gateway_names(form)}
    existing = dict.fromkeys((*actual.models, *actual.routes))
    return by_kind(actual, (name for name in existing if name not in wanted))


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
