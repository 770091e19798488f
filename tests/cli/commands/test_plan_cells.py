"""`plan --cells`."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

import jigsaw_triton as jt
from tests.cli.conftest import Run

pytestmark = pytest.mark.slow

HEAD = "apiVersion: jigsaw-triton/v1\nkind: Cluster\nspec:\n  driver: emulated\n"


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    return write(tmp_path / "cluster.yaml", 4)


def write(path: Path, nodes: int, gateway: str = "{}") -> Path:
    listed = "".join(f"    - {{name: n{node}, gpus: [{{model: cpu}}]}}\n" for node in range(nodes))
    path.write_text(f"{HEAD}  gateway: {gateway}\n  nodes:\n{listed}")
    return path


def test_cells_are_printed_with_their_price(run: Run, app: Path, cluster: Path) -> None:
    result = run("plan", app, "--cluster", cluster, "--demand", "200", "--cells", "2")
    assert result.exit_code == 0, result.stderr
    assert "cell1 and cell2:" in result.stdout
    lines = result.stdout.splitlines()
    header = next(line for line in lines if line.startswith("graph "))
    assert lines[lines.index(header) + 1].split()[:2] == ["hello", "200"]
    assert "50.0%" in result.stdout
    assert "of 28 compute slices on" in result.stdout
    assert "in 2 cells; one pool takes" in result.stdout
    assert "cells cost +" in result.stdout
    assert "■ average" in result.stdout
    assert "MIG on 4 cpu is emulated" in result.stdout


def test_json_equals_the_file_which_the_library_reads(run: Run, app: Path, cluster: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    result = run("plan", app, "--cluster", cluster, "--demand", "200", "--cells", "2", "-o", "json", "-O", file)
    assert json.loads(result.stdout) == json.loads(file.read_text())
    partition = jt.load_partition(file)
    assert [cell.nodes for cell in partition.cells] == [("n0", "n1"), ("n2", "n3")]
    again = run("plan", app, "--cluster", cluster, "--demand", "200", "--cells", "2", "--from", file, "-o", "json")
    assert [cell["plan"]["gpus"] for cell in json.loads(again.stdout)["cells"]] == [
        cell["plan"]["gpus"] for cell in json.loads(file.read_text())["cells"]
    ]


def test_the_library_makes_the_same_cells(run: Run, app: Path, cluster: Path) -> None:
    printed = json.loads(run("plan", app, "--cluster", cluster, "--demand", "200", "--cells", "2", "-o", "json").stdout)
    made = jt.plan_cells(app, demand=200, cluster=cluster, cells=2)
    assert [cell["weights"] for cell in printed["cells"]] == [dict(cell.weights) for cell in made.cells]


def test_auto_takes_one_cell_if_one_gateway_carries_it(run: Run, app: Path, cluster: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    result = run("plan", app, "--cluster", cluster, "--demand", "20", "--cells", "auto", "-O", file)
    assert "one cell: its gateway is asked for" in result.stdout
    assert jt.load_plan(file).graphs["hello"].demand_rps == 20
    with pytest.raises(jt.InputError, match="this plan has one cell"):
        jt.load_partition(file)


def test_auto_takes_more_cells_if_gateways_carry_less_and_explains_it(run: Run, app: Path, tmp_path: Path) -> None:
    small = write(tmp_path / "small.yaml", 4, "{workers: 2}")
    result = run("plan", app, "--cluster", small, "--demand", "6000", "--cells", "auto", "--explain")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    table = lines[lines.index("price of other numbers of cells") + 1 :]
    assert any("chosen" in line for line in table)
    assert any("asks its gateway for" in line and "of 2" in line for line in table)


def test_svg_draws_all_gpus(run: Run, app: Path, cluster: Path) -> None:
    drawing = run("plan", app, "--cluster", cluster, "--demand", "200", "--cells", "2", "-o", "svg").stdout
    root = ElementTree.fromstring(drawing)
    assert root.attrib["aria-label"].startswith("4 GPUs")


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--cells", "5"], 2, "a cluster of 4 nodes cannot be divided into 5 cells\nhint: give 1 to 4"),
        (["--cells", "0"], 2, "'0' is not a number of cells; give auto or a number from 1"),
        (["--cells", "some"], 2, "'some' is not a number of cells"),
        (["--cells", "2", "--diff"], 2, "--diff is for a plan of one pool; leave it or --cells out"),
        (["--cells", "2", "--from", "x.json", "--change-price", "1"], 2, "--change-price is for a plan of one pool"),
        (["--cells", "2", "--formulation", "paper"], 2, "the paper's formulation knows no cells"),
    ],
)
def test_wrong_flags_are_refused(run: Run, app: Path, cluster: Path, flags: list[str], code: int, message: str) -> None:
    result = run("plan", app, "--cluster", cluster, "--demand", "20", *flags)
    assert (result.exit_code, result.stdout) == (code, "")
    assert message in result.stderr


def test_one_machine_has_no_cells(run: Run, app: Path) -> None:
    result = run("plan", app, "--gpus", "2xcpu", "--demand", "20", "--cells", "2")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--cells: --gpus is one machine, and cells need several" in result.stderr


def test_cells_are_not_compiled(run: Run, app: Path, cluster: Path, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    assert run("plan", app, "--cluster", cluster, "--demand", "200", "--cells", "2", "-O", file).exit_code == 0
    result = run("compile", app, "--plan", file, "-O", tmp_path / "build")
    assert result.exit_code == 2
    assert "this plan has 2 cells, and only a plan of one cell can be used here; plan again without" in result.stderr
    plain = run("plan", app, "--cluster", cluster, "--demand", "200", "--from", file)
    assert plain.exit_code == 2
    assert "this plan has 2 cells" in plain.stderr
