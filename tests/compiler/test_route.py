import json
from dataclasses import asdict, replace
from typing import Literal

import pytest

from jigsaw_triton.compiler.bundle import ModelFolder, RouteEntry, Worker, WorkerModel
from jigsaw_triton.compiler.route import route, route_json
from jigsaw_triton.errors import InputError
from jigsaw_triton.gpus.model import GpuId, Placement
from jigsaw_triton.planner.plan import PlacedModel, Segment, TaskPlan
from jigsaw_triton.runtime import route as runtime
from jigsaw_triton.runtime.route import parse_route
from tests.compiler.samples import compiled, plan
from tests.fakes.graphs import chain


def test_a_route_has_every_replica_the_most_accurate_first() -> None:
    of = chain(1, variant_count=2)
    placed = {
        (0, 0, "1g"): [PlacedModel("chain", "t0", "v1", 1, 8)],
        (0, 1, "1g"): [PlacedModel("chain", "t0", "v0", 3, 2)],
        (0, 2, "1g"): [PlacedModel("chain", "t0", "v0", 1, 4), PlacedModel("chain", "t0", "v1", 1, 4)],
    }
    (dispatcher,) = compiled(of, plan([of], placed)).graphs["chain"].dispatchers
    assert dispatcher.route == (
        RouteEntry("n-0-1g-2", "chain.t0.v0.g3", 4, 1, "v0"),
        RouteEntry("n-0-1g-1", "chain.t0.v0.g3", 2, 3, "v0"),
        RouteEntry("n-0-1g-0", "chain.t0.v1.g3", 8, 1, "v1"),
        RouteEntry("n-0-1g-2", "chain.t0.v1.g3", 4, 1, "v1"),
    )


def test_a_task_without_a_replica_is_refused() -> None:
    with pytest.raises(InputError, match=r"chain\.t0: the plan gives this task no slice; plan again"):
        route(chain(), chain().tasks["t0"], TaskPlan(1.0, 1.0, ()), {})


def worker(number: int, variant: str) -> Worker:
    name = f"n-0-1g-{number}"
    model = WorkerModel(ModelFolder(f"chain.t0.{variant}.g3", {}), "chain", "t0", variant, 1, 4, "")
    return Worker(name, GpuId("n", 0), "A100-80GB", Placement(number, "1g"), None, (model,))


@pytest.mark.parametrize(("accuracy_mode", "shares"), [("mean", (0.75, 0.75, 0.25)), ("floor", (0.0, 0.0, 0.0))])
def test_shares_are_held_where_the_accuracy_is_a_mean(
    accuracy_mode: Literal["mean", "floor"], shares: tuple[float, ...]
) -> None:
    base = chain(1, variant_count=2)
    of = replace(base, slo=replace(base.slo, accuracy_mode=accuracy_mode))
    segments = tuple(
        Segment(variant, "1g", 1, 4, count, share) for variant, count, share in (("v0", 2, 0.75), ("v1", 1, 0.25))
    )
    workers = {w.name: w for w in (worker(0, "v0"), worker(1, "v0"), worker(2, "v1"))}
    found = route(of, of.tasks["t0"], TaskPlan(1.0, 1.0, segments), workers)
    assert tuple(entry.share for entry in found) == shares
    assert parse_route(route_json(found).decode()) == tuple(runtime.RouteEntry(**asdict(entry)) for entry in found)


def test_more_variants_than_can_be_counted_are_refused() -> None:
    of = chain(1, variant_count=20)
    workers = {w.name: w for w in (worker(number, f"v{number}") for number in range(17))}
    with pytest.raises(InputError, match=r"chain\.t0: the plan uses 17 variants of this task at once, and 16 can be"):
        route(of, of.tasks["t0"], TaskPlan(1.0, 1.0, ()), workers)


def test_a_route_file_is_what_dispatchers_read() -> None:
    text = route_json([RouteEntry("n-0-1g-0", "chain.t0.v0.g3", 4, 2, "v0", 0.5)])
    entry = {"worker": "n-0-1g-0", "model": "chain.t0.v0.g3", "batch": 4, "slots": 2, "variant": "v0", "share": 0.5}
    assert json.loads(text) == {"version": 1, "workers": [entry]}
