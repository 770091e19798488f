import json
from pathlib import Path
from xml.etree import ElementTree

from tests.cli.conftest import Run


def test_a_graph_is_drawn_as_text(run: Run, app: Path) -> None:
    result = run("show", app)
    assert result.exit_code == 0
    assert "task  average" in result.stdout


def test_a_graph_is_drawn_as_mermaid(run: Run, app: Path) -> None:
    assert "in_VALUES -->|VALUES| task_average" in run("show", app, "--format", "mermaid").stdout


def test_a_drawing_is_written_to_a_file(run: Run, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "drawings" / "graph.svg"
    result = run("show", app, "--format", "svg", "-O", file)
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"wrote {file}" in result.stderr
    assert ElementTree.parse(file).getroot().tag.endswith("svg")


def test_json_has_the_graph_and_the_drawing(run: Run, app: Path) -> None:
    found = json.loads(run("show", app, "--format", "mermaid", "-o", "json").stdout)
    assert found["format"] == "mermaid"
    assert found["drawing"].startswith("flowchart")
    assert found["graph"]["edges"] == [{"tensor": "inputs.VALUES", "task": "average", "kind": "data"}]
    assert found["graph"]["outputs"] == {"MEAN": {"from": "average.MEAN", "dtype": "FP32", "shape": [1]}}


def test_an_unwritable_file_is_an_input_error(run: Run, app: Path) -> None:
    result = run("show", app, "-O", app / "graph.yaml" / "x")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


def test_a_missing_graph_is_an_input_error(run: Run) -> None:
    result = run("show", "nothing")
    assert result.exit_code == 2
    assert result.stderr.startswith("nothing: there is no such file")
