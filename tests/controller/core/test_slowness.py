from dataclasses import replace

import pytest

from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.core.slowness import (
    Kind,
    Served,
    Times,
    judged,
    read_times,
    read_times_by_batch,
    slow_kinds,
    slowed,
    times_since,
    unchanged,
    with_times,
)
from jigsaw_triton.controller.core.state import Phase
from jigsaw_triton.planner.domain.plan import CONSTRUCTED, Plan, SolverReport
from jigsaw_triton.profiles.table import ProfileTable
from jigsaw_triton.servers.metrics import parse_metrics
from tests.controller.worlds import World, bundle, wanted, worker
from tests.fakes.problems import row

SETTINGS = Settings()
ONE = bundle(1, [worker("0/1g@0", ("t0", "a")), worker("0/1g@1", ("t0", "a")), worker("0/1g@2", ("t1", "a"))])
FIRST, SECOND = Served("app", "t0", "a", "n-0-1g-0"), Served("app", "t0", "a", "n-0-1g-1")
KIND = Kind("app", "t0", "a", "A100-80GB", "1g")


def took(ratio: float, *, batches: float = 300.0, profiled_ms: float = 20.0) -> Times:
    profiled_s = batches * profiled_ms / 1000
    return Times(batches, ratio * profiled_s, profiled_s)


def test_times_are_read_from_the_metrics_of_the_gateway() -> None:
    labels = 'graph="app",task="t0",variant="a",worker="n-0-1g-0"'
    text = "\n".join(
        f"jigsaw_service_{name}_total{{{labels}}} {value}"
        for name, value in (("batches", 4), ("seconds", 0.5), ("profiled_seconds", 0.25))
    )
    assert read_times(parse_metrics(text)) == {FIRST: Times(4.0, 0.5, 0.25)}


def test_times_of_all_batch_sizes_count_together() -> None:
    labels = 'graph="app",task="t0",variant="a",worker="n-0-1g-0"'
    text = "\n".join(
        f'jigsaw_service_{name}_total{{{labels},batch="{batch}"}} {batch * value}'
        for name, value in (("batches", 4), ("seconds", 0.5), ("profiled_seconds", 0.25))
        for batch in (1, 2)
    )
    samples = parse_metrics(text)
    assert read_times(samples) == {FIRST: Times(12.0, 1.5, 0.75)}
    assert read_times_by_batch(samples)[FIRST, "2"] == Times(8.0, 1.0, 0.5)


def test_times_since_a_reading_survive_a_restart_of_the_gateway() -> None:
    before = {FIRST: Times(10.0, 2.0, 1.0)}
    assert times_since(before, {FIRST: Times(14.0, 3.0, 1.5)}) == {FIRST: Times(4.0, 1.0, 0.5)}
    assert times_since(before, {FIRST: Times(3.0, 0.6, 0.3)}) == {FIRST: Times(3.0, 0.6, 0.3)}


def test_old_times_count_less_and_are_forgotten() -> None:
    past = {FIRST: took(2.0)}
    later = with_times(past, {SECOND: took(1.0)}, SETTINGS.slow_half_life_s, SETTINGS)
    assert later == {FIRST: took(2.0, batches=150.0), SECOND: took(1.0)}
    assert with_times(past, {}, 20 * SETTINGS.slow_half_life_s, SETTINGS) == {}


@pytest.mark.parametrize(
    ("times", "was_slow", "expected"),
    [
        (took(1.5), False, 1.5),
        (took(1.15), False, 1.0),
        (took(1.15), True, 1.15),
        (took(1.05), True, 1.0),
        (took(0.7), False, 1.0),
        # The delay of a call itself may be half of a batch of one millisecond.
        (took(1.9, profiled_ms=1.0), False, 1.0),
        (took(1.5, batches=50.0), False, None),
    ],
)
def test_a_model_is_slow_if_enough_batches_clearly_exceed_the_profile(
    times: Times, was_slow: bool, expected: float | None
) -> None:
    assert judged({FIRST: times}, {FIRST: 1.5} if was_slow else {}, SETTINGS).get(FIRST) == (
        None if expected is None else pytest.approx(expected)
    )


def test_a_kind_of_slice_is_slow_if_all_its_slices_are() -> None:
    workers = ONE.workers
    assert slow_kinds({}, {FIRST: 1.5, SECOND: 1.3}, workers) == {KIND: 1.3}
    assert slow_kinds({}, {FIRST: 1.5, SECOND: 1.0}, workers) == {}
    assert slow_kinds({KIND: 1.5}, {}, workers) == {KIND: 1.5}
    assert slow_kinds({KIND: 1.5}, {FIRST: 1.0}, workers) == {}


def test_the_profile_of_a_slow_kind_of_slice_is_scaled() -> None:
    table = ProfileTable(
        [row("t0", "a", gpu="A100-80GB"), row("t0", "a", slice_="2g", gpu="A100-80GB"), row("t1", "a", gpu="A100-80GB")]
    )
    scaled = slowed({"app": table, "other": table}, {KIND: 2.0})
    assert scaled["other"] is table
    before, after = ({r.key: r for r in found.rows()} for found in (table, scaled["app"]))
    (changed,) = (key for key in before if before[key] != after[key])
    assert (changed.task, changed.slice) == ("t0", "1g")
    assert after[changed].latency_p99_ms == 2 * before[changed].latency_p99_ms
    assert after[changed].throughput_rps == before[changed].throughput_rps / 2
    assert slowed({"app": table}, {KIND: 2.0})["app"] is scaled["app"]


def deployed() -> World:
    again = bundle(2, ONE.workers.values())
    world = World({1: ONE, 2: again, 3: again})
    world.send(e.Tick(100.0, {}))
    world.send(e.DeployRequested(wanted()))
    world.ticks([9.0] * 15)
    assert world.state.phase is Phase.READY
    world.hold = lambda action: isinstance(action, a.Solve)
    return world


def test_one_slow_slice_among_others_is_reported_and_planned_with_as_profiled() -> None:
    world = deployed()
    world.send(e.Tick(world.state.now_s + 1.0, {"app": 9.0}, times={FIRST: took(1.5), SECOND: took(1.0)}))
    assert world.reports[-1] == ("slow", "app.t0.a on n-0-1g-0 takes 1.5 times as long as profiled")
    assert world.held == []
    world.send(e.Tick(world.state.now_s + 1.0, {"app": 9.0}, times={FIRST: took(1.0, batches=5000)}))
    assert world.reports[-1] == ("slow", "app.t0.a on n-0-1g-0 is as fast as profiled again")


def test_slices_that_are_all_slow_are_planned_for_once_with_their_own_times() -> None:
    world = deployed()
    slow = {FIRST: took(1.5), SECOND: took(1.4)}
    world.send(e.Tick(world.state.now_s + 1.0, {"app": 9.0}, times=slow))
    (issued,) = world.held
    assert isinstance(issued.action, a.Solve)
    assert issued.action.slow == {KIND: pytest.approx(1.4)}
    assert issued.action.demand_rps == {"app": 10.0}
    world.end()
    for _ in range(30):
        world.send(e.Tick(world.state.now_s + 1.0, {"app": 9.0}, times=slow))
    assert world.held == []


def test_slow_slices_cause_no_plan_while_the_deployment_is_paused() -> None:
    world = deployed()
    world.send(e.PauseRequested(True))
    world.send(e.Tick(world.state.now_s + 1.0, {"app": 9.0}, times={FIRST: took(1.5), SECOND: took(1.4)}))
    assert world.held == []
    assert world.state.slow_kinds == {KIND: pytest.approx(1.4)}


def test_ratios_of_graphs_with_new_profiles_are_forgotten() -> None:
    world = deployed()
    slow = {FIRST: took(1.5), SECOND: took(1.4)}
    world.send(e.Tick(world.state.now_s + 1.0, {"app": 9.0}, times=slow))
    world.held.clear()
    same, other = wanted(), replace(wanted(), profiles={"app": ProfileTable([row("t0", "a", gpu="A100-80GB")])})
    assert unchanged(world.state.wanted, same) == {"app"}
    assert unchanged(world.state.wanted, other) == unchanged(None, other) == frozenset()
    world.state = replace(world.state, phase=Phase.READY, inflight={})
    world.send(e.DeployRequested(other))
    (issued,) = world.held
    assert isinstance(issued.action, a.Solve) and issued.action.slow == {}


def test_slow_slices_are_planned_for_even_if_a_review_saw_them_first() -> None:
    world = deployed()
    running = world.state.running
    assert running is not None
    world.state = replace(world.state, quiet_until_s=world.state.now_s + 20.0)
    world.send(e.Tick(world.state.now_s + 1.0, {"app": 9.0}, times={FIRST: took(1.5), SECOND: took(1.4)}))
    assert world.held == []
    world.state = replace(world.state, running=replace(running, plan=constructed(running.plan)), review_at_s=0.0)
    world.ticks([9.0])
    (review,) = world.held
    world.held = []
    assert isinstance(review.action, a.Solve) and review.action.review
    assert world.state.running is not None
    world.send(e.Solved(review.id, world.state.running.plan, world.state.running.bundle))
    world.ticks([9.0] * 21)
    (solve,) = world.held
    assert isinstance(solve.action, a.Solve) and solve.action.slow == {KIND: pytest.approx(1.4)}
    assert not solve.action.review


def constructed(plan: Plan) -> Plan:
    return replace(plan, solver=SolverReport(CONSTRUCTED, "feasible", 0.1, 0.2))


def test_a_ratio_that_grows_a_little_causes_no_further_plan() -> None:
    world = deployed()
    for ratio, solves in ((1.5, 1), (1.7, 0), (2.0, 1)):
        times = {FIRST: took(ratio, batches=1e6), SECOND: took(ratio, batches=1e6)}
        world.state = replace(world.state, times={})
        for _ in range(12):
            world.send(e.Tick(world.state.now_s + 1.0, {"app": 9.0}, times=times))
        assert len(world.held) == solves, ratio
        world.end()
