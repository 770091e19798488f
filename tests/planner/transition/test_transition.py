from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.catalog import board
from jigsaw_triton.gpus.layouts import fits, maximal_layouts
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.graph.model import Workload
from jigsaw_triton.planner.capacity import Service
from jigsaw_triton.planner.domain.difference import difference
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan
from jigsaw_triton.planner.domain.problem import LATENCY_MODELS, LOADS, LatencyModel, Options, Problem
from jigsaw_triton.planner.search.solve import SolverFactory, make_plan
from jigsaw_triton.planner.transition.generations import of_plans
from jigsaw_triton.planner.transition.interim import Interim
from jigsaw_triton.planner.transition.moves import Durations, Movers
from jigsaw_triton.planner.transition.sequence import _best, requests_missed
from jigsaw_triton.planner.transition.transition import Step, Transition, check_room, transition
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.layouts import Places, plan_of
from tests.fakes.problems import SPEED, TWO_P95, cluster, docread_problem, problem, row

CPU = board("cpu")
GRAPH = chain(2, variant_count=2)
PROFILES = ProfileTable(
    row(task, variant, slice_=kind, instances=instances, rps=12.5 * instances * SPEED[kind])
    for task in ("t0", "t1")
    for variant in ("v0", "v1")
    for kind in SPEED
    for instances in (1, 2)
)
"""Latency model 2p95: a replica of one instance on a 1g may be planned for 10 calls/s."""

Layout = dict[tuple[GpuId, Placement], tuple[PlacedModel, ...]]


def way(
    before: Places | None, after: Places, *, demand: float = 10, profiles: ProfileTable = PROFILES, spare_gpus: int = 0
) -> Transition:
    """Returns the transition between two plans on a cluster that has the GPUs of both, and spare ones."""
    running = None if before is None else plan_of(before, demand_rps=demand)
    gpus = 1 + max([*(before or {}), *after]) + spare_gpus
    asked = problem(GRAPH, profiles, demand_rps=demand, gpus=gpus, running=running)
    return transition(asked, plan_of(after, demand_rps=demand), TWO_P95)


def kinds(found: Transition) -> list[str]:
    return [step.kind + (" stand-in" if step.stand_in else "") for step in found.steps]


def layout(plan: Plan) -> Layout:
    return {(gpu.id, placed.placement): placed.models for gpu in plan.gpus for placed in gpu.layout}


def applied(now: Layout, step: Step) -> Layout:
    """Returns the layout after a step; each of its changes must be possible."""
    now = dict(now)
    for change in step.changes:
        assert now.get((change.gpu, change.placement), ()) == change.before
        now.pop((change.gpu, change.placement), None)
        if change.after:
            now[change.gpu, change.placement] = change.after
            assert fits(CPU, [placement for gpu, placement in now if gpu == change.gpu]) is None
    return now


def test_equal_plans_need_no_steps() -> None:
    assert way({0: {"1g@0": "t0.v0", "1g@1": "t1.v0"}}, {0: {"1g@0": "t0.v0", "1g@1": "t1.v0"}}).steps == ()


def test_a_first_plan_is_added_at_once() -> None:
    found = way(None, {0: {"1g@0": "t0.v0"}, 1: {"1g@1": "t1.v0"}})
    assert kinds(found) == ["add", "shares"]
    assert [step.after_rps["chain"] for step in found.steps] == [0.0, 10.0]
    assert found.seconds == pytest.approx(0.2 + 1.5 + 1.0 + 0.05 + 0.05)
    assert found.shortfalls == ()


def test_cheapest_changes_come_first_and_removals_last() -> None:
    before = {
        0: {"1g@0": "t0.v0", "1g@1": "t1.v0", "1g@2": "t0.v0", "1g@3": "t1.v0", "3g@4": "t1.v1"},
        1: {"1g@0": "t0.v0", "1g@1": "t1.v0"},
    }
    after = {
        0: {"1g@0": "t0.v0/2/1", "1g@1": "t1.v0", "1g@2": "t0.v1", "1g@3": "t1.v0", "1g@4": "t1.v0"},
        1: {"1g@0": "t0.v0", "3g@4": "t0.v0"},
    }
    found = way(before, after)
    assert kinds(found) == ["instances", "variant", "add", "geometry", "shares", "remove"]
    assert [str(change) for change in found.steps[3].changes] == [
        "- a/0 3g@4 chain.t1 v1 instances 1 batch 1",
        "+ a/0 1g@4 chain.t1 v0 instances 1 batch 1",
    ]
    assert found.shortfalls == ()


def test_a_change_of_shares_alone_is_one_step() -> None:
    running = plan_of({0: {"1g@0": "t0.v0", "1g@1": "t0.v1", "2g@2": "t1.v0"}})
    segments = running.graphs["chain"].tasks["t0"].segments
    shifted = replace(
        running.graphs["chain"].tasks["t0"],
        segments=tuple(replace(s, share=share) for s, share in zip(segments, (0.9, 0.1), strict=True)),
    )
    tasks = {**running.graphs["chain"].tasks, "t0": shifted}
    plan = replace(running, graphs={"chain": replace(running.graphs["chain"], tasks=tasks)})
    found = transition(problem(GRAPH, PROFILES, gpus=1, running=running), plan)
    assert kinds(found) == ["shares"]
    assert (found.steps[0].graphs, found.seconds) == (("chain",), 0.05)


def test_replicas_that_swap_places_lose_no_capacity() -> None:
    found = way({0: {"1g@0": "t0.v0", "1g@1": "t1.v0"}}, {0: {"1g@0": "t1.v0", "1g@1": "t0.v0"}})
    assert kinds(found) == ["variant", "shares"]
    assert found.shortfalls == ()


def test_models_that_do_not_fit_together_are_out_of_service_meanwhile() -> None:
    large = ProfileTable(replace(r, memory_mib=5000.0) for r in PROFILES.rows())
    before, after = {0: {"1g@0": "t0.v0", "1g@1": "t1.v0"}}, {0: {"1g@0": "t0.v1", "1g@1": "t1.v0"}}
    found = way(before, after, profiles=large)
    assert kinds(found) == ["add stand-in", "variant", "shares", "remove stand-in"]
    assert found.steps[1].during_rps == {"chain": 10.0}


def test_without_room_the_order_keeps_the_most_capacity_in_service() -> None:
    # t0 has a spare replica until 4g@0 goes to t1, so the GPU is repartitioned before that.
    large = ProfileTable(replace(r, memory_mib=30000.0) for r in PROFILES.rows())
    before = {0: {"4g@0": "t0.v0", "3g@4": "t0.v0"}, 1: {"4g@0": "t0.v0", "3g@4": "t1.v0"}, 2: {"7g@0": "t1.v0"}}
    after = {0: {"4g@0": "t1.v0", "3g@4": "t0.v0"}, 1: {"2g@0": "t0.v0", "2g@2": "t0.v0", "3g@4": "t1.v0"}}
    found = way(before, {**after, 2: {"7g@0": "t1.v0"}}, demand=60, profiles=large)
    assert kinds(found) == ["geometry", "variant", "shares"]
    assert found.shortfalls == ()


def test_a_slice_serves_with_its_old_model_beside_the_new_one_as_long_as_that_is_better() -> None:
    before = {0: {"4g@0": "t0.v0", "3g@4": "t0.v0"}, 1: {"4g@0": "t0.v0", "3g@4": "t1.v0"}, 2: {"7g@0": "t1.v0"}}
    after = {0: {"4g@0": "t1.v0", "3g@4": "t0.v0"}, 1: {"2g@0": "t0.v0", "2g@2": "t0.v0", "3g@4": "t1.v0"}}
    found = way(before, {**after, 2: {"7g@0": "t1.v0"}}, demand=60)
    assert kinds(found) == ["variant", "geometry", "shares"]
    assert [step.during.taken for step in found.steps] == [True, False, True]
    assert found.shortfalls == ()


def test_a_shortfall_is_reported() -> None:
    found = way(
        {0: {"4g@0": "t0.v0", "3g@4": "t1.v0"}}, {0: {"2g@0": "t0.v0", "2g@2": "t0.v0", "3g@4": "t1.v0"}}, demand=20
    )
    assert kinds(found) == ["geometry", "shares"]
    (shortfall,) = found.shortfalls
    assert (shortfall.graph, shortfall.missing_rps) == ("chain", 20.0)
    assert shortfall.seconds == pytest.approx(1.25 + 2.75)
    assert shortfall.requests == pytest.approx(20.0 * 4.0)


def test_replicas_stand_in_on_a_gpu_that_neither_plan_uses() -> None:
    before = {0: {"4g@0": "t0.v0", "3g@4": "t1.v0"}}
    found = way(before, {0: {"2g@0": "t0.v0", "2g@2": "t0.v0", "3g@4": "t1.v0"}}, demand=20, spare_gpus=1)
    assert kinds(found) == ["add stand-in", "geometry", "shares", "remove stand-in"]
    assert found.steps[0].changes[0].gpu.index == 1
    assert found.shortfalls == ()


def test_the_shortfall_is_as_small_as_possible() -> None:
    before = {i: {"4g@0": "t0.v0", "3g@4": "t1.v0"} for i in range(4)}
    after = {i: {"2g@0": "t0.v0", "2g@2": "t0.v0", "3g@4": "t1.v0"} for i in range(4)}
    found = way(before, after, demand=4 * 27)
    assert kinds(found) == ["geometry"] * 4 + ["shares"]
    assert min(step.during_rps["chain"] for step in found.steps) == pytest.approx(3 * 35)


def test_spare_capacity_is_repartitioned_at_once() -> None:
    before = {i: {"4g@0": "t0.v0", "3g@4": "t1.v0"} for i in range(4)}
    after = {i: {"2g@0": "t0.v0", "2g@2": "t0.v0", "3g@4": "t1.v0"} for i in range(4)}
    found = way(before, after, demand=70)
    assert [len({change.gpu for change in step.changes}) for step in found.steps[:-1]] == [2, 2]
    assert found.shortfalls == ()


def test_a_rise_of_the_demand_is_no_shortfall() -> None:
    before = {0: {"1g@0": "t0.v0", "1g@1": "t1.v0"}}
    found = way(before, {0: {**before[0], "2g@2": "t0.v0", "2g@4": "t1.v0"}}, demand=25)
    assert found.before_rps == {"chain": 10.0}
    assert found.steps[-1].after_rps["chain"] == pytest.approx(29)
    assert found.shortfalls == ()


def test_durations_can_be_given() -> None:
    running = plan_of({0: {"1g@0": "t0.v0"}})
    asked = problem(GRAPH, PROFILES, gpus=1, running=running)
    found = transition(asked, plan_of({0: {"1g@0": "t0.v1"}}), durations=Durations(load_s=30.0))
    assert found.seconds == pytest.approx(30.05 + 0.05)


def test_an_impossible_running_plan_is_refused() -> None:
    running = plan_of({0: {"3g@4": "t0.v0", "7g@0": "t1.v0"}})
    with pytest.raises(InputError, match="overlaps"):
        check_room(problem(GRAPH, PROFILES, running=running), plan_of({0: {"1g@0": "t0.v0"}}))


def test_stand_ins_avoid_mig_instances_of_others() -> None:
    large = ProfileTable(replace(r, memory_mib=5000.0) for r in PROFILES.rows())
    before, after = ({0: {"1g@0": f"t0.{variant}", "1g@1": "t1.v0"}} for variant in ("v0", "v1"))
    asked = problem(GRAPH, large, running=plan_of(before))
    (gpu,) = asked.cluster.gpus
    foreign = (Placement(2, "2g"), Placement(4, "3g"))
    taken = replace(asked, cluster=replace(asked.cluster, gpus=(replace(gpu, foreign=foreign),)))
    assert kinds(transition(asked, plan_of(after))) == ["add stand-in", "variant", "shares", "remove stand-in"]
    assert kinds(transition(taken, plan_of(after))) == ["variant", "shares"]


def test_a_running_plan_that_overlaps_others_is_refused() -> None:
    asked = problem(GRAPH, PROFILES, running=plan_of({0: {"1g@0": "t0.v0"}}))
    (gpu,) = asked.cluster.gpus
    taken = replace(asked, cluster=replace(asked.cluster, gpus=(replace(gpu, foreign=(Placement(0, "2g"),)),)))
    with pytest.raises(InputError, match="1g@0 overlaps 2g@0"):
        check_room(taken, plan_of({0: {"1g@2": "t0.v0"}}))


def test_replicas_on_a_gpu_that_left_the_cluster_are_removed() -> None:
    running = plan_of({0: {"1g@0": "t0.v0", "1g@1": "t1.v0"}, 7: {"1g@0": "t0.v0"}})
    found = transition(problem(GRAPH, PROFILES, running=running), plan_of({0: {"1g@0": "t0.v0", "1g@1": "t1.v0"}}))
    assert kinds(found) == ["shares", "remove"]


def test_media_exclusive_slices_need_no_special_step() -> None:
    a100 = replace(problem(GRAPH, PROFILES), cluster=cluster(1, of="A100-80GB"))
    running = plan_of({0: {"1g+me@0": "t0.v0", "1g@1": "t1.v0"}})
    gpus = tuple(replace(gpu, model="A100-80GB") for gpu in running.gpus)
    plan = plan_of({0: {"1g+me@0": "t0.v1", "1g@1": "t1.v0"}})
    asked = replace(a100, running=replace(running, gpus=gpus))
    found = transition(asked, replace(plan, gpus=tuple(replace(gpu, model="A100-80GB") for gpu in plan.gpus)))
    assert kinds(found) == ["variant", "shares"]


@pytest.mark.slow
@pytest.mark.parametrize("model", LATENCY_MODELS)
@pytest.mark.parametrize(("before", "after"), [(20.0, 60.0), (60.0, 20.0), (40.0, 45.0)])
def test_capacities_equal_those_of_the_plans(
    solvers: SolverFactory, before: float, after: float, model: LatencyModel
) -> None:
    options = Options(latency_model=model)
    running = make_plan(docread_problem(before), options, solvers=solvers)
    asked = docread_problem(after, running=running)
    plan = make_plan(asked, options, solvers=solvers)
    found = transition(asked, plan, options)
    assert found.before_rps["docread"] == pytest.approx(running.graphs["docread"].capacity_rps, rel=1e-4)
    assert found.steps[-1].after_rps["docread"] == pytest.approx(plan.graphs["docread"].capacity_rps, rel=1e-4)


@pytest.mark.parametrize(("budget_ms", "load"), [(1e6, LOADS[-1]), (1.0, LOADS[0])])
def test_with_the_queue_model_capacity_follows_the_latency_budget(budget_ms: float, load: float) -> None:
    places = {0: {"1g@0": "t0.v0", "1g@1": "t1.v0"}}
    running = plan_of(places)
    of = running.graphs["chain"]
    tasks = {name: replace(task, budget_ms=budget_ms) for name, task in of.tasks.items()}
    running = replace(running, graphs={"chain": replace(of, tasks=tasks)})
    found = transition(problem(GRAPH, PROFILES, running=running), plan_of({0: {**places[0], "1g@2": "t0.v0"}}))
    assert found.before_rps == {"chain": pytest.approx(12.5 * load)}


def test_a_transition_is_written_as_json() -> None:
    found = way({0: {"1g@0": "t0.v0", "1g@1": "t1.v0"}}, {0: {"1g@0": "t0.v1", "1g@1": "t1.v0"}}).to_json()
    step, _ = found["steps"]
    (place,) = step["places"]
    assert (place["node"], place["index"], place["slice"], place["start"]) == ("a", 0, "1g", 0)
    assert (place["before"][0]["variant"], place["after"][0]["variant"]) == ("v0", "v1")
    assert (found["seconds"], step["after_rps"], found["shortfalls"]) == (1.1, {"chain": 10.0}, [])


LAYOUTS = maximal_layouts(CPU)
MODELS = [
    f"{task}.{variant}/{instances}/1" for task in ("t0", "t1") for variant in ("v0", "v1") for instances in (1, 2)
]


@st.composite
def layouts(draw: st.DrawFn, gpus: int = 3) -> dict[int, dict[str, str]]:
    """Draws any layouts, with any part of each in use."""
    places: dict[int, dict[str, str]] = {}
    for index in range(gpus):
        cut = draw(st.sampled_from(LAYOUTS))
        contents = [draw(st.sampled_from([*MODELS, ""])) for _ in cut]
        places[index] = {str(place): content for place, content in zip(cut, contents, strict=True) if content}
    return places


def capacity(places: Places) -> float:
    asked = problem(GRAPH, PROFILES, demand_rps=1e-6, gpus=4)
    plan = plan_of(places)
    service = Service(replace(asked, running=plan).prepared(), plan, TWO_P95)
    return service.capacities(service.start)["chain"]


def asked_for(before: Plan, demand: float) -> Problem:
    return problem(GRAPH, PROFILES, demand_rps=demand, gpus=4, running=before)


@pytest.mark.slow
@settings(deadline=None, max_examples=100)
@given(layouts(), layouts(), st.floats(0.3, 1.0))
def test_any_plan_can_follow_any_other(old: Places, new: Places, part: float) -> None:
    demand = max(part * min(capacity(old), capacity(new)), 1.0)
    before, after = plan_of(old, demand_rps=demand), plan_of(new, demand_rps=demand)
    found = transition(asked_for(before, demand), after, TWO_P95)
    assert found == transition(asked_for(before, demand), after, TWO_P95)
    now = layout(before)
    for step in found.steps:
        assert bool(step.changes) == (step.kind != "shares")
        now = applied(now, step)
    assert now == layout(after)
    assert found.before_rps["chain"] == pytest.approx(capacity(old))
    if found.steps:
        assert found.steps[-1].after_rps["chain"] == pytest.approx(capacity(new))
    missing = sum(s.seconds * max(0.0, demand - s.during_rps["chain"]) for s in found.steps)
    if capacity(old) >= demand:
        assert sum(s.requests for s in found.shortfalls) == pytest.approx(missing, abs=0.1)


@settings(deadline=None, max_examples=20)
@given(st.lists(layouts(2), min_size=2, max_size=5))
def test_capacities_do_not_depend_on_the_moments_asked_about_before(moments: list[Places]) -> None:
    """A service computes again only what has changed since the last moment; here another graph does not change."""
    names, plans = ("chain", "other"), [plan_of(places) for places in moments]
    both = {name: replace(GRAPH, name=name) for name in names}
    asked = replace(
        asked_for(plans[0], 1e-6),
        workloads=tuple(Workload(graph, 1e-6) for graph in both.values()),
        profiles=dict.fromkeys(names, PROFILES),
    )
    service, *others = (Service(replace(asked, running=plan).prepared(), plan, TWO_P95) for plan in plans)
    for other in others:
        assert service.capacities(other.start) == other.capacities(other.start)


@settings(deadline=None, max_examples=60)
@given(layouts(1), layouts(1), layouts(1))
def test_with_room_a_gpu_is_repartitioned_without_loss(old: Places, new: Places, other: Places) -> None:
    """A whole GPU less one slice is free, so every leaving replica can be replaced first."""
    free = {1: {"1g@6": "t0.v0"}, 2: other[0]}
    before, after = {0: old[0], **free}, {0: new[0], **free}
    small = {place: text for place, text in old[0].items() if not place.startswith("7g")}
    demand = min(capacity({**before, 0: small}), capacity(after))
    if demand > 0:
        assert way({**before, 0: small}, after, demand=demand).shortfalls == ()


@settings(deadline=None, max_examples=40)
@given(layouts(2), layouts(2))
def test_the_exact_order_is_the_best_of_all(old: Places, new: Places) -> None:
    demand = min(capacity(old), capacity(new))
    before, after = plan_of(old), plan_of(new)
    boards = {GpuId("a", i): CPU for i in range(2)}
    if demand <= 0:
        return
    service = Service(asked_for(before, demand).prepared(), after, TWO_P95)
    interim = Interim(service, of_plans(before, after, (), ()), before)
    moves = list(Movers(boards, interim, Durations()).moves(difference(before, after)))
    changed = [move for move in moves if move.kind not in ("add", "remove")]
    if len(changed) > 5:
        return
    first = [move for move in moves if move.kind == "add"]
    last = [move for move in moves if move.kind == "remove"]
    missed = [requests_missed([(m,) for m in (*first, *order, *last)], interim) for order in permutations(changed)]
    assert requests_missed([(m,) for m in _best(moves, interim)], interim) == pytest.approx(min(missed), abs=1e-6)


def test_slices_of_one_processor_carry_no_more_than_their_plans_say() -> None:
    """Each task has two and then three slices of 10 requests/s, of which the processors carry 12 and 15."""
    rows = {f"1g@{at}": f"t{at % 2}.v0" for at in range(6)}
    one, other = plan_of({0: dict(list(rows.items())[:4])}, demand_rps=10), plan_of({0: rows}, demand_rps=10)
    one, other = (
        replace(plan, graphs={"chain": replace(plan.graphs["chain"], capacity_rps=rps)})
        for plan, rps in ((one, 12.0), (other, 15.0))
    )
    asked = problem(GRAPH, PROFILES, demand_rps=10, gpus=1, running=one)
    known = replace(asked, cluster=replace(asked.cluster, processors=2.0))
    free, limited = (transition(p, other, TWO_P95) for p in (asked, known))
    assert kinds(limited) == kinds(free) == ["add", "shares"]
    assert free.before_rps == {"chain": pytest.approx(20.0)}
    assert limited.before_rps == {"chain": 12.0}
    assert limited.steps[-1].after_rps == {"chain": 15.0}
