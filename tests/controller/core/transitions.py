"""Changes between generations of one graph with two tasks."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from jigsaw_triton.compiler.bundle import Bundle, RouteEntry, Worker
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.transition import stages_to
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.layouts import maximal_layouts
from tests.controller.worlds import BOARD, bundle, chained, generation, profiled, standing_by, steps, worker

CHAINED = chained(bundle(1, [worker("0/1g@0", ("t0", "a"), ("t1", "a"))]))


def run(actual: Actual, stages: tuple[Stage, ...]) -> Actual:
    for stage in stages:
        for action in stage.actions:
            actual = actual.after(action)
    return actual


def after(target: Bundle, before: Bundle | None = None, actual: Actual | None = None) -> Actual:
    """Returns the servers and models after the transition to `target`, from `before` or from `actual`."""
    actual = actual or Actual()
    running = None
    if before is not None:
        running = generation(before)
        actual = run(actual, stages_to(actual, None, running))
    return run(actual, stages_to(actual, running, generation(target)))


def loaded(actual: Actual) -> dict[str, set[str]]:
    return {name: {model.name for model in found.models} for name, found in actual.workers.items()}


def reached(actual: Actual, target: Bundle) -> bool:
    tasks = {t.name: t for g in target.graphs.values() for t in g.tasks}
    models = {m.name for g in target.graphs.values() for m in g.models}
    every = [task for g in target.graphs.values() for task in g.every_task.values()]
    ours = {(e.worker, e.model) for task in every for e in (*task.route, *task.standby)}
    return (
        actual.gateway
        and loaded(actual) == {w.name: {m.name for m in (*w.models, *w.standby)} for w in target.workers.values()}
        and actual.models.keys() >= models
        and all(actual.routes[name] == task.route for name, task in tasks.items())
        # Lingering routes lead only to the target's models.
        and all((e.worker, e.model) in ours for route in actual.routes.values() for e in route)
        and dict(actual.fronts) == {name: g.front for name, g in target.graphs.items()}
    )


def way(before: Generation, target: Generation) -> tuple[Actual, tuple[Stage, ...]]:
    """Returns what exists before a change, and its stages."""
    actual = run(Actual(), stages_to(Actual(), None, before))
    return actual, stages_to(actual, before, target)


def routes_while(before: Bundle, target: Bundle) -> dict[str, list[str]]:
    """Returns, for each stage that changes routes, the models to which t1's old route leads after it."""
    stages = stages_to(after(before), profiled(before), profiled(target))
    return {
        stage.title: [entry.model for entry in action.routes["app.t1.g1"]]
        for stage in stages
        for action in stage.actions
        if isinstance(action, a.SetRoutes) and "app.t1.g1" in action.routes
    }


def routed(before: Bundle, target: Bundle, *, memory_mib: float = 900.0) -> list[dict[str, list[RouteEntry]]]:
    """Returns the open entries of each task's old route, each time that routes have changed before the switch."""
    found, actual = [], after(before)
    for stage in stages_to(actual, profiled(before), profiled(target, memory_mib=memory_mib)):
        if stage.commits:
            break
        actual = run(actual, (stage,))
        if any(isinstance(action, a.SetRoutes) for action in stage.actions):
            found.append({t: [e for e in actual.routes[f"app.{t}.g1"] if not e.closed] for t in ("t0", "t1")})
    return found


PLACES = [layout for layout in maximal_layouts(CATALOG[BOARD]) if len(layout) > 1]


@st.composite
def bundles(
    draw: st.DrawFn,
    number: int,
    *,
    variants: str = "ab",
    generations: Sequence[int] = (),
    targets: Sequence[str] = ("graph", "ensemble"),
) -> Bundle:
    """Bundles with random slices on two GPUs and random models in them, some of them as processes under MPS.

    Each task has at least one model, or every worker has a chain of both. The graph is compiled to one front, or to an
    ensemble with a front for each task. It may have a Python step. Models may be those of generation 1, and workers
    with one model may have another one that stands by.

    Args:
        draw: Function that draws from a strategy.
        number: Number of the generation.
        variants: Variants of the tasks.
        generations: Generations of the models; none for the first and this one.
        targets: Targets that the graph may be compiled to.
    """
    kept = st.sampled_from(generations or [1, number])
    target = draw(st.sampled_from(targets))
    workers: list[Worker] = []
    both = [(task, draw(st.sampled_from(variants))) for task in ("t0", "t1")] if draw(st.booleans()) else []
    for gpu in range(2):
        layout = draw(st.sampled_from(PLACES))
        for placement in draw(st.lists(st.sampled_from(layout), unique=True, min_size=1)):
            models = both or [(draw(st.sampled_from(["t0", "t1"])), draw(st.sampled_from(variants)))]
            alone = worker(f"{gpu}/{placement.slice}@{placement.start}", *models, generation=draw(kept))
            count = 0 if both else draw(st.sampled_from([0, 0, 0, 1, 2]))
            workers += [replace(alone, name=f"{alone.name}-p{n}", process=n) for n in range(1, count + 1)] or [alone]
    made = bundle(number, workers, target=target)
    if both:
        return chained(made)
    missing = [t.task for t in made.graphs["app"].tasks if not t.route]
    if missing:
        first = workers[0]
        extra = [(m.task, m.variant) for m in first.models] + [(t, "a") for t in missing]
        assert first.place is not None
        at = f"{first.place.gpu.index}/{first.place.placement}"
        workers = [w for w in workers if w.place != first.place]
        workers.insert(0, worker(at, *extra, generation=draw(kept)))
    if draw(st.booleans()):
        workers.append(steps(number))
    made = bundle(number, workers, target=target)
    return standing_by(made, draw(kept)) if draw(st.booleans()) else made
