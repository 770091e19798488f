"""Generations that lost GPUs leave without a worker for a task. Pure.

While routes lead to workers of two generations, a request is bound to one of them at its first task. If the only
workers of this generation for a later task are lost, the request cannot be answered.
"""

from collections.abc import Collection, Iterator
from dataclasses import replace

from jigsaw_triton.compiler.bundle import RouteEntry
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.interim_routes import Routes, serves
from jigsaw_triton.controller.core.serving import Route, Served
from jigsaw_triton.gpus.model import GpuId


def answers_without(generation: Generation, lost: Collection[GpuId]) -> bool:
    """Returns True if lost GPUs leave a generation at least one of its workers for each task."""
    bundle = generation.bundle
    places = {name: worker.place for name, worker in bundle.workers.items()}
    left = {name for name, place in places.items() if place is None or place.gpu not in lost}
    tasks = [task for graph in bundle.graphs.values() for task in graph.tasks]
    return all(any(entry.worker in left for entry in task.route) for task in tasks)


def leads_nowhere(running: Generation | None, new: Generation | None, lost: Collection[GpuId]) -> bool:
    """Returns True if lost GPUs leave a new generation without a worker for a task, but not the one that serves."""
    if running is None or new is None or new is running:
        return False
    return answers_without(running, lost) and not answers_without(new, lost)


def complete_routes(actual: Actual, running: Generation, lost: Collection[GpuId]) -> Routes:
    """Returns the routes to set so that new requests are bound to generations with a worker left for each task.

    Requests that are bound to another generation already end as far as its workers are left.

    Args:
        actual: Servers, models and routes that exist now.
        running: Generation whose fronts serve.
        lost: GPUs whose workers answer nothing.

    Returns:
        The routes that differ from the present ones. None of a graph if all of its generations have a worker left for
        each task, or if none has.
    """
    workers = actual.without_gpus(lost).workers.values()
    alive = {(worker.name, model.name) for worker in workers for model in worker.models}
    routes: Routes = {}
    for name, graph in running.bundle.graphs.items():
        form = next((form for form in graph.forms if form.front == actual.fronts.get(name)), None)
        tasks = form.tasks if form is not None else ()
        present = {task.name: actual.routes[task.name] for task in tasks if task.name in actual.routes}
        left = [[e for e in route if (e.worker, e.model) in alive] for route in present.values()]
        known = {number for route in present.values() for entry in route for number in entry.generations}
        complete = {number for number in known if all(serves(route, number) for route in left)}
        if complete and complete != known:
            led = {at: tuple(_led(route, complete, alive)) for at, route in present.items()}
            routes |= {at: route for at, route in led.items() if route != present[at]}
    return routes


def _led(route: Route, complete: Collection[int], alive: Collection[Served]) -> Iterator[RouteEntry]:
    """Yields the entries of a route that are open for new requests of complete generations only."""
    for entry in route:
        if not entry.generations or any(number in complete for number in entry.generations):
            yield replace(entry, closed=False)
        elif (entry.worker, entry.model) in alive:
            yield replace(entry, weights=(), closed=True)
