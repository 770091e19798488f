import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from jigsaw_triton.compiler.bundle import Bundle, RouteEntry, Worker
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.core.complete_routes import answers_without, complete_routes
from jigsaw_triton.controller.core.generation import Generation
from jigsaw_triton.controller.core.lost_gpus import without_lost
from jigsaw_triton.controller.core.order import ordered
from jigsaw_triton.controller.core.stage import Stage
from jigsaw_triton.controller.core.standby import routes_to_set
from jigsaw_triton.controller.core.transition import stages_to
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.layouts import fits
from jigsaw_triton.gpus.model import GpuId
from tests.controller.core.transitions import after, bundles, reached, run
from tests.controller.worlds import (
    BOARD,
    bundle,
    chained,
    generation,
    profiled,
    standing_by,
    wanted,
    with_contents,
    worker,
)
from tests.examples import costly


def switched(actual: Actual, running: Generation, serving: frozenset[str]) -> Actual:
    """Returns the record after a switch to the standby variants of these graphs, and to the usual ones of others."""
    return actual.after(a.SetRoutes(routes_to_set(actual, running, serving)))


@pytest.mark.slow
@costly(150)
@given(
    earlier=st.none() | bundles(0),
    before=bundles(1),
    target=bundles(2),
    standby=st.sampled_from([frozenset[str](), frozenset({"app"})]),
)
# The only worker whose standby variant serves t1 leaves, while another one has the usual variant of t1.
@example(
    earlier=None,
    before=standing_by(bundle(1, [worker("0/1g@1", ("t1", "a")), worker("1/2g@2", ("t0", "b"))])),
    target=standing_by(
        bundle(
            2,
            [
                *(replace(worker("0/1g@2", ("t0", "b")), name=f"n-0-1g-2-p{n}", process=n) for n in (1, 2)),
                worker("1/1gx2@2", ("t1", "a")),
                worker("1/1gx2@4", ("t0", "b")),
                worker("1/1gx2@0", ("t0", "a"), generation=2),
            ],
        )
    ),
    standby=frozenset({"app"}),
)
# After the first step only models of the target answer, and the next step restarts the worker that has one of them.
# Queues of the earlier generation must leave that worker, too.
@example(
    earlier=bundle(0, [worker("0/1g@0", ("t0", "a"), ("t1", "a")), worker("1/1g@0", ("t0", "a"))]),
    before=bundle(1, [worker("0/1g@0", ("t0", "a"), ("t1", "a")), worker("1/1g@0", ("t0", "a"))]),
    target=bundle(
        2,
        [
            worker("0/1g@0", ("t1", "a"), generation=2),
            replace(worker("1/1g@0", ("t0", "a")), name="n-1-1g-0-p1", process=1),
        ],
    ),
    standby=frozenset(),
)
# The same change, but the target is an ensemble, whose entries name no generation.
@example(
    earlier=bundle(0, [worker("0/1g@0", ("t0", "a"), ("t1", "a")), worker("1/1g@0", ("t0", "a"))]),
    before=bundle(1, [worker("0/1g@0", ("t0", "a"), ("t1", "a")), worker("1/1g@0", ("t0", "a"))]),
    target=bundle(
        2,
        [
            worker("0/1g@0", ("t0", "a"), ("t1", "a")),
            worker("1/1g@2", ("t0", "a")),
            worker("1/1gx2@0", ("t0", "a")),
        ],
        target="ensemble",
    ),
    standby=frozenset(),
)
def test_any_transition_reaches_its_target_and_keeps_the_invariants(
    earlier: Bundle | None, before: Bundle, target: Bundle, standby: frozenset[str]
) -> None:
    """Queues of an earlier generation may still have requests when the change begins."""
    running = generation(before)
    actual = switched(after(before, earlier), running, standby)
    for stage in stages_to(actual, running, generation(target), standby=standby):
        for action in stage.actions:
            _check_action(actual, action)
            actual = actual.after(action)
            _check_routes(actual, before, target)
        for gpu in range(2):
            places = {w.place for w in actual.workers.values() if w.place is not None and w.place.gpu.index == gpu}
            assert fits(CATALOG[BOARD], [place.placement for place in places]) is None
    assert reached(switched(actual, generation(target), frozenset()), target)


@pytest.mark.slow
@costly(100)
@given(
    before=bundles(1),
    target=bundles(2),
    memory_mib=st.sampled_from([900.0, 4000.0]),
    known=st.sampled_from([lambda made: made, with_contents]),
    stop=st.integers(0, 12),
    lost=st.none() | st.sampled_from([gpu.id for gpu in wanted().cluster.gpus]),
)
# In this rollback, a worker of the generation that failed stands in for t0.
@example(
    before=bundle(1, [worker("0/1g@0", ("t1", "a")), worker("1/1gx2@4", ("t0", "b"))]),
    target=bundle(2, [worker("0/1g@0", ("t0", "a"), ("t1", "a")), worker("1/1g@4", ("t0", "b"))]),
    memory_mib=900.0,
    known=with_contents,
    stop=10,
    lost=None,
)
# In this rollback, a stand-in copies a worker of the generation that failed, which is on no route at first. Another
# worker with the same variants has models of other content.
@example(
    before=bundle(1, [worker("0/1gx2@0", ("t1", "b")), worker("1/1g@1", ("t0", "a")), worker("1/1g@2", ("t0", "a"))]),
    target=chained(
        bundle(
            2,
            [worker("0/1g@0", ("t0", "a"), ("t1", "b")), worker("1/1g@0", ("t0", "a"), ("t1", "b"), generation=2)],
            target="ensemble",
        )
    ),
    memory_mib=900.0,
    known=lambda made: made,
    stop=5,
    lost=None,
)
# This rollback takes no step but to switch. The only worker that answers without the lost GPU is on no route at first.
@example(
    before=chained(bundle(1, [worker(at, ("t0", "a"), ("t1", "a")) for at in ("0/1g@0", "1/1g@1")])),
    target=chained(bundle(2, [worker(at, ("t0", "a"), ("t1", "a")) for at in ("0/1gx2@0", "1/1g@0")])),
    memory_mib=900.0,
    known=with_contents,
    stop=7,
    lost=GpuId("n", 1),
)
# In one step, all slices with t1 of the running generation change. One of them keeps it, which the planner does not
# count. So the target answers meanwhile, and the routes must not lead to that slice alone.
@example(
    before=chained(
        bundle(
            1,
            [
                worker(at, ("t0", "a"), ("t1", "a"))
                for at in (*(f"0/1g@{n}" for n in range(1, 5)), *(f"1/1g@{n}" for n in range(5)))
            ],
        )
    ),
    target=bundle(
        2,
        [
            worker("0/4g@0", ("t0", "a")),
            *(
                replace(worker("0/1gx2@4", ("t1", "a"), generation=2), name=f"n-0-1gx2-4-p{n}", process=n)
                for n in (1, 2)
            ),
            *(worker(f"1/1g@{n}", ("t0", "a")) for n in (0, 1, 2, 5)),
            worker("1/1g@3", ("t0", "b"), generation=2),
            worker("1/1g@4", ("t1", "a")),
        ],
    ),
    memory_mib=4000.0,
    known=lambda made: made,
    stop=0,
    lost=None,
)
def test_routes_carry_the_capacity_that_the_step_states(
    before: Bundle, target: Bundle, memory_mib: float, known: Callable[[Bundle], Bundle], stop: int, lost: GpuId | None
) -> None:
    """Every worker of these plans carries at most 10 requests a second. Large models do not fit beside others.

    The change stops at some stage and goes back. By then a GPU may be lost that the earlier generation can do without.
    """
    before, target = known(before), known(target)
    actual = after(before)
    planned = ordered(actual, profiled(before), profiled(target))
    demand_rps = min(planned.before_rps["app"], planned.steps[-1].after_rps["app"]) if planned.steps else 0.0
    assume(demand_rps > 0)
    running, new = (profiled(made, demand_rps=demand_rps, memory_mib=memory_mib) for made in (before, target))
    for stage in _carries_what_it_states(actual, running, new, demand_rps):
        stop = -1 if stage.commits else stop - 1
        actual = run(actual, (stage,)) if stop >= 0 else actual
    gone = {lost} if lost is not None and answers_without(running, {lost}) else set[GpuId]()
    # The controller first leads new requests away from a generation that the loss leaves without a worker for a task.
    actual = actual.after(a.SetRoutes(complete_routes(actual, running, gone)))
    for _ in _carries_what_it_states(actual, running, without_lost(running, gone), demand_rps, gone):
        pass


def _carries_what_it_states(
    actual: Actual, running: Generation, new: Generation, demand_rps: float, lost: Collection[GpuId] = ()
) -> Iterator[Stage]:
    """Yields the stages of a change, and checks after each action that its routes carry what its step states."""
    told = ordered(actual, running, new, lost).steps
    forms = [form for made in (running, new) for form in made.bundle.graphs["app"].forms]
    chains = {task.name for task in forms[0].tasks if "~" in task.task}
    chained = bool(chains)
    for stage in stages_to(actual, running, new, lost=lost):
        for action in stage.actions:
            actual = actual.after(action)
            living = actual.without_gpus(lost).workers
            # Until the routes after those of the chains, the running generation alone answers.
            chained = bool(chains & actual.routes.keys()) or (chained and not isinstance(action, a.SetRoutes))
            if stage.step:
                step = told[stage.step - 1]
                form = next(form for form in forms if form.front == actual.fronts["app"])
                routes = [actual.routes[task.name] for task in form.tasks if task.task != "s"]
                carried_rps = _carried_rps(
                    [[e for e in route if not e.closed and e.worker in living] for route in routes]
                )
                least_rps = demand_rps if chained or form.apart is not None else math.inf
                assert carried_rps >= 0.999 * min(step.during_rps["app"], step.after_rps["app"], least_rps), stage
        yield stage


def _carried_rps(routes: Sequence[Sequence[RouteEntry]]) -> float:
    """Returns the requests a second of a graph of two tasks, or of a chain, whichever generation a request chooses."""
    numbers = sorted({number for route in routes for entry in route for number in entry.generations}) or [0]
    of_each, only = (
        [{n: 10.0 * len({e.worker for e in route if belongs(e, n)}) for n in numbers} for route in routes]
        for belongs in (
            lambda e, n: not e.generations or n in e.generations,
            lambda e, n: e.generations == (n,),
        )
    )
    rate_rps = min(10.0 * len({e.worker for e in route}) for route in routes)
    weights = {n: w for route in routes for e in route for n, w in zip(e.generations, e.weights, strict=False)}
    if weights:
        # A request is bound to one of the generations that have a worker for each task.
        shares = {n: w for n, w in weights.items() if w > 0 and all(at[n] > 0 for at in of_each)}
        return min([rate_rps, *(at[n] * sum(shares.values()) / w for at in of_each for n, w in shares.items())])
    for number in numbers if len(numbers) > 1 else ():
        for here, there in permutations(range(len(routes)), 2):
            # Requests that choose a generation at one task cannot choose another one at the next.
            if only[here][number] > of_each[there][number]:
                rate_rps = min(rate_rps, of_each[there][number])
    return rate_rps


def _check_action(actual: Actual, action: a.Action) -> None:
    """Checks that no action drains or removes a model or worker to which a route leads."""
    assert not Stage("", (action,)).cuts(actual.routes)
    if isinstance(action, a.Flip):
        assert action.front.name == "app"
        assert all(actual.routes.values())
        assert actual.models.keys() <= actual.routes.keys()


def _check_routes(actual: Actual, *generations: Bundle) -> None:
    """Checks that requests of a generation go only to its own models, if it has one for every task on the routes.

    Requests of an ensemble are not bound, so the route of each of its tasks leads to models of one generation only.
    """
    for compiled in (made.graphs["app"] for made in generations):
        routes = {t.task: actual.routes[t.name] for t in compiled.every_task.values() if t.name in actual.routes}
        answers = {task: {_answers(actual.workers, e) for e in route} for task, route in routes.items()}
        if compiled.target == "ensemble":
            assert all(any(answers[task] <= _own(made, task) for made in generations) for task in routes)
            continue
        for made in generations:
            own = {task: _own(made, task) for task in routes}
            bound = {
                task: {_answers(actual.workers, e) for e in route if made.generation in e.generations}
                for task, route in routes.items()
            }
            if all(bound[task] & own[task] for task in routes):
                assert all(bound[task] <= own[task] for task in routes)


def _own(made: Bundle, task: str) -> set[object]:
    """Returns what the models of a bundle that do a task answer."""
    tasks = [t for t in made.graphs["app"].every_task.values() if t.task == task]
    return {_answers(made.workers, e) for t in tasks for e in (*t.route, *t.standby)}


def _answers(workers: Mapping[str, Worker], entry: RouteEntry) -> object:
    """Returns the key of the answers that the model of a route's entry gives."""
    worker = workers[entry.worker]
    return next(model.answers for model in (*worker.models, *worker.standby) if model.name == entry.model)


@pytest.mark.slow
@costly(60)
@given(
    earlier=st.none() | bundles(0),
    before=bundles(1),
    target=bundles(2),
    stop=st.integers(0, 30),
    standby=st.sampled_from([frozenset[str](), frozenset({"app"})]),
)
# The change has taken chains apart and all workers of the single tasks off the routes, in whose queues requests wait.
@example(
    earlier=None,
    before=chained(bundle(1, [worker(at, ("t0", "a"), ("t1", "a")) for at in ("0/1gx2@0", "1/1gx2@0")])),
    target=chained(bundle(2, [worker(at, ("t0", "a"), ("t1", "a")) for at in ("0/1g@0", "1/1g@0")])),
    stop=4,
    standby=frozenset(),
)
def test_a_transition_can_be_rolled_back_from_any_stage_before_the_switch(
    earlier: Bundle | None, before: Bundle, target: Bundle, stop: int, standby: frozenset[str]
) -> None:
    running = generation(before)
    actual = switched(after(before, earlier), running, standby)
    for stage in stages_to(actual, running, generation(target), standby=standby)[:stop]:
        if stage.commits:
            break
        for action in stage.actions:
            actual = actual.after(action)
    for stage in stages_to(actual, running, running, standby=standby):
        for action in stage.actions:
            _check_action(actual, action)
            actual = actual.after(action)
    assert reached(switched(actual, running, frozenset()), before)


@costly(40)
@given(before=bundles(1), target=bundles(2), third=bundles(3), stop=st.integers(0, 12))
def test_another_plan_can_be_carried_out_from_any_stage_before_the_switch(
    before: Bundle, target: Bundle, third: Bundle, stop: int
) -> None:
    running, actual = generation(before), after(before)
    for stage in stages_to(actual, running, generation(target))[:stop]:
        if stage.commits:
            break
        actual = run(actual, (stage,))
    assert reached(run(actual, stages_to(actual, running, generation(third))), third)


@pytest.mark.slow
@costly(100)
@given(before=bundles(1, targets=["graph"]), target=bundles(2, targets=["graph"]))
def test_requests_end_before_the_last_worker_that_can_answer_them_leaves_the_routes(
    before: Bundle, target: Bundle
) -> None:
    """Unless no generation has a worker for every task, so that requests have nowhere else to go."""
    actual, ended = after(before), set[int]()
    for stage in stages_to(actual, generation(before), generation(target)):
        for action in stage.actions:
            earlier, actual = actual, actual.after(action)
            if isinstance(action, a.Settle):
                ended.add(action.generation)
            if isinstance(action, a.SetRoutes):
                changed = [name for name in action.routes if name in earlier.routes]
                opened = [_answered(actual.routes[name], closed=False) for name in changed]
                if set.intersection(*opened):
                    assert all(_answered(earlier.routes[n]) <= _answered(actual.routes[n]) | ended for n in changed)
                ended.difference_update(*opened)


def _answered(route: Sequence[RouteEntry], *, closed: bool = True) -> set[int]:
    """Returns the generations whose requests a route answers."""
    return {number for entry in route if closed or not entry.closed for number in entry.generations}
