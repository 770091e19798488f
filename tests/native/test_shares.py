"""Shares: the part of a task's items that each variant receives."""

from collections import Counter
from typing import Any

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

    def entry(name: str, variant: str) -> dict[str, Any]:
        return specs.entry(name, batch=batch, variant=variant, share=shares[variant])

    for name in (*shares, "another"):
        counted(name)
    entries = [entry(name, name) for name in shares]
    specs.write_route(bench.run_dir, *entries)
    front = bench.front()
    for half in (0, 1):
        if half:
            # The counts go on when a route with the same shares replaces this one.
            specs.write_route(bench.run_dir, entry("another", "u"), *entries)
        for request in front.send_many(200, {"X": column(1)}):
            request.wait()
    taken["u"] += taken["another"]
    for name, share in shares.items():
        assert abs(taken[name] - share * 400) <= 2 * batch + 1


def test_the_others_take_the_share_of_a_variant_without_workers(bench: Bench) -> None:
    bench.worker("u")
    entries = [specs.entry(name, variant=name, share=0.5) for name in ("u", "gone")]
    specs.write_route(bench.run_dir, *entries)
    front = bench.front()
    for request in front.send_many(50, {"X": column(1)}):
        assert request.wait().failure is None
