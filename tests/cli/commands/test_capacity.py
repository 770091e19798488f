import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from jigsaw_triton.api.files import load_plan
from tests.cli.conftest import Run

pytestmark = pytest.mark.slow

GPUS = ("--gpus", "1xcpu")


def test_the_largest_demand_is_printed_above_its_plan(run: Run, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    result = run("capacity", app, *GPUS, "-O", file)
    assert result.exit_code == 0
    headline, *rest = result.stdout.splitlines()
    most = load_plan(file).graphs["hello"].demand_rps
    assert headline == f"at most hello {most:.0f} requests/s"
    assert any(line.startswith("task ") for line in rest)
    assert run("plan", app, *GPUS, "--demand", str(most)).exit_code == 0
    assert run("plan", app, *GPUS, "--demand", str(1.001 * most)).exit_code == 3


def test_json_has_the_plan_and_the_largest_demand(run: Run, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    result = run("capacity", app, *GPUS, "-o", "json", "-O", file)
    document, plan = json.loads(result.stdout), json.loads(file.read_text())
    assert document == plan | {"largest_rps": {"hello": plan["graphs"]["hello"]["demand_rps"]}}


def test_the_papers_formulation_prints_the_demand_of_ideal_packing_too(run: Run, app: Path) -> None:
    """Two 3g and a 1g have as many compute slices as the GPU, but no layout of it has room for them."""
    file = app / "profiles.csv"
    header = file.read_text().splitlines()[0]
    rows = [f"cpu,average,exact,{kind},1,1,5,5,5,{rps},100,assumed" for kind, rps in (("3g", 300), ("1g", 1))]
    file.write_text("\n".join([header, *rows]) + "\n")
    result = run("capacity", app, *GPUS, "--formulation", "paper", "-o", "json")
    document = json.loads(result.stdout)
    assert document["largest_rps"]["hello"] == pytest.approx(601, rel=1e-3)
    assert 590 <= document["graphs"]["hello"]["demand_rps"] <= 600
    headline = run("capacity", app, *GPUS, "--formulation", "paper").stdout.splitlines()[0]
    assert headline.startswith("at most hello 601 requests/s by ideal packing, hello 59")
    assert headline.endswith(" after placement")


def test_svg_draws_the_gpus(run: Run, app: Path) -> None:
    drawing = run("capacity", app, *GPUS, "-o", "svg").stdout
    assert ElementTree.fromstring(drawing).tag.endswith("svg")


@pytest.mark.parametrize(("demand", "ratio"), [((), 1.0), (("--demand", "a=4,b=1"), 4.0)])
def test_graphs_grow_in_proportion(
    run: Run, named: Callable[[str], Path], demand: tuple[str, ...], ratio: float
) -> None:
    result = run("capacity", named("a"), named("b"), *GPUS, *demand, "-o", "json")
    graphs = json.loads(result.stdout)["graphs"]
    assert graphs["a"]["demand_rps"] / graphs["b"]["demand_rps"] == pytest.approx(ratio)


def test_one_graph_grows_and_the_other_keeps_its_demand(run: Run, named: Callable[[str], Path]) -> None:
    result = run("capacity", named("a"), named("b"), *GPUS, "--demand", "b=7", "--scale", "a")
    assert result.stdout.startswith("at most a ")
    assert "demand 7 requests/s" in result.stdout


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--scale", "c"), "--scale: there is no graph 'c'\nhint: graphs: a, b"),
        (("--scale", "a"), "--demand: b has no demand\nhint: add --demand b=RPS"),
        (("--demand", "a=1"), "--demand: b has no demand\nhint: add --demand b=RPS"),
    ],
)
def test_a_missing_demand_is_an_input_error(
    run: Run, named: Callable[[str], Path], given: tuple[str, ...], message: str
) -> None:
    result = run("capacity", named("a"), named("b"), *GPUS, *given)
    assert result.exit_code == 2
    assert message in result.stderr


def test_no_feasible_demand_exits_with_3(run: Run, app: Path) -> None:
    file = app / "graph.yaml"
    file.write_text(file.read_text().replace("latency_ms: 100", "latency_ms: 1"))
    result = run("capacity", app, *GPUS)
    assert result.exit_code == 3
    assert "a latency of 1 ms is out of reach" in result.stderr
