from base64 import b64decode
from dataclasses import replace

from jigsaw_triton.console.emulated import EMULATED_MIG, EMULATED_VARIANTS
from jigsaw_triton.console.reports.plan import plan_page
from jigsaw_triton.planner.domain.plan import PlanCost, PlanSurvival, Standby
from tests.console.test_status import ONE
from tests.controller.worlds import VARIANTS, profiled
from tests.fakes.pages import Page


def test_a_plan_shows_its_boards_its_graphs_and_their_budgets() -> None:
    made = profiled(ONE)
    found = Page(plan_page(made.plan, made.wanted.graphs, made.wanted.cluster))
    found.check_alone()
    assert found.ids == ["gpus", "graph.app"]
    boards, graph = (b64decode(source.partition(",")[2]).decode() for source in found.values("src"))
    assert "n/0" in boards and "t0" in boards
    assert "app: p99 within 1000 ms" in graph
    assert "p99 within 1000 ms, accuracy at least 0.9 for each request" in found.text
    assert f"2 of {made.plan.slices_total}, on 1 GPUs" in found.text
    for name, task in made.plan.graphs["app"].tasks.items():
        assert name in found.text
        for segment in task.segments:
            assert segment.variant in found.text


def test_what_is_emulated_comes_first() -> None:
    made = profiled(ONE)
    wanted = made.wanted
    real = {
        name: replace(t, variants=tuple(replace(v, template="onnxruntime") for v in VARIANTS))
        for name, t in wanted.graphs["app"].tasks.items()
    }
    graphs = {"app": replace(wanted.graphs["app"], tasks=real)}
    emulated = replace(wanted.cluster, driver="emulated")
    assert EMULATED_VARIANTS in Page(plan_page(made.plan, wanted.graphs, wanted.cluster)).text
    assert EMULATED_MIG in Page(plan_page(made.plan, graphs, emulated)).text
    assert "Emulated" not in Page(plan_page(made.plan, graphs, replace(wanted.cluster, driver="nvml"))).text


def test_costs_losses_and_standby_variants_are_shown() -> None:
    made = profiled(ONE)
    part = replace(made.plan.graphs["app"], standby=Standby(30.0, 0.91))
    plan = replace(
        made.plan,
        graphs={"app": part},
        cost=PlanCost(1.5, 4.0, "given", "per hour"),
        survival=PlanSurvival("rack", 0.5, {"app": 4.0}),
    )
    text = Page(plan_page(plan, made.wanted.graphs, made.wanted.cluster)).text
    assert "1.50 per hour of 4.00 per hour" in text
    assert "the loss of any rack, with 50.0% of the demand" in text
    assert "lighter variants carry 30 requests/s, accuracy 0.910" in text
