from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from jigsaw_triton.compiler.bundle import Bundle
from jigsaw_triton.controller.core import actions as a
from jigsaw_triton.controller.core.generation import Wanted
from jigsaw_triton.errors import InfeasibleError
from jigsaw_triton.evaluation.simulator.accounting import Array, Operation
from jigsaw_triton.evaluation.simulator.operation import WAIT_SHARE, Solver, simulate_operation
from jigsaw_triton.planner.domain.plan import PlacedSlice, Plan, Standby
from jigsaw_triton.planner.transition.moves import Durations
from jigsaw_triton.profiles.table import ProfileTable
from tests.controller.worlds import BOARD, bundle, profiled, standing_by, worker
from tests.fakes.problems import row

DURATIONS = Durations(shares_s=0.0, drain_s=0.0, load_s=1.0, create_s=0.0, destroy_s=0.0, start_s=1.0)
"""Round numbers: a worker with one model takes two seconds to start."""

SMALL, LARGE = (
    bundle(n, [worker(f"0/1g@{i}", (f"t{i % 2}", "a"), generation=n) for i in range(2 * n)]) for n in (1, 2)
)
"""Plans for 10 and 20 requests a second: one and two replicas of each task."""


def wanted() -> Wanted:
    return profiled(SMALL).wanted


def planner(*bundles: Bundle, fails_at: int = 0) -> Solver:
    """Returns a planner whose plans follow each other whatever the demand is; one of them may fail."""

    def solve(action: a.Solve) -> tuple[Plan, Bundle]:
        if action.generation == fails_at:
            raise InfeasibleError(["no room"])
        made = bundles[min(action.generation, len(bundles)) - 1]
        return profiled(made, demand_rps=action.demand_rps["app"]).plan, made

    return solve


def run(rates: list[float], *bundles: Bundle, fails_at: int = 0) -> Operation:
    arrivals: Mapping[str, Array] = {"app": np.array(rates, np.float64)}
    return simulate_operation(wanted(), arrivals, planner(*bundles, fails_at=fails_at), durations=DURATIONS)


def test_a_load_within_the_capacity_violates_nothing_and_changes_nothing() -> None:
    found = run([8.0] * 120, SMALL)
    assert (found.violation_share, found.changes) == (0.0, ())
    assert set(found.capacity_rps["app"].tolist()) == {10.0}
    assert set(found.slices.tolist()) == {2.0}


def test_a_rise_is_violations_until_new_workers_are_on_the_routes() -> None:
    found = run([8.0] * 20 + [18.0] * 60, SMALL, LARGE)
    (change,) = found.changes
    assert 20 <= change.at_s <= 20 + 6
    assert change.generation == 2
    missed = found.violations["app"]
    assert missed[:20].sum() == 0
    # The rise is believed after four seconds, planned for in one, and workers take two seconds to start. As many
    # requests as the old workers answer in half of the SLO wait.
    wait_s = WAIT_SHARE * wanted().graphs["app"].slo.latency_ms / 1000
    assert missed[20] == pytest.approx(8.0 - wait_s * 10)
    assert missed[21:27].tolist() == pytest.approx([8.0] * 6, abs=4.0)
    assert missed[30:].sum() == 0
    assert found.capacity_rps["app"][-1] == 20.0
    assert found.slices[-1] == 4.0
    assert found.violation_share == pytest.approx(missed.sum() / (8 * 20 + 18 * 60))


def test_slices_that_exchange_their_models_carry_the_load_while_both_are_on_the_routes() -> None:
    exchanged = bundle(2, [worker(f"0/1g@{i}", (f"t{1 - i}", "a"), generation=2) for i in range(2)])
    arrivals: Mapping[str, Array] = {"app": np.array([10.0] * 10 + [11.0] * 30, np.float64)}
    slow_routes = replace(DURATIONS, shares_s=0.5)
    found = simulate_operation(wanted(), arrivals, planner(SMALL, exchanged), durations=slow_routes)
    assert len(found.changes) == 1
    assert set(found.capacity_rps["app"].tolist()) == {10.0}


def test_standby_variants_carry_a_burst_within_a_second_at_their_accuracy() -> None:
    made = standing_by(SMALL)
    small = profiled(made)
    fast = [row(t, "b", batch=4, rps=37.5, gpu=BOARD, memory_mib=900.0) for t in ("t0", "t1")]
    slow = [row(t, "a", batch=4, rps=12.5, gpu=BOARD, memory_mib=900.0) for t in ("t0", "t1")]

    def beside(placed: PlacedSlice) -> PlacedSlice:
        return replace(placed, standby=tuple(replace(model, variant="b") for model in placed.models))

    plan = replace(
        small.plan,
        graphs={"app": replace(small.plan.graphs["app"], capacity_rps=10.0, standby=Standby(30.0, 0.9))},
        gpus=tuple(replace(gpu, layout=tuple(map(beside, gpu.layout))) for gpu in small.plan.gpus),
    )
    arrivals: Mapping[str, Array] = {"app": np.array([8.0] * 20 + [30.0] * 3 + [8.0] * 20, np.float64)}
    asked = replace(small.wanted, profiles={"app": ProfileTable([*slow, *fast])})
    found = simulate_operation(asked, arrivals, lambda _: (plan, made), durations=DURATIONS)
    assert found.violations["app"].nonzero()[0].tolist() == [20]
    # The excess of 20 requests a second is beyond noise after 0.7 s. Some requests wait meanwhile.
    wait_s = WAIT_SHARE * asked.graphs["app"].slo.latency_ms / 1000
    assert found.violations["app"][20] == pytest.approx(0.7 * 20 - wait_s * 10)
    carried = found.capacity_rps["app"][[19, 20, 21, 42]]
    assert carried.tolist() == pytest.approx([10.0, 0.7 * 10 + 0.3 * 30, 30.0, 10.0])
    assert found.accuracy["app"][[19, 20, 42]].tolist() == [
        small.plan.graphs["app"].accuracy,
        0.9,
        small.plan.graphs["app"].accuracy,
    ]


def test_a_plan_that_is_not_found_is_a_failed_change() -> None:
    found = run([8.0] * 10 + [18.0] * 15, SMALL, LARGE, fails_at=2)
    assert "no room" in found.changes[0].failure
    assert found.capacity_rps["app"][-1] == 10.0


def test_a_first_plan_that_is_not_found_is_an_error() -> None:
    with pytest.raises(InfeasibleError, match="no room"):
        run([8.0], SMALL, fails_at=1)


def test_equal_runs_are_equal() -> None:
    one, two = (run([8.0] * 20 + [18.0] * 60, SMALL, LARGE) for _ in range(2))
    assert one.changes == two.changes
    assert (one.violations["app"] == two.violations["app"]).all()
