"""Measures what the servers of a simulated deployment carry, from the record of what runs."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from jigsaw_triton.compiler.bundle import CompiledGraph, Place, Worker
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.order import placed_models
from jigsaw_triton.controller.core.state import State
from jigsaw_triton.evaluation.simulator.accounting import Curve, Replica, all_on_time
from jigsaw_triton.evaluation.simulator.curves import MakeCurve, within_processors
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.capacity import Array, Service
from jigsaw_triton.planner.domain.plan import PlacedModel
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.transition.answering import Replicas, answering
from jigsaw_triton.profiles.table import ProfileKey

Variant = tuple[str, str, str]
"""(Graph, task, variant)."""


class Meter:
    """Measures the capacity and the slices of what runs. Remembers the last answer, since most ticks change nothing.

    A curve is that of a whole plan. While replicas are exchanged, the curve of the running plan is scaled by the
    planner's capacity of the replicas in service.

    Args:
        make_curve: Function that returns the curve of what a plan's servers answer on time.
    """

    def __init__(self, make_curve: MakeCurve) -> None:
        self._make_curve = make_curve
        self._actual: Actual | None = None
        self._curves: Mapping[str, Curve] = {}
        self._plans: tuple[Generation | None, Generation | None] = (None, None)
        self._service: Service | None = None
        self._sliced: Actual | None = None
        self._slices = 0

    def curves(self, state: State) -> Mapping[str, Curve]:
        """Returns the curve of each graph."""
        plans = (state.running, state.pending if state.pending is not state.running else None)
        if state.actual is not self._actual or plans[0] is not self._plans[0] or plans[1] is not self._plans[1]:
            if plans[0] is not self._plans[0] or plans[1] is not self._plans[1]:
                self._plans, self._service = plans, _service(*plans)
            self._actual = state.actual
            self._curves = self._measured(state)
        return self._curves

    def replicas(self, state: State) -> frozenset[Replica]:
        """Returns the replicas in service."""
        return frozenset(
            Replica(str(place), m.graph, ProfileKey(place.board, m.task, m.variant, kind, m.instances, m.batch))
            for place, models, _ in _in_service(state)
            for kind in (place.placement.slice,)
            for m in models
        )

    def _measured(self, state: State) -> dict[str, Curve]:
        running = state.running
        if self._service is None or running is None:
            return dict.fromkeys(state.wanted.graphs if state.wanted is not None else (), all_on_time(0.0))
        whole, now = self._service.capacities(self._service.start), _capacities(state, self._service)
        found = {}
        for name, graph in running.wanted.graphs.items():
            curve = self._make_curve(graph, running.plan.gpus, running.wanted.profiles[name], whole[name])
            found[name] = curve.scaled(now[name] / whole[name]) if whole[name] > 0 else all_on_time(0.0)
        return within_processors(found, running.plan, _problem(running), standby=bool(state.standby))

    def slices(self, actual: Actual) -> int:
        """Returns the compute slices of all MIG instances."""
        if actual is not self._sliced:
            places = {worker.place for worker in actual.workers.values() if worker.place is not None}
            profiles = (CATALOG[place.board].profiles[place.placement.slice] for place in places)
            self._sliced, self._slices = actual, sum(profile.compute_slices for profile in profiles)
        return self._slices


def _problem(generation: Generation) -> Problem:
    """Returns the problem that the plan of a generation was made for."""
    wanted, graphs = generation.wanted, generation.plan.graphs
    workloads = tuple(Workload(graph, graphs[name].demand_rps) for name, graph in wanted.graphs.items())
    return Problem(workloads, wanted.cluster, wanted.profiles)


def _service(running: Generation | None, pending: Generation | None) -> Service | None:
    target = pending or running
    if target is None:
        return None
    problem = replace(_problem(target), running=running.plan if running is not None else None).prepared()
    return Service(problem, target.plan, target.wanted.options)


def _capacities(state: State, service: Service) -> Mapping[str, float]:
    """Returns the capacity of the workers in service, of which each request uses those of one generation.

    A slice on whose routes are models of two generations gives each generation half of its time.
    """
    running, pending = state.running, state.pending
    numbers = [made.bundle.generation for made in (running, pending) if made is not None]
    serving = np.zeros((3, len(service.start)))
    layouts = [_layout(generation) for generation in (running, pending) if generation is not None]
    for place, models, bound in _in_service(state):
        groups = _groups(models, [layout.get((place.gpu, place.placement), frozenset()) for layout in layouts])
        for group in groups:
            for column, model, rate in service.calls(group, place.board, place.placement.slice):
                found = bound[(model.graph, model.task, model.variant)]
                old, new = (not found or number in found for number in (numbers[0], numbers[-1]))
                serving[2 if old and new else 1 if new else 0, column] += rate / len(groups)
    return {name: _capacity(name, serving, service) for name in service.graphs}


def _capacity(name: str, serving: Array, service: Service) -> float:
    replicas = Replicas(*(service.by_variant(name, rates) for rates in serving[:, service.columns[name]]))
    return answering(service.graphs[name], replicas, *service.mixes(name)).capacity_rps


def _layout(generation: Generation) -> dict[tuple[GpuId, Placement], frozenset[PlacedModel]]:
    """Returns the models of each slice of a plan, those that stand by included."""
    return {
        (gpu.id, placed.placement): frozenset((*placed.models, *placed.standby))
        for gpu in generation.plan.gpus
        for placed in gpu.layout
    }


def _groups(
    models: tuple[PlacedModel, ...], planned: Sequence[frozenset[PlacedModel]]
) -> list[tuple[PlacedModel, ...]]:
    """Returns the models in service of each plan, if no plan has all of them; all together otherwise."""
    if any(known.issuperset(models) for known in planned):
        return [models]
    return [group for known in planned if (group := tuple(m for m in models if m in known))] or [models]


def _in_service(state: State) -> Iterator[tuple[Place, tuple[PlacedModel, ...], Mapping[Variant, frozenset[int]]]]:
    """Yields the MIG instances whose workers are on the routes of the fronts that serve.

    With each come the models routed to, and the generations to which these are bound; none for all generations.
    """
    actual = state.actual
    routed: dict[str, dict[str, frozenset[int]]] = {}
    for graph, front in actual.fronts.items():
        form = _form(graph, front.files, state)
        for task in form.tasks if form is not None else ():
            for entry in actual.routes.get(task.name, ()):
                if not entry.closed:
                    routed.setdefault(entry.worker, {})[entry.model] = frozenset(entry.generations)
    # Processes under MPS are workers of their own on one MIG instance, and were profiled together.
    together: dict[Place, list[Worker]] = {}
    bound: dict[Place, dict[Variant, frozenset[int]]] = {}
    for name, models in routed.items():
        worker = actual.workers.get(name)
        if worker is not None and worker.place is not None:
            whole = {member: models[m.name] for m in worker.models if m.name in models for member in m.members}
            served = _only(worker, whole | models)
            together.setdefault(worker.place, []).append(served)
            bound.setdefault(worker.place, {}).update(
                ((m.graph, m.task, m.variant), (whole | models)[m.name]) for m in served.models
            )
    for place, workers in together.items():
        yield place, placed_models(workers), bound[place]


def _form(graph: str, front: Mapping[str, object], state: State) -> CompiledGraph | None:
    """Returns the form of a graph whose front is loaded."""
    for generation in (state.pending, state.running):
        compiled = generation.bundle.graphs.get(graph) if generation is not None else None
        for form in compiled.forms if compiled is not None else ():
            if form.front.files == front:
                return form
    return None


def _only(worker: Worker, routed: Collection[str]) -> Worker:
    """Returns a worker with the models that have a route, and the members of the chains that have one."""
    return replace(worker, models=tuple(m for m in worker.models if m.name in routed))
