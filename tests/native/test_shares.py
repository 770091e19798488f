"""Shares: the part of a task's items that each variant receives."""

from collections import Counter

import pytest

from tests.native import specs
from tests.native.conftest import Bench, column
from tests.native.core import Array
from tests.native.worker import Call


@pytest.mark.parametrize("shares", [{"u": 0.75, "v": 0.25}, {"u": 0.5, "v": 0.3, "x": 0.2}])
@pytest.mark.parametrize("batch", [1, 4])
def test_variants_receive_their_shares(bench: Bench, shares: dict[str, float], batch: int) -> None:
    taken: Counter[str] = Counter()

    def counted(name: str) -> None:
        def handler(call: Call) -> dict[str, Array]:
            taken[name] += call.items
            return {"Y": call.inputs["X"]}

        bench.worker(name, handler)

    for name in shares:
        counted(name)
    entries = [specs.entry(name, batch=batch, variant=name, share=share) for name, share in shares.items()]
    specs.write_route(bench.run_dir, *entries)
    front = bench.front()
    count = 400
    for request in front.send_many(count, {"X": column(1)}):
        request.wait()
    for name, share in shares.items():
        assert abs(taken[name] - share * count) <= 2 * batch + 1


def test_the_others_take_the_share_of_a_variant_without_workers(bench: Bench) -> None:
    bench.worker("u")
    entries = [specs.entry(name, variant=name, share=0.5) for name in ("u", "gone")]
    specs.write_route(bench.run_dir, *entries)
    front = bench.front()
    for request in front.send_many(50, {"X": column(1)}):
        assert request.wait().failure is None
