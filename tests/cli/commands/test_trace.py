import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jigsaw_triton.api.deployment import Deployment
from tests.cli.conftest import Run
from tests.console.test_trace import FIRST, RUN, SECOND, write


@pytest.fixture
def run_dir(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run directory of a deployment that serves graph g."""
    status: dict[str, Any] = {"state": "ready", "graphs": {"g": {}}}
    monkeypatch.setattr(Deployment, "find_status", lambda _: status)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("JIGSAW_STATE", str(tmp_path / "state"))
    return Deployment(tmp_path / "state").paths.run


def test_the_latest_trace_of_an_id_is_shown(run: Run, run_dir: Path) -> None:
    write(run_dir, FIRST, SECOND, RUN, replace(FIRST, taken_s=900.0, returned_ms=99.0))
    result = run("trace", "g", "--request", "7")
    assert result.exit_code == 0
    assert result.stdout.startswith("g, request 7: 50.0 ms, answered\n")
    assert run("trace", "g", "--request", "7", "-o", "svg").stdout.startswith("<svg ")
    assert json.loads(run("trace", "g", "--request", "7", "-o", "json").stdout)["total_ms"] == 50.0


def test_the_drawing_is_written_to_a_file(run: Run, run_dir: Path, tmp_path: Path) -> None:
    write(run_dir, FIRST)
    result = run("trace", "g", "-O", tmp_path / "new" / "trace.svg")
    assert result.exit_code == 0
    assert "wrote" in result.stderr
    assert (tmp_path / "new" / "trace.svg").read_text().startswith("<svg ")


def test_the_latest_traces_are_listed_without_an_id(run: Run, run_dir: Path) -> None:
    write(run_dir, FIRST, SECOND, *(replace(FIRST, request=str(n), taken_s=900.0 + n) for n in range(3)))
    *_, before, last = run("trace", "g", "-n", "2").stdout.splitlines()
    assert before.split() == ["00:15:01.990", "2", "30.0", "answered", "a", "30.0"]
    assert last.split() == ["00:16:40.000", "7", "50.0", "answered", "a", "30.0"]
    listed = json.loads(run("trace", "g", "-o", "json").stdout)
    assert [trace["request"] for trace in listed["traces"]] == ["0", "1", "2", "7"]


def test_a_missing_trace_has_a_hint(run: Run, run_dir: Path) -> None:
    result = run("trace", "g", "--request", "7")
    assert result.exit_code == 4
    assert "g: there is no trace of request 7" in result.stderr
    assert "request_id=" in result.stderr
    assert "there is no trace of any request" in run("trace", "g").stderr


def test_a_graph_is_given_by_name_or_file(run: Run, run_dir: Path, app: Path) -> None:
    unknown = run("trace", "gg")
    assert unknown.exit_code == 2
    assert "there is neither a served graph of this name nor such a file" in unknown.stderr
    other = run("trace", app)
    assert other.exit_code == 4
    assert "hello: the graph is not served" in other.stderr


def test_no_deployment_is_a_state_error(run: Run, tmp_path: Path) -> None:
    result = run("trace", "g", "--state", tmp_path)
    assert result.exit_code == 4
    assert "nothing is deployed here" in result.stderr
