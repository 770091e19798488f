import json

import pytest

from jigsaw_triton.compiler.bundle import RouteEntry
from jigsaw_triton.compiler.route import route, route_json
from jigsaw_triton.errors import InputError
from jigsaw_triton.planner.plan import PlacedModel
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
        RouteEntry("n-0-1g-2", "chain.t0.v0.g3", 4, 1),
        RouteEntry("n-0-1g-1", "chain.t0.v0.g3", 2, 3),
        RouteEntry("n-0-1g-0", "chain.t0.v1.g3", 8, 1),
        RouteEntry("n-0-1g-2", "chain.t0.v1.g3", 4, 1),
    )


def test_a_task_without_a_replica_is_refused() -> None:
    with pytest.raises(InputError, match=r"chain\.t0: the plan gives this task no slice; plan again"):
        route("chain", chain().tasks["t0"], {})


def test_a_route_file_is_what_dispatchers_read() -> None:
    text = route_json([RouteEntry("n-0-1g-0", "chain.t0.v0.g3", 4, 2)])
    assert json.loads(text) == {
        "version": 1,
        "workers": [{"worker": "n-0-1g-0", "model": "chain.t0.v0.g3", "batch": 4, "slots": 2}],
    }
