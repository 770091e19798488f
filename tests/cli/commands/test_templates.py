import json
from pathlib import Path

import pytest

from jigsaw_triton.cli.commands import templates as module
from jigsaw_triton.servers import runner_packages
from tests.cli.conftest import Run

PAGES = Path(__file__).parents[3] / "docs" / "templates"


def listed(run: Run) -> dict[str, dict[str, object]]:
    result = run("templates", "-o", "json")
    assert result.exit_code == 0
    return {template["name"]: template for template in json.loads(result.stdout)["templates"]}


def test_each_template_is_listed_with_what_serves_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed_backends", lambda: frozenset({"python", "pytorch"}))
    monkeypatch.setattr(runner_packages, "find_spec", lambda name: None)
    monkeypatch.setattr(runner_packages, "package_folders", lambda: [])
    found = listed(run)
    assert found["torch"]["served_by"] == "backend pytorch"
    assert found["python"]["served_by"] == "backend python"
    assert (found["onnxruntime"]["served_by"], found["onnxruntime"]["hint"]) == (
        None,
        "pip install 'jigsaw-triton[onnxruntime]'",
    )
    assert found["tensorrt"]["hint"] == "use a tritonserver with the backend tensorrt"
    assert found["onnxruntime"]["artifact"] == "model.onnx"
    assert (found["folder"]["served_by"], found["folder"]["backends"]) == ("the backend that config.pbtxt names", [])
    assert not found.keys() & {"front", "ensemble", "pipeline", "step"}
    lines = run("templates").stdout.splitlines()
    line = next(line for line in lines if line.startswith("tensorrt"))
    assert "model.plan" in line
    assert line.endswith("nothing; use a tritonserver with the backend tensorrt")


def test_a_package_serves_where_the_server_has_no_backend(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed_backends", lambda: frozenset({"python"}))
    monkeypatch.setattr(module, "installed_version", lambda package: "9.9")
    assert listed(run)["onnxruntime"]["served_by"] == "Python package onnxruntime 9.9"


def test_each_template_has_a_page(run: Run) -> None:
    assert {page.stem for page in PAGES.glob("*.md")} - {"README"} == listed(run).keys()
