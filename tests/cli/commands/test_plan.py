import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from jigsaw_triton.api import files
from jigsaw_triton.api.files import load_plan
from jigsaw_triton.resources import applications_dir
from tests.cli.conftest import Run

pytestmark = pytest.mark.slow

GPUS = ("--gpus", "2xcpu")


def test_the_plan_is_printed_as_a_table_and_a_drawing(run: Run, app: Path) -> None:
    result = run("plan", app, *GPUS, "--demand", "20")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    header = next(line for line in lines if line.startswith("task "))
    row = lines[lines.index(header) + 1].split()
    assert dict(zip(header.replace("budget ms", "budget_ms").split(), row, strict=True)) == {
        "task": "average",
        "variant": "exact",
        "slice": "1g",
        "instances": "1",
        "batch": row[4],
        "count": "1",
        "share": "100%",
        "calls/s": "20",
        "budget_ms": row[8],
    }
    assert "1 of 14 compute slices on 1 of 2 GPUs" in result.stdout
    assert "proven optimal" in result.stdout
    assert "local/0 │1g" in result.stdout
    assert "■ average" in result.stdout
    assert "MIG on 2 cpu is emulated" in result.stdout
    assert "\x1b" not in result.stdout


def test_json_equals_the_plan_file(run: Run, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    result = run("plan", app, *GPUS, "--demand", "20", "-o", "json", "-O", file)
    assert json.loads(result.stdout) == json.loads(file.read_text())
    assert load_plan(file).graphs["hello"].demand_rps == 20


def test_svg_draws_the_gpus(run: Run, app: Path) -> None:
    drawing = run("plan", app, *GPUS, "--demand", "20", "-o", "svg").stdout
    assert ElementTree.fromstring(drawing).tag.endswith("svg")


@pytest.mark.parametrize("flag", ["--explain", "--diff"])
def test_svg_excludes_explain_and_diff(run: Run, app: Path, flag: str) -> None:
    result = run("plan", app, *GPUS, "--demand", "20", "-o", "svg", flag)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"-o svg draws only the plan; leave out {flag}" in result.stderr


def test_slices_of_this_processor_carry_together_what_its_processors_do(
    run: Run, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "usable_processors", lambda: 2.0)
    file = app / "profiles.csv"
    file.write_text(file.read_text().replace(",assumed", ",measured"))
    result = run("plan", app, *GPUS, "--demand", "500")
    found = re.search(
        r"the slices share 2 processors, of which .* they carry at most hello (\d+) requests/s", result.stdout
    )
    assert found is not None
    result = run("plan", app, *GPUS, "--demand", str(int(found[1]) + 1000))
    assert result.exit_code == 3
    assert "the slices share 2 processors, which carry at most hello" in result.stderr
    assert "these cannot be satisfied together" not in result.stderr
    largest = json.loads(run("capacity", app, *GPUS, "-o", "json").stdout)["largest_rps"]["hello"]
    assert run("plan", app, *GPUS, "--demand", str(0.999 * largest)).exit_code == 0


def test_the_objective_accuracy_uses_idle_slices(run: Run) -> None:
    reader = applications_dir() / "docread"
    fewest, accurate = (
        run("plan", reader, *GPUS, "--demand", "30", "--objective", objective).stdout
        for objective in ("slices", "accuracy")
    )
    slices = [int(found[1]) for text in (fewest, accurate) if (found := re.search(r"(\d+) of 14 compute", text))]
    assert slices[0] < slices[1]
    # The plan with the fewest slices has one variant of each task, and so one accuracy.
    alone = re.search(r"accuracy ([\d.]+), at least", fewest)
    mean = re.search(r"accuracy [\d.]+ \(([\d.]+) on average\)", accurate)
    assert alone is not None and mean is not None
    assert float(alone[1]) < float(mean[1])


def test_a_price_keeps_slices_from_being_used_for_little_accuracy(run: Run) -> None:
    asked = ("plan", applications_dir() / "docread", *GPUS, "--demand", "6", "--objective", "accuracy", "-o", "json")
    plans = [json.loads(run(*asked, *price).stdout) for price in ((), ("--change-price", "1"))]
    assert plans[0]["slices_used"] > plans[1]["slices_used"]


def test_the_mean_accuracy_is_printed_beside_that_of_the_worst_path(run: Run) -> None:
    result = run("plan", applications_dir() / "docread", *GPUS, "--demand", "60", "--objective", "accuracy")
    found = re.search(r"accuracy ([\d.]+) \(([\d.]+) on average\)", result.stdout)
    assert found is not None and float(found[1]) < float(found[2])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--explain",), "--explain compares slices; leave it or --objective accuracy out"),
        (("--share",), "the objective `accuracy` does not work with --share"),
    ],
)
def test_the_objective_accuracy_excludes_sharing_and_explanations(
    flags: tuple[str, ...], message: str, run: Run, app: Path
) -> None:
    result = run("plan", app, *GPUS, "--demand", "20", "--objective", "accuracy", *flags)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_several_graphs_are_planned_together(run: Run, named: Callable[[str], Path]) -> None:
    result = run("plan", named("a"), named("b"), *GPUS, "--demand", "a=5,b=7", "-o", "json")
    assert {name: graph["demand_rps"] for name, graph in json.loads(result.stdout)["graphs"].items()} == {
        "a": 5,
        "b": 7,
    }


def test_an_infeasible_demand_exits_with_3(run: Run, app: Path) -> None:
    result = run("plan", app, *GPUS, "--demand", "1000000")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "no plan is feasible" in result.stderr
    assert "the demand exceeds the cluster" in result.stderr
    assert "hint: " in result.stderr


def test_json_of_an_infeasible_slo_has_the_nearest_feasible_value(run: Run, app: Path) -> None:
    file = app / "graph.yaml"
    file.write_text(file.read_text().replace("latency_ms: 100", "latency_ms: 1"))
    result = run("plan", app, *GPUS, "--demand", "20", "-o", "json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["status"] == "infeasible"
    assert "a latency of 1 ms is out of reach" in document["reasons"][0]
    assert document["reasons"] == document["error"]["reasons"]
    assert document["conflict"] == ["hello.latency_ms"]
    least = document["nearest"].pop("hello.latency_ms")
    assert document["error"]["hint"].startswith("raise latency_ms to ")
    assert set(document["nearest"].values()) == {None}
    file.write_text(file.read_text().replace("latency_ms: 1", f"latency_ms: {least}"))
    assert run("plan", app, *GPUS, "--demand", "20").exit_code == 0


def test_missing_gpus_are_an_input_error(run: Run, app: Path) -> None:
    result = run("plan", app, "--demand", "20")
    assert result.exit_code == 2
    assert "--gpus 2xcpu to try it without a GPU" in result.stderr


def test_a_missing_demand_is_a_usage_error(run: Run, app: Path) -> None:
    result = run("plan", app, *GPUS)
    assert result.exit_code == 2
    assert "Missing option '--demand'" in result.stderr


def test_a_gpu_model_without_profiles_is_infeasible(run: Run, app: Path) -> None:
    result = run("plan", app, "--gpus", "1xA100-80GB", "--driver", "emulated", "--demand", "1")
    assert result.exit_code == 3
    assert "no profile on A100-80GB" in result.stderr


def test_features_and_formulation_are_options(run: Run, app: Path) -> None:
    result = run("plan", app, *GPUS, "--demand", "20", "--features", "st", "--formulation", "paper", "-o", "json")
    plan = json.loads(result.stdout)
    assert (plan["features"], plan["formulation"]) == ("ST", "paper")
    shown = run("plan", app, *GPUS, "--demand", "20", env={"JIGSAW_FEATURES": "AS"}).stdout
    assert "features AS, exact formulation" in shown


@pytest.mark.parametrize(
    ("flags", "model"),
    [
        ((), "queue"),
        (("--latency-model", "queue"), "queue"),
        (("--latency-model", "2p95"), "2p95"),
        (("--formulation", "paper"), "2p95"),
        (("--latency-model", "2p95", "--formulation", "paper"), "2p95"),
    ],
)
def test_the_formulation_sets_the_default_latency_model(
    flags: tuple[str, ...], model: str, run: Run, app: Path
) -> None:
    result = run("plan", app, *GPUS, "--demand", "20", *flags, "-o", "json")
    assert json.loads(result.stdout)["latency_model"] == model


def test_the_papers_formulation_has_its_own_latency_model(run: Run, app: Path) -> None:
    result = run("plan", app, *GPUS, "--demand", "20", "--latency-model", "queue", "--formulation", "paper")
    assert result.exit_code == 2
    assert "2p95" in result.stderr


def test_all_features_can_be_left_out(run: Run, app: Path) -> None:
    file = app / "profiles.csv"
    file.write_text(file.read_text().replace(",1g,", ",7g,"))
    result = run("plan", app, *GPUS, "--demand", "20", "--features", "none", "-o", "json")
    assert (json.loads(result.stdout)["features"], json.loads(result.stdout)["slices_used"]) == ("", 7)
    assert "features none" in run("plan", app, *GPUS, "--demand", "20", "--features", "none").stdout


def test_an_unknown_feature_is_refused(run: Run, app: Path) -> None:
    result = run("plan", app, *GPUS, "--demand", "20", "--features", "AX")
    assert result.exit_code == 2
    assert "X unknown" in result.stderr


def test_shared_slices_and_chains_are_printed(run: Run, named: Callable[[str], Path]) -> None:
    asked = (named("a"), named("b"), *GPUS, "--demand", "a=1,b=1")
    plain = run("plan", *asked).stdout
    assert "2 of 14 compute slices" in plain and "is shared by" not in plain
    shared = run("plan", *asked, "--share").stdout
    assert "1 of 14 compute slices" in shared
    assert "local/0 1g@0 is shared by a.average and b.average" in shared
    assert "in one call" not in shared
    chain = run("plan", applications_dir() / "digits", "--gpus", "1xcpu", "--demand", "5", "--share").stdout
    assert "normalise and classify run in one call" in chain
    (gpu,) = json.loads(run("plan", *asked, "--share", "-o", "json").stdout)["gpus"]
    assert [[model["graph"] for model in placed["models"]] for placed in gpu["layout"]] == [["a", "b"]]
    assert run("plan", *asked, "--share", "--formulation", "paper").exit_code == 2


def test_a_time_limit_of_0_is_refused(run: Run, app: Path) -> None:
    result = run("plan", app, *GPUS, "--demand", "1", "--time-limit", "0")
    assert result.exit_code == 2
    assert "--time-limit" in result.stderr


def test_a_gap_is_a_share(run: Run, app: Path) -> None:
    document = json.loads(run("plan", app, *GPUS, "--demand", "1", "--gap", "0.5", "-o", "json").stdout)
    assert document["solver"]["gap"] <= 0.5
    assert run("plan", app, *GPUS, "--demand", "1", "--gap", "1").exit_code == 2


def test_instances_of_others_are_drawn_and_kept(run: Run, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "apiVersion: jigsaw-triton/v1\nkind: Cluster\nspec:\n  driver: emulated\n  nodes:\n"
        "    - {name: a, gpus: [{model: cpu, foreign: [{slice: 1g, start: 0}, {slice: 3g, start: 4}]}]}\n"
    )
    shown = run("plan", app, "--cluster", file, "--demand", "20").stdout
    assert "1 of 3 compute slices (4 more are used by others) on 1 of 1 GPUs" in shown
    assert re.search(r"a/0 │1g +│1g +│·+│·+│3g +│\ncpu +│taken +│average +│·+│·+│taken +│", shown), shown
    file.write_text(file.read_text().replace("start: 0", "start: 5"))
    wrong = run("plan", app, "--cluster", file, "--demand", "20")
    assert wrong.exit_code == 2
    assert "cluster.yaml:6: this instance cannot be there: 3g@4 overlaps 1g@5" in wrong.stderr


CLUSTER = """\
apiVersion: jigsaw-triton/v1
kind: Cluster
spec:
  driver: emulated
  survive: node
  nodes:
    - {name: a, gpus: [{model: cpu, cost: 3.5}]}
    - {name: b, gpus: [{model: cpu, cost: 3.5}]}
"""


def test_costs_and_what_a_loss_leaves_are_printed(run: Run, app: Path, tmp_path: Path) -> None:
    file, running = tmp_path / "cluster.yaml", tmp_path / "plan.json"
    file.write_text(CLUSTER)
    result = run("plan", app, "--cluster", file, "--demand", "20", "-O", running)
    assert result.exit_code == 0
    assert "2 of 14 compute slices on 2 of 2 GPUs; cost 1.00 of 7.00 per hour; HiGHS: proven optimal" in result.stdout
    left = re.search(r"the loss of a node leaves capacity for at least (\d+) requests/s of hello", result.stdout)
    assert left is not None and int(left[1]) >= 10
    assert "surviving it takes 1 more compute slices" in result.stdout
    assert "at a cost of 0.50 per hour" in result.stdout
    again = run("plan", app, "--cluster", file, "--demand", "20", "--from", running, "--diff", "-o", "json")
    document = json.loads(again.stdout)
    assert document["transition"]["before"] == {"slices_used": 2, "cost": pytest.approx(1.0)}
    assert document["cost"] == pytest.approx({"used": 1.0, "total": 7.0, "source": "given", "unit": "per hour"})
    assert (document["survival"]["more_slices"], document["survival"]["share"]) == (1, 0.5)
    assert load_plan(running).survival is not None


def test_an_explanation_says_what_surviving_a_loss_costs(run: Run, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER)
    result = run("plan", app, "--cluster", file, "--demand", "20", "--explain")
    header = next(line for line in result.stdout.splitlines() if line.startswith("requirement "))
    assert header.split()[-3:] == ["cost", "slices", "GPUs"]
    row = next(line for line in result.stdout.splitlines() if line.startswith("node.survive"))
    assert row.split()[1:4] == ["0.5", "no", "-0.1"]


def test_an_explanation_is_printed(run: Run, app: Path) -> None:
    result = run("plan", app, *GPUS, "--demand", "20", "--explain")
    assert result.exit_code == 0
    for title in ("SLO by task", "SLO by path", "cost of the requirements", "choices and their"):
        assert title in result.stdout
    assert "hello.latency_ms" in result.stdout
    assert "variant exact" in result.stdout
    assert "compared with" in result.stdout


def test_the_explanation_is_in_json_but_not_in_the_plan_file(run: Run, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    document = json.loads(run("plan", app, *GPUS, "--demand", "20", "--explain", "-o", "json", "-O", file).stdout)
    explanation = document.pop("explanation")
    assert document == json.loads(file.read_text())
    assert [choice["chosen"] for choice in explanation["choices"]] == ["exact", "1g"]
