import json
import random
from dataclasses import asdict
from typing import Any

import pytest

from benchmarks import exhaustive, harness, problems
from benchmarks.__main__ import page
from benchmarks.controller import changes
from benchmarks.controller.changes import Answer, Round
from benchmarks.harness import Figure, figure, table
from jigsaw_triton.errors import ServerError
from jigsaw_triton.graph.model import Slo
from jigsaw_triton.planner.domain.problem import LatencyModel, Options
from tests.fakes.graphs import chain
from tests.fakes.problems import problem, row


@pytest.mark.parametrize(
    ("goals", "goal", "met"),
    [
        ({"at_least": 0.85}, ">= 0.85", True),
        ({"at_least": 0.8502}, ">= 0.8502", False),
        ({"at_most": 0.85}, "<= 0.85", False),
        ({"at_least": 0.8, "at_most": 0.85}, "0.8 to 0.85", False),
        ({"at_least": 0.85, "at_most": 0.9}, "0.85 to 0.9", True),
        ({}, None, None),
    ],
)
def test_a_goal_is_compared_with_the_value_before_rounding(
    goals: dict[str, float], goal: str | None, met: bool | None
) -> None:
    found = figure("a.b", 0.8501, "ratio", "note", **goals)
    assert (found.value, found.goal, found.met) == (0.85, goal, met)


def test_requests_that_overlap_an_update_count_as_sent_during_it() -> None:
    answers = [
        Answer(0.0, 0.9, ""),
        Answer(0.5, 1.5, "lost"),
        Answer(1.2, 1.3, ""),
        Answer(1.9, 9.0, ""),
        Answer(2.1, 3, ""),
    ]
    sent = changes._sent(answers, 1.0, 2.0)
    assert changes._counts(sent) == (3, 1)


def test_failed_requests_of_all_rounds_add_up() -> None:
    rounds = [
        Round(1.0, 2.0, 100, 1, 0.5, 10, 0),
        Round(3.0, 1.0, 100, 2, 0.7, 10, 0),
        Round(9.0, 9.0, 100, 0, 0.1, 10, 0),
    ]
    found = {f.id: f for f in changes.figures(rounds)}
    assert found["controller.deploy_s"].value == 3.0
    assert (found["controller.update_failed"].value, found["controller.update_failed"].met) == (3, False)
    assert (found["controller.kill9_failed"].value, found["controller.kill9_failed"].met) == (0, True)


def test_made_up_problems_are_reproducible_and_have_their_stated_size() -> None:
    one, other = (problems.fan_out_problem(random.Random(7), 4) for _ in range(2))
    rows = one.profiles["bench"]
    assert rows.rows() == other.profiles["bench"].rows()
    assert {len(rows.rows(task=task)) for task in one.workloads[0].graph.tasks} == {105}


@pytest.mark.parametrize(("model", "usable"), [("2p95", 0.8), ("queue", 0.92)])
@pytest.mark.parametrize(("rps", "slices"), [(100, 1), (350, 4), (660, 7), (720, None)])
def test_exhaustive_search_finds_the_fewest_slices(
    rps: float, slices: int | None, model: LatencyModel, usable: float
) -> None:
    """Seven 1g serve 700 requests/s. A 3g serves more per slice, but is too slow for the SLO."""
    rows = [row("t0", "v0", rps=100.0), row("t0", "v0", slice_="3g", batch=500, rps=500.0, p95_ms=1000.0)]
    asked = problem(chain(1, slo=Slo(400.0, accuracy=0.5)), rows, demand_rps=usable * rps)
    assert exhaustive.least_slices(asked, Options(latency_model=model)) == slices


def test_trees_and_many_graphs_have_their_stated_size() -> None:
    tree = problems.chain_or_tree(random.Random(1), 8, tree=True, gpus=3).workloads[0].graph
    assert [sorted(task.dependencies()) for task in tree.tasks.values()][1:4] == [["t0"], ["t0"], ["t1"]]
    assert set(tree.outputs) == {"Y4", "Y5", "Y6", "Y7"}
    many = problems.many_graphs(random.Random(1), 5, 2)
    assert (len(many.workloads), len(many.profiles), len(many.cluster.gpus)) == (5, 5, 2)


def measured(name: str, figures: list[Figure], load: float = 0.1) -> dict[str, Any]:
    machine = {**harness.machine(), "load_average": load}
    return {"name": name, "machine": machine, "figures": [asdict(f) for f in figures]}


def test_the_page_has_every_figure_and_says_if_the_machine_was_shared() -> None:
    one, other = figure("a.b", 1.5, "s", "first"), figure("c.d", 2.5, "s", "second", at_most=2, baseline=3)
    reports = [measured("a", [one]), measured("c", [other])]
    assert "| c.d | 2.5 | s | <= 2 | no | 3 | second |" in page(reports)
    assert "## a" in page(reports)
    assert "shared" not in page(reports)
    assert "shared" in page([*reports, measured("e", [one], load=5.0)])


def test_a_figure_may_be_infinite() -> None:
    assert figure("a.b", float("inf"), "s", "too late", at_most=2).met is False
    assert "| inf | s |" in page([measured("a", [figure("a.b", float("inf"), "s", "too late", at_most=2)])])


def test_sections_of_other_benchmarks_stay_on_the_page() -> None:
    first = page([measured(name, [figure(f"{name}.x", 1.5, "s", "old")]) for name in ("planner", "mig")])
    again = page([measured("mig", [figure("mig.x", 2.5, "s", "new")])], first)
    assert again.index("| planner.x | 1.5 |") < again.index("| mig.x | 2.5 |")
    assert again.count("## planner") == again.count("## mig") == 1
    assert "| mig.x | 1.5 |" not in again
    assert page([], again) == again


def test_a_part_of_a_benchmark_has_a_section_until_the_whole_is_measured() -> None:
    first = page([measured(name, [figure(f"{name}.x", 1.5, "s", "old")]) for name in ("controller", "mig")])
    part = page([measured("controller:kills", [figure("controller.y", 2.5, "s", "part")])], first)
    assert part.index("| controller.x |") < part.index("## controller:kills") < part.index("| controller.y |")
    assert part.index("| controller.y |") < part.index("## mig")
    whole = page([measured("controller", [figure("controller.y", 3.5, "s", "whole")])], part)
    assert "controller:kills" not in whole and "## mig" in whole


def test_json_has_the_documented_keys(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["x", "-o", "json"])
    assert harness.main("x", lambda progress: [figure("x.y", 1, "s", "n")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report.keys() == {"name", "machine", "figures"}
    assert report["figures"] == [
        {"id": "x.y", "value": 1.0, "unit": "s", "goal": None, "met": None, "baseline": None, "note": "n"}
    ]


def test_a_benchmark_that_fails_prints_no_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["x", "-o", "json"])

    def fails(progress: harness.Progress) -> list[Figure]:
        raise ServerError("no server", where="gateway")

    assert harness.main("x", fails) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no server" in printed.err


def test_a_table_row_has_a_cell_for_each_column() -> None:
    lines = table([asdict(figure("a.b", 12345.6, "requests", "n", at_least=3))]).splitlines()
    assert {line.count("|") for line in lines} == {8}
    assert "| a.b | 12346 |" in lines[-1]
