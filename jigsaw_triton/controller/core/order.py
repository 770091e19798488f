"""The order of a change, by the planner's transition from what exists to a generation. Pure."""

from collections.abc import Collection, Iterable
from dataclasses import replace

from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.counterparts import are_separate, callable_by, in_other_chains
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.standby import idle
from jigsaw_triton.gpus.model import GpuId
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.domain.difference import Place
from jigsaw_triton.planner.domain.plan import PlacedModel, PlacedSlice, PlannedGpu
from jigsaw_triton.planner.domain.problem import Problem
from jigsaw_triton.planner.transition.generations import Content, Generations
from jigsaw_triton.planner.transition.transition import Transition, transition


def ordered(actual: Actual, running: Generation | None, target: Generation, lost: Collection[GpuId] = ()) -> Transition:
    """Returns the planner's steps from the workers that exist to those of a generation.

    Args:
        actual: Servers and models that exist now. They may be those of a change that was interrupted.
        running: Generation that serves; None if none does.
        target: Generation to serve next.
        lost: GPUs whose workers answer nothing, so that they count as no capacity.
    """
    wanted, demand = target.wanted, target.plan.graphs
    existing = _carrying(actual, running)
    before = replace(
        running.plan if running is not None else replace(target.plan, graphs={}), gpus=placed_gpus(existing)
    )
    problem = Problem(
        workloads=tuple(Workload(graph, demand[name].demand_rps) for name, graph in wanted.graphs.items()),
        cluster=wanted.cluster,
        profiles=wanted.profiles,
        running=before if running is not None or actual.workers else None,
    )
    plan = replace(target.plan, gpus=placed_gpus(target.bundle.workers.values()))
    reloads, restarts = _reloads(existing, target)
    generations = _generations(actual, existing, running, target, lost)
    return transition(problem, plan, wanted.options, reloads=reloads, restarts=restarts, generations=generations)


def _generations(
    actual: Actual,
    existing: Iterable[Worker],
    running: Generation | None,
    target: Generation,
    lost: Collection[GpuId],
) -> Generations:
    """Returns the generations of the models that exist and of those that the target has."""
    present, wanted = _contents(existing), _contents(target.bundle.workers.values())
    if running is None:
        return Generations(present, wanted, (), _answers(target), lost=frozenset(lost))
    graphs = target.wanted.graphs.keys() & running.bundle.graphs.keys()
    separate = frozenset(name for name in graphs if are_separate(running, target, name))
    wanted = {
        key: content if key[1] not in separate or callable_by(running, target, *key[1:3]) else None
        for key, content in wanted.items()
    }
    reluctant = frozenset(
        name
        for name in graphs - separate
        if actual.fronts.get(name) == running.bundle.graphs[name].front and in_other_chains(running, target, name)
    )
    return Generations(present, wanted, _answers(running), _answers(target), separate, reluctant, lost=frozenset(lost))


def _contents(workers: Iterable[Worker]) -> dict[tuple[Place, str, str, str], Content]:
    return {
        ((worker.place.gpu, worker.place.placement), model.graph, model.task, model.variant): model.answers
        for worker in workers
        if worker.place is not None
        for model in worker.models
    }


def _answers(generation: Generation) -> frozenset[Content]:
    workers = generation.bundle.workers.values()
    return frozenset(model.answers for worker in workers for model in (*worker.models, *worker.standby))


def by_place(workers: Iterable[Worker]) -> dict[Place, list[Worker]]:
    """Returns the workers on each MIG instance: one, or several under MPS."""
    found: dict[Place, list[Worker]] = {}
    for worker in workers:
        if worker.place is not None:
            found.setdefault((worker.place.gpu, worker.place.placement), []).append(worker)
    return found


def displaced(existing: Iterable[Worker], wanted: Collection[Worker]) -> list[Worker]:
    """Returns the workers that cannot stay on a MIG instance beside others: one alone, or the processes of MPS."""
    return [w for w in existing if not any(w.name == other.name or w.shares_with(other) for other in wanted)]


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
    layouts: dict[tuple[GpuId, str], list[PlacedSlice]] = {}
    for (gpu, placement), found in sorted(by_place(workers).items()):
        place = found[0].place
        assert place is not None
        layouts.setdefault((gpu, place.board), []).append(PlacedSlice(placement, placed_models(found)))
    return tuple(PlannedGpu(gpu, board, tuple(layout)) for (gpu, board), layout in layouts.items())


def _carrying(actual: Actual, running: Generation | None) -> list[Worker]:
    """Returns the workers without the models that stand by, and with one model of each variant.

    Of several, it is the running generation's: the others wait beside it.
    """
    bundled = running.bundle.workers if running is not None else {}
    own = {(name, model.name) for name, worker in bundled.items() for model in worker.models}
    found = []
    for name, worker in actual.workers.items():
        spare = idle(worker, running)
        loaded = sorted((m for m in worker.models if m.name not in spare), key=lambda m: (name, m.name) in own)
        chosen = {(model.graph, model.task, model.variant): model.name for model in loaded}.values()
        found.append(replace(worker, models=tuple(model for model in worker.models if model.name in chosen)))
    return found


def _reloads(existing: Iterable[Worker], target: Generation) -> tuple[frozenset[Place], frozenset[Place]]:
    """Returns the MIG instances with other models, by name, than in the generation, and those with other servers."""
    before, after = by_place(existing), by_place(target.bundle.workers.values())
    reloads = frozenset(p for p in before.keys() & after.keys() if _names(before[p]) != _names(after[p]))
    return reloads, frozenset(place for place in reloads if displaced(before[place], after[place]))


def _names(workers: Iterable[Worker]) -> set[tuple[str, str]]:
    return {(worker.name, model.name) for worker in workers for model in worker.models}
