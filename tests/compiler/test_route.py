import json
from dataclasses import asdict, replace
from typing import Literal

import pytest

from jigsaw_triton.compiler.bundle import ModelFolder, Place, RouteEntry, Worker, WorkerModel
from jigsaw_triton.compiler.compile import compile_plan
from jigsaw_triton.compiler.route import route, route_json
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.planner.domain.plan import PlacedModel, Segment, TaskPlan
from jigsaw_triton.profiles.table import ProfileTable
from tests.compiler.samples import TEMPLATES, cluster, compiled, every, identity, plan, profile, spec_of, together
from tests.fakes.graphs import chain, fan_out, ref, task
from tests.native.parts import parse_route


def test_a_route_lists_all_replicas_with_the_most_accurate_first() -> None:
    of = chain(1, variant_count=2)
    placed = {
        (0, 0, "1g"): [PlacedModel("chain", "t0", "v1", 1, 8)],
        (0, 1, "1g"): [PlacedModel("chain", "t0", "v0", 3, 2)],
        (0, 2, "1g"): [PlacedModel("chain", "t0", "v0", 1, 4), PlacedModel("chain", "t0", "v1", 1, 4)],
    }
    (made,) = compiled(of, plan([of], placed)).graphs["chain"].tasks
    assert [(e.worker, e.model, e.batch, e.slots, e.variant, e.tokens) for e in made.route] == [
        ("n-0-1g-2", "chain.t0.v0.g3", 4, 1, "v0", 1),
        ("n-0-1g-1", "chain.t0.v0.g3", 2, 3, "v0", 1),
        ("n-0-1g-0", "chain.t0.v1.g3", 8, 1, "v1", 1),
        ("n-0-1g-2", "chain.t0.v1.g3", 4, 1, "v1", 1),
    ]
    assert made.route[1].service_ms == {"1": 11.0, "2": 12.0}


def test_a_task_without_a_replica_is_refused() -> None:
    with pytest.raises(InputError, match=r"chain\.t0: the plan gives this task no slice; plan again"):
        route(chain(), chain().tasks["t0"], TaskPlan(1.0, 1.0, ()), {}, {}, one_by_one=False)


def worker(number: int, variant: str) -> Worker:
    name = f"n-0-1g-{number}"
    model = WorkerModel(ModelFolder(f"chain.t0.{variant}.g3", {}), "chain", "t0", variant, 1, 4, "")
    return Worker(name, (model,), Place(GpuId("n", 0), "A100-80GB", Placement(number, "1g")))


@pytest.mark.parametrize(("accuracy_mode", "shares"), [("mean", (0.75, 0.75, 0.25)), ("floor", (0.0, 0.0, 0.0))])
def test_routes_have_shares_only_for_a_mean_accuracy(
    accuracy_mode: Literal["mean", "floor"], shares: tuple[float, ...]
) -> None:
    base = chain(1, variant_count=2)
    of = replace(base, slo=replace(base.slo, accuracy_mode=accuracy_mode))
    segments = tuple(
        Segment(variant, "1g", 1, 4, count, share) for variant, count, share in (("v0", 2, 0.75), ("v1", 1, 0.25))
    )
    workers = {w.name: w for w in (worker(0, "v0"), worker(1, "v0"), worker(2, "v1"))}
    found = route(of, of.tasks["t0"], TaskPlan(1.0, 1.0, segments), workers, {}, one_by_one=False)
    assert tuple(entry.share for entry in found) == shares


def test_under_mps_times_come_from_the_profile_of_all_processes_together() -> None:
    of = chain(1)
    placed = {(0, 0, "1g"): [PlacedModel("chain", "t0", "v0", 2, 4)]}
    slow = replace(next(iter(profile(of).rows(task="t0"))), latency_p50_ms=70.0)
    slow = replace(slow, key=replace(slow.key, instances=2), latency_p95_ms=80.0, latency_p99_ms=300.0)
    bundle = compile_plan(
        plan([of], placed),
        {"chain": of},
        replace(cluster(), processes="mps"),
        {"chain": ProfileTable([slow, replace(slow, key=replace(slow.key, batch=4))])},
        generation=1,
        templates=TEMPLATES,
        backends=frozenset({"python"}),
        identity=identity,
    )
    first, second = bundle.graphs["chain"].tasks[0].route
    assert (first.slots, first.service_ms, first.deadline_ms) == (1, {"1": 70.0, "4": 70.0}, {"1": 3000.0, "4": 3000.0})
    assert replace(second, worker=first.worker) == first


def test_the_service_times_of_an_emulated_model_are_those_that_it_emulates() -> None:
    bundle = compiled(fan_out(), every(fan_out(), instances=1))
    detect, classify = bundle.graphs["fan_out"].tasks
    (model,) = bundle.workers["n-0-1g-1"].models
    medians_ms = spec_of(model.folder)["emulation"]["medians_ms"]
    assert classify.route[0].service_ms == {str(size): medians_ms[size] for size in (1, 2, 4)}
    assert medians_ms[1:] == [11.0, 12.0, 13.0, 14.0]
    assert (detect.route[0].pads, classify.route[0].pads) == (True, False)
    assert detect.route[0].service_ms == classify.route[0].service_ms


def test_entries_have_the_slo_of_their_graph() -> None:
    of = chain(2)
    made = compiled(replace(of, slo=replace(of.slo, latency_ms=750.0))).graphs["chain"].tasks
    assert [entry.slo_ms for task in made for entry in task.route] == [750.0, 750.0]


def test_a_chain_that_yields_rows_takes_items_one_by_one() -> None:
    base = fan_out()
    detect = replace(base.tasks["detect"], inputs={"X": ref("crop.Y")})
    tasks = {"crop": task("crop", {"X": "inputs.X"}), "detect": detect, "classify": base.tasks["classify"]}
    of = replace(base, tasks=tasks)
    item = compiled(of, together(of, ["crop", "detect"], ["classify"])).graphs["fan_out"]
    assert item.apart is not None
    for made, service_ms in ((item.tasks[0], {"1": 22.0}), (item.apart.tasks[1], {"1": 11.0})):
        (entry,) = made.route
        assert (entry.batch, entry.pads, entry.service_ms) == (4, False, service_ms)


def test_fronts_can_read_route_files() -> None:
    entry = RouteEntry("n-0-1g-0", "chain.t0.v0.g3", 4, 2, "v0", 0.5, 1, True, {"4": 20.5}, {"4": 2000.0})
    entry = replace(entry, slo_ms=750.0, generations=(3, 4), weights=(0.9, 0.1), closed=True)
    text = route_json([entry])
    written = {**asdict(entry), "generations": [3, 4], "weights": [0.9, 0.1]}
    assert json.loads(text) == {"version": 3, "workers": [written]}
    assert parse_route(text) == {"entries": 1}
    (made,) = compiled(chain(1)).graphs["chain"].tasks
    assert parse_route(route_json(made.route)) == {"entries": 1}
