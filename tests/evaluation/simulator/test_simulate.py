import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from jigsaw_triton.evaluation.simulator.arrivals import poisson
from jigsaw_triton.evaluation.simulator.simulate import Rows, Simulated, simulate, stations
from jigsaw_triton.evaluation.simulator.station import Servers
from jigsaw_triton.graph.model import GraphInput, Slo, TaskGraph, When
from jigsaw_triton.planner.search.solve import make_plan
from jigsaw_triton.profiles.service import ServiceTime
from tests.fakes.graphs import (
    VECTORS,
    chain,
    conditional,
    cropping,
    diamond,
    fan_out,
    graph,
    nested,
    ref,
    task,
    variants,
)
from tests.fakes.problems import docread_problem


def constant(ms: float, *, instances: int = 1000, variant: str = "v0") -> Servers:
    """Returns instances with a constant service time; by default so many that no item ever waits."""
    return Servers(variant, instances, ServiceTime((1,), (ms,), 1.0, 1.0))


def run(
    g: TaskGraph, ms: Mapping[str, float], *, requests: int = 2000, rate_rps: float = 5.0, rows: Rows = "fixed"
) -> Simulated:
    """Simulates Poisson arrivals at tasks with constant service times and spare instances."""
    arrivals_s = poisson(rate_rps, requests, np.random.default_rng(1))
    return simulate(g, {name: (constant(ms[name]),) for name in g.tasks}, arrivals_s, rows=rows)


def test_latencies_add_up_along_a_chain() -> None:
    found = run(chain(3), {"t0": 10, "t1": 20, "t2": 5})
    assert found.latency_ms == pytest.approx(np.full(2000, 35.0))
    assert found.tasks["t1"].latency_ms == pytest.approx(np.full(2000, 20.0))


def test_a_join_waits_for_the_slower_branch() -> None:
    assert run(diamond(), {"a": 10, "b": 30, "c": 5, "d": 1}).latency_ms == pytest.approx(np.full(2000, 41.0))


def test_a_python_step_takes_its_time_and_makes_rows() -> None:
    found = run(cropping(rows=3.0, latency_ms=5.0), {"detect": 10, "classify": 20})
    assert found.latency_ms == pytest.approx(np.full(2000, 35.0))
    assert (found.tasks["classify"].calls == 3).all()


def test_a_skipped_task_takes_no_time() -> None:
    found = run(conditional(probability=0.25), {"screen": 10, "inspect": 20})
    ran = found.tasks["inspect"].calls == 1
    assert ran.mean() == pytest.approx(0.25, abs=0.03)
    assert found.latency_ms[ran] == pytest.approx(30.0)
    assert found.latency_ms[~ran] == pytest.approx(10.0)


def test_conditions_on_one_tensor_hold_together_or_exclude_each_other() -> None:
    g = conditional(probability=0.25)
    score = ref("screen.SCORE")
    same = task("same", {"X": "screen.Y"}, when=When(score, above=0.9, below=None, probability=0.25))
    other = task("other", {"X": "screen.Y"}, when=When(score, above=None, below=0.5, probability=0.75))
    g = replace(g, tasks={**g.tasks, "same": same, "other": other})
    calls = {name: t.calls for name, t in run(g, dict.fromkeys(g.tasks, 10.0)).tasks.items()}
    assert (calls["same"] == calls["inspect"]).all()
    assert (calls["other"] + calls["inspect"] == 1).all()


@pytest.mark.parametrize("rows", ["fixed", "poisson"])
def test_the_number_of_rows_follows_the_variant_s_yield(rows: Rows) -> None:
    calls = run(fan_out(rows=2.3), {"detect": 10, "classify": 10}, requests=20_000, rows=rows).tasks["classify"].calls
    assert calls.mean() == pytest.approx(2.3, rel=0.03)
    assert set(np.unique(calls)) == {2, 3} if rows == "fixed" else calls.var() == pytest.approx(2.3, rel=0.1)


@pytest.mark.parametrize("rows", ["fixed", "poisson"])
def test_nested_fan_out_multiplies(rows: Rows) -> None:
    g = nested(lines=3.0, words=2.5)
    found = run(g, dict.fromkeys(g.tasks, 10.0), requests=20_000, rows=rows)
    lines, words = found.tasks["split"].calls, found.tasks["read"].calls
    assert words.mean() == pytest.approx(7.5, rel=0.03)
    assert (words[lines == 0] == 0).all()
    if rows == "fixed":
        assert set(np.unique(words)) == {6, 7, 8, 9}


def test_each_variant_has_its_own_yield() -> None:
    g = fan_out(variant_count=2)
    first, second = g.tasks["detect"].variants
    detect = replace(
        g.tasks["detect"], variants=(replace(first, yields={"CROPS": 4.0}), replace(second, yields={"CROPS": 1.0}))
    )
    g = replace(g, tasks={**g.tasks, "detect": detect})
    servers = {
        "detect": (constant(10, instances=1, variant="v0"), constant(10, instances=1, variant="v1")),
        "classify": (constant(1),),
    }
    found = simulate(g, servers, poisson(100, 4000, np.random.default_rng(1)), rows="fixed")
    calls = found.tasks["classify"].calls
    assert set(np.unique(calls)) == {1, 4}
    assert (calls == 4).mean() == pytest.approx(found.tasks["detect"].shares["v0"])
    assert found.tasks["detect"].shares["v0"] == pytest.approx(0.5, abs=0.1)


def test_rows_of_a_graph_input_pass_through_tasks_that_iterate_over_them() -> None:
    g = graph(
        [
            task("a", {"X": "inputs.XS"}, for_each="inputs.XS"),
            task("b", {"X": "a.Y"}, of=variants(), for_each="a.Y"),
        ],
        {"Y": "b.Y"},
        inputs={"XS": GraphInput(VECTORS, rows=3.0)},
    )
    found = run(g, {"a": 10, "b": 10}, rows="poisson")
    assert found.tasks["a"].calls.mean() == pytest.approx(3.0, rel=0.05)
    assert (found.tasks["a"].calls == found.tasks["b"].calls).all()
    some = found.tasks["a"].calls > 0
    assert found.latency_ms[some] == pytest.approx(20.0)
    assert found.latency_ms[~some] == pytest.approx(0.0)


def test_utilisation_batch_size_and_attainment() -> None:
    arrivals_s = np.arange(100) / 100
    found = simulate(chain(1), {"t0": (constant(5, instances=1),)}, arrivals_s)
    assert found.tasks["t0"].utilisation == pytest.approx(0.5, rel=0.02)
    assert found.tasks["t0"].batch == 1
    assert found.percentile_ms(99) == pytest.approx(5.0)
    assert (found.attainment(5.1), found.attainment(4.9)) == (1.0, 0.0)


def test_results_depend_on_the_seed_only() -> None:
    problem = docread_problem(40)
    plan, g = make_plan(problem), problem.workloads[0].graph
    servers = stations(g.name, plan.gpus, problem.profiles[g.name])
    arrivals_s = poisson(40, 3000, np.random.default_rng(1))
    first, again, other = (simulate(g, servers, arrivals_s, seed=seed).latency_ms for seed in (1, 1, 2))
    assert (first == again).all()
    assert (first != other).any()


def test_stations_match_the_plan() -> None:
    problem = docread_problem(60)
    plan, g = make_plan(problem), problem.workloads[0].graph
    servers = stations(g.name, plan.gpus, problem.profiles[g.name])
    assert set(servers) == set(g.tasks)
    for name, planned in plan.graphs[g.name].tasks.items():
        assert sum(s.instances for s in servers[name]) == sum(s.instances * s.count for s in planned.segments)
        assert {s.variant for s in servers[name]} == {s.variant for s in planned.segments}


def test_a_task_without_rows_is_never_called() -> None:
    found = run(fan_out(rows=0.0), {"detect": 10, "classify": 10})
    assert found.tasks["classify"].calls.sum() == 0
    assert found.latency_ms == pytest.approx(10.0)


def test_a_request_that_is_bound_to_be_late_is_dropped_before_its_first_task() -> None:
    """Both tasks take 100 ms; 310 ms leave time for one request to wait, and not for two."""
    g = chain(2, slo=Slo(310.0))
    one = {name: (constant(100, instances=1),) for name in g.tasks}
    found = simulate(g, one, np.zeros(4), drops=True)
    assert found.latency_ms.tolist() == pytest.approx([200, 300, math.inf, math.inf])
    assert found.tasks["t1"].calls.tolist() == [1, 1, 0, 0]
    assert found.attainment(310.0) == 0.5
    assert simulate(g, one, np.zeros(4)).latency_ms.tolist() == pytest.approx([200, 300, 400, 500])
