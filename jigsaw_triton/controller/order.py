"""The order of a change, by the planner's transition from what exists to a generation. Pure."""

from collections.abc import Iterable
from dataclasses import replace

from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.controller.actual import Actual
from jigsaw_triton.controller.generation import Generation
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.difference import Place
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, PlannedGpu
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.transition.transition import Transition, transition


def ordered(actual: Actual, running: Generation | None, target: Generation) -> Transition:
    """Returns the planner's steps from the workers that exist to those of a generation.

    Args:
        actual: Servers and models that exist now. They may be those of a change that was interrupted.
        running: Generation that serves; None if none does.
        target: Generation to serve next.
    """
    wanted, demand = target.wanted, target.plan.graphs
    before = replace(
        running.plan if running is not None else replace(target.plan, graphs={}),
        gpus=placed_gpus(actual.workers.values()),
    )
    problem = Problem(
        workloads=tuple(Workload(graph, demand[name].demand_rps) for name, graph in wanted.graphs.items()),
        cluster=wanted.cluster,
        profiles=wanted.profiles,
        running=before if running is not None or actual.workers else None,
    )
    plan = replace(target.plan, gpus=placed_gpus(target.bundle.workers.values()))
    return transition(problem, plan, wanted.options, reloads=_reloads(actual, target))


def workers_at(workers: Iterable[Worker], gpu: GpuId, placement: Placement) -> list[Worker]:
    """Returns the workers on a MIG instance: one, or several under MPS."""
    return [w for w in workers if w.place is not None and (w.place.gpu, w.place.placement) == (gpu, placement)]


def placed_models(workers: Iterable[Worker]) -> tuple[PlacedModel, ...]:
    """Returns the models of the workers on one MIG instance as the planner counts them: processes are instances."""
    counts: dict[PlacedModel, int] = {}
    for worker in workers:
        for model in worker.models:
            if not model.members:
                key = PlacedModel(model.graph, model.task, model.variant, model.instances, model.batch)
                counts[key] = counts.get(key, 0) + 1
    return tuple(sorted((replace(m, instances=m.instances * n) for m, n in counts.items()), key=str))


def placed_gpus(workers: Iterable[Worker]) -> tuple[PlannedGpu, ...]:
    """Returns the GPUs that workers occupy, as a plan has them."""
    by_place: dict[tuple[GpuId, str], dict[Placement, list[Worker]]] = {}
    for worker in workers:
        if worker.place is not None:
            of_gpu = by_place.setdefault((worker.place.gpu, worker.place.board), {})
            of_gpu.setdefault(worker.place.placement, []).append(worker)
    return tuple(
        PlannedGpu(gpu, board, tuple(PlacedSlice(at, placed_models(found)) for at, found in sorted(of_gpu.items())))
        for (gpu, board), of_gpu in sorted(by_place.items())
    )


def _reloads(actual: Actual, target: Generation) -> frozenset[Place]:
    """Returns the MIG instances on which other servers run, or other models by name, than in the generation."""
    before, after = _names(actual.workers.values()), _names(target.bundle.workers.values())
    return frozenset(place for place in before.keys() & after.keys() if before[place] != after[place])


def _names(workers: Iterable[Worker]) -> dict[Place, set[tuple[str, str]]]:
    """Returns (worker, model) of all models on each MIG instance."""
    names: dict[Place, set[tuple[str, str]]] = {}
    for worker in workers:
        if worker.place is not None:
            at = names.setdefault((worker.place.gpu, worker.place.placement), set())
            at.update((worker.name, model.name) for model in worker.models)
    return names
