"""`plan --diff`, `plan --from`, and the table of a transition."""

import json
from pathlib import Path

import pytest

from jigsaw_triton.cli.io.table import Table
from jigsaw_triton.cli.views.transition import transition_view
from jigsaw_triton.planner.transition.transition import transition
from tests.cli.conftest import Run
from tests.fakes.graphs import chain
from tests.fakes.layouts import Places, plan_of
from tests.fakes.problems import SPEED, TWO_P95, problem, row

GPUS = ("--gpus", "2xcpu")


def shown(before: Places, after: Places, demand: float) -> tuple[list[str], str]:
    """Rows of the table, and the sentence below it."""
    profiles = [row(t, v, slice_=s, rps=12.5 * SPEED[s]) for t in ("t0", "t1") for v in ("v0", "v1") for s in SPEED]
    running, plan = plan_of(before, demand_rps=demand), plan_of(after, demand_rps=demand)
    asked = problem(
        chain(2, variant_count=2), profiles, demand_rps=demand, gpus=max(*before, *after) + 1, running=running
    )
    *_, table, sentence = transition_view(transition(asked, plan, TWO_P95), plan)
    assert isinstance(table, Table)
    return table.plain().splitlines()[2:], str(sentence)


def test_steps_are_in_order_with_time_and_capacity() -> None:
    before = {0: {"1g@0": "t0.v0", "1g@1": "t1.v0", "1g@2": "t0.v0"}}
    after = {0: {"1g@0": "t0.v1", "1g@1": "t1.v0"}, 1: {"2g@0": "t1.v0", "2g@2": "t1.v0"}}
    rows, sentence = shown(before, after, 10)
    assert [" ".join(line.split()) for line in rows] == [
        "1 variant ~ t0 v0 1x b1 -> t0 v1 1x b1 a/0 1g@0 1.05 10 10",
        "2 add + t1 v0 1x b1 a/1 2g@0 and 1 more 2.75 10 20",
        "3 shares chain 0.05 20 10",
        "4 remove - t0 v0 1x b1 a/0 1g@2 1.25 10 10",
    ]
    assert sentence == "expected to take 5.1 s in total; the capacity covers the demand throughout"


def test_missing_capacity_is_printed() -> None:
    _, sentence = shown({0: {"4g@0": "t0.v0", "3g@4": "t1.v0"}}, {0: {"3g@0": "t0.v0", "3g@4": "t1.v0"}}, 20)
    assert "chain lacks capacity for up to 20 requests/s for 4 s, 80 requests in total" in sentence


def test_stand_ins_are_marked() -> None:
    rows, _ = shown({0: {"1g@0": "t0.v0", "1g@3": "t1.v0"}}, {0: {"2g@0": "t0.v0", "1g@3": "t1.v0"}}, 10)
    assert ["stand-in" in line for line in rows] == [True, False, False, False, True]


def test_growing_capacity_is_printed() -> None:
    places = {0: {"1g@0": "t0.v0", "1g@1": "t1.v0"}}
    _, sentence = shown(places, {0: {**places[0], "1g@2": "t0.v0", "1g@3": "t1.v0"}}, 20)
    assert sentence.endswith("chain has capacity for 10 requests/s before, and for 20 at the end")


def test_the_running_plan_may_come_from_a_file(run: Run, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    assert run("plan", app, *GPUS, "--demand", "20", "-O", file).exit_code == 0
    same = run("plan", app, *GPUS, "--demand", "20", "--from", file, "--diff")
    assert same.exit_code == 0
    assert "no slice and no choice of a model has to change" in same.stdout
    demand = 1.5 * json.loads(file.read_text())["graphs"]["hello"]["capacity_rps"]
    more = run("plan", app, *GPUS, "--demand", str(demand), "--from", file, "--diff", "-o", "json")
    document = json.loads(more.stdout)
    assert document["version"] == 1
    transition_ = document["transition"]
    assert transition_["seconds"] == pytest.approx(sum(step["seconds"] for step in transition_["steps"]))
    assert transition_["steps"][-1]["after_rps"]["hello"] >= demand


def test_from_without_diff_shows_no_transition(run: Run, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    moved = json.loads(run("plan", app, *GPUS, "--demand", "20", "-o", "json").stdout)
    moved["gpus"][0]["index"] = 1
    file.write_text(json.dumps(moved))
    result = run("plan", app, *GPUS, "--demand", "20", "--from", file, "-o", "json")
    document = json.loads(result.stdout)
    assert "transition" not in document
    assert [gpu["index"] for gpu in document["gpus"]] == [1]


def test_a_price_keeps_running_instances(run: Run, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    run("plan", app, *GPUS, "--demand", "20", "-O", file)
    demand = 2.5 * json.loads(file.read_text())["graphs"]["hello"]["capacity_rps"]
    run("plan", app, *GPUS, "--demand", str(demand), "-O", file)
    before = json.loads(file.read_text())
    asked = ("plan", app, *GPUS, "--demand", "20", "--from", file, "-o", "json")
    assert json.loads(run(*asked).stdout)["slices_used"] < before["slices_used"]
    assert json.loads(run(*asked, "--change-price", "10").stdout)["gpus"] == before["gpus"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "--change-price needs a running plan"),
        (("--from", "plan.json", "--explain"), "--explain cannot be used with --change-price"),
        (("--from", "plan.json", "--share"), "changes have no price with --share"),
        (("--from", "plan.json", "--formulation", "paper"), "changes have no price with the paper's formulation"),
    ],
)
def test_options_that_exclude_a_price_are_refused(run: Run, app: Path, given: tuple[str, ...], message: str) -> None:
    run("plan", app, *GPUS, "--demand", "20", "-O", "plan.json")
    result = run("plan", app, *GPUS, "--demand", "20", "--change-price", "1", *given)
    assert result.exit_code == 2
    assert message in result.stderr


def test_the_plan_file_has_no_transition(run: Run, app: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    run("plan", app, *GPUS, "--demand", "20", "-O", one)
    run("plan", app, *GPUS, "--demand", "500", "--from", one, "--diff", "-O", two)
    assert "transition" not in json.loads(two.read_text())


def test_diff_without_a_deployment_is_a_state_error(run: Run, app: Path, tmp_path: Path) -> None:
    result = run("plan", app, *GPUS, "--demand", "20", "--diff", "--state", tmp_path / "state")
    assert (result.exit_code, result.stdout) == (4, "")
    assert "nothing is deployed here" in result.stderr


def test_a_file_without_a_plan_is_refused(run: Run, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text("{}")
    result = run("plan", app, *GPUS, "--demand", "20", "--from", file)
    assert result.exit_code == 2
    assert "this is not a plan" in result.stderr


def test_a_running_plan_with_overlapping_slices_is_refused(run: Run, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    plan = json.loads(run("plan", app, *GPUS, "--demand", "20", "-o", "json").stdout)
    layout = plan["gpus"][0]["layout"]
    layout.append({**layout[0], "slice": "7g", "start": 0})
    file.write_text(json.dumps(plan))
    result = run("plan", app, *GPUS, "--demand", "20", "--from", file, "--diff")
    assert result.exit_code == 2
    assert "overlaps" in result.stderr
