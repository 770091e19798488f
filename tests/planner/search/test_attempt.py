from typing import Any, cast

from jigsaw_triton.planner.candidates.configurations import available
from jigsaw_triton.planner.domain.problem import Options
from jigsaw_triton.planner.search.attempt import Attempt
from jigsaw_triton.planner.search.choices import every
from jigsaw_triton.profiles.table import ProfileTable
from tests.fakes.graphs import chain
from tests.fakes.layouts import plan_of
from tests.fakes.problems import problem, row

GRAPH = chain(2, variant_count=2)
TABLE = ProfileTable(
    row(task, variant, batch=batch, p95_ms=5.0, rps=200.0)
    for task in GRAPH.tasks
    for variant in ("v0", "v1")
    for batch in (1, 2)
)


def test_the_variants_of_a_plan_are_those_of_its_fused_chains_too() -> None:
    options = Options(share=True, latency_model="2p95").checked()
    of = problem(GRAPH, TABLE, demand_rps=1.0, gpus=1).prepared(options)
    found = available(GRAPH, TABLE, of.boards, options)
    attempt = Attempt(of, options, {GRAPH.name: found}, cast(Any, None))

    def fused_variants(one: Attempt) -> set[str]:
        fused = one.fused()
        assert fused is not None
        return {c.variant for c in every(fused.configurations)}

    assert fused_variants(attempt) == {"v0~v0", "v0~v1", "v1~v0", "v1~v1"}
    like = attempt.like(plan_of({0: {"1g@0": "t0.v0", "1g@1": "t1.v1"}}))
    assert {(c.task, c.variant) for c in every(like.configurations)} == {("t0", "v0"), ("t1", "v1")}
    assert fused_variants(like) == {"v0~v1"}
