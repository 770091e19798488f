import json
import shutil
from pathlib import Path

import pytest

from tests.cli.commands.test_ablation import GPUS
from tests.cli.commands.test_ablation import profiled as profiled
from tests.cli.commands.test_rehearse import rehearsed as rehearsed
from tests.cli.commands.test_rehearse import trace as trace
from tests.cli.conftest import Run
from tests.fakes.pages import Page


def reported(run: Run, document: str) -> str:
    """Returns the words of the report about the output of a command."""
    Path("result.json").write_text(document)
    result = run("report", "result.json", "-O", "out/report.html")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "wrote out/report.html\n"
    found = Page(Path("out/report.html").read_text())
    found.check_alone()
    return found.text


def test_a_simulation_is_reported(run: Run, app: Path, trace: Path) -> None:
    asked = ("simulate", app, "--trace", trace, "--gpus", "1xcpu", "-o", "json")
    text = reported(run, run(*asked).stdout)
    assert "Simulated deployment" in text and "hello 600 0 100.0%" in text
    assert "Plan with the most slices" in text and "Budgets and segments" in text and "Profiles of hello" in text


def test_the_files_of_a_graph_need_not_be_where_its_simulation_is_reported(
    run: Run, stepped: Path, trace: Path
) -> None:
    document = run("simulate", stepped, "--trace", trace, "--gpus", "1xcpu", "-o", "json").stdout
    shutil.rmtree(stepped)
    text = reported(run, document)
    assert "Plan with the most slices" in text and "Profiles of hello" in text


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        (None, "the result is damaged or of another release"),
        ({"graphs": [], "plan": {"version": 1}}, "the plan is damaged"),
        ({"graphs": [{"name": "a", "graph": ""}], "plan": None}, "the result is damaged or of another release"),
        ({"graphs": [{"name": "a", "graph": "[", "profiles": ""}], "plan": None}, "graph a:1: this is not valid YAML"),
    ],
)
def test_a_result_with_a_damaged_setup_is_refused(
    run: Run, app: Path, trace: Path, setup: object, message: str
) -> None:
    document = json.loads(run("simulate", app, "--trace", trace, "--gpus", "1xcpu", "-o", "json").stdout)
    Path("result.json").write_text(json.dumps({**document, "setup": setup}))
    result = run("report", "result.json")
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.usefixtures("rehearsed")
def test_a_rehearsal_is_reported_beside_its_simulation(run: Run, app: Path, trace: Path) -> None:
    asked = ("evaluate", "rehearse", app, "--trace", trace, "--gpus", "1xcpu", "-o", "json")
    text = reported(run, run(*asked).stdout)
    assert "hello 480 2 3 1" in text
    assert "emulated" in text and "25 ms, p99" in text
    assert "Plan with the most slices" in text and "Profiles of hello" in text


def test_an_ablation_is_reported(run: Run, profiled: Path) -> None:
    text = reported(run, run("evaluate", "ablation", profiled, *GPUS, "-o", "json").stdout)
    assert "Ablation of the planner's features" in text
    assert "Graph hello" in text and "Profiles of hello" in text and "AST" in text


def test_a_plan_is_printed_as_a_page(run: Run, app: Path) -> None:
    result = run("plan", app, "--gpus", "2xcpu", "--demand", "20", "-o", "html")
    assert result.exit_code == 0, result.stderr
    found = Page(result.stdout)
    found.check_alone()
    assert "Plan for hello" in found.text and "Emulated parts" in found.text


@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot be read"), ("{", "is not JSON"), ("{}", "no result that a report can show")]
)
def test_a_file_that_is_no_result_is_refused(run: Run, text: str | None, message: str) -> None:
    if text is not None:
        Path("result.json").write_text(text)
    result = run("report", "result.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert not Path("report.html").exists()


def test_without_a_deployment_there_is_no_report(run: Run, tmp_path: Path) -> None:
    result = run("report", "--state", tmp_path / "state")
    assert result.exit_code == 4
    assert "nothing is deployed here" in result.stderr


def test_json_names_the_file(run: Run, app: Path, trace: Path) -> None:
    asked = ("simulate", app, "--trace", trace, "--gpus", "1xcpu", "-o", "json")
    Path("result.json").write_text(run(*asked).stdout)
    assert json.loads(run("report", "result.json", "-o", "json").stdout) == {"file": "report.html"}
