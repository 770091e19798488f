import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.fakes.onnx_models import classifier
from tests.folders import contents


@pytest.fixture
def plan(run: Run, app: Path, tmp_path: Path) -> Path:
    file = tmp_path / "plan.json"
    assert run("plan", app, "--gpus", "1xcpu", "--demand", "20", "-O", file).exit_code == 0
    return file


def test_repositories_are_written(run: Run, app: Path, plan: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("compile", app, "--plan", plan, "-O", out, "--backend", "python")
    assert result.exit_code == 0
    assert "hello.average.exact.g1" in result.stdout
    assert (out / "gateway" / "hello" / "config.pbtxt").is_file()
    variant = out / "workers" / "local-0-1g-0" / "hello.average.exact.g1" / "1" / "variant.py"
    assert variant.read_bytes() == (app / "models" / "average.py").read_bytes()
    before = contents(out)
    assert run("compile", app, "--plan", plan, "-O", out, "--backend", "python").exit_code == 0
    assert contents(out) == before


def test_a_model_with_other_tensors_is_refused(run: Run, app: Path, plan: Path, tmp_path: Path) -> None:
    graph = app / "graph.yaml"
    text = graph.read_text().replace("template: python ", "template: onnxruntime ", 1)
    graph.write_text(text.replace("{model.py: models/average.py}", "{model.onnx: models/average.onnx}", 1))
    (app / "models" / "average.onnx").write_bytes(classifier())
    result = run("compile", app, "--plan", plan, "-O", tmp_path / "out", "--backend", "python")
    assert result.exit_code == 2
    assert f"{graph}:19: models/average.onnx has no input 'VALUES'; write X: inputs.VALUES" in result.stderr
    assert not (tmp_path / "out").exists()


def test_json_has_the_generation_in_model_names(run: Run, app: Path, plan: Path, tmp_path: Path) -> None:
    result = run(
        "compile", app, "--plan", plan, "-O", tmp_path / "out", "--backend", "python", "--generation", 7, "-o", "json"
    )
    found = json.loads(result.stdout)
    assert found["generation"] == 7
    assert found["folder"] == str(tmp_path / "out")
    assert list(found["workers"]["local-0-1g-0"]["models"]) == ["hello.average.exact.g7"]


def test_python_steps_have_a_worker_without_a_gpu(run: Run, stepped: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "plan.json", tmp_path / "out"
    assert run("plan", stepped, "--gpus", "1xcpu", "--demand", "20", "-O", file).exit_code == 0
    result = run("compile", stepped, "--plan", file, "-O", out, "--backend", "python")
    assert result.exit_code == 0
    line = next(line for line in result.stdout.splitlines() if line.startswith("steps-hello"))
    assert line.split() == ["steps-hello", "hello.round.step.g1", "1", "1"]
    step = out / "workers" / "steps-hello" / "hello.round.step.g1" / "1" / "step.py"
    assert step.read_text() == (stepped / "round.py").read_text()
    assert (out / "gateway" / "hello" / "config.pbtxt").is_file()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--gpus", "1xA100-80GB", "--driver", "emulated"), "the cluster has no cpu at this index"),
        (("--gpus", "1xA101"), "there is no GPU model 'A101'"),
    ],
)
def test_a_cluster_that_does_not_fit_the_plan_is_refused(
    run: Run, app: Path, plan: Path, tmp_path: Path, args: tuple[str, ...], message: str
) -> None:
    result = run("compile", app, "--plan", plan, "-O", tmp_path / "out", "--backend", "python", *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_mistakes_in_graph_and_plan_are_reported_at_once(run: Run, app: Path, plan: Path, tmp_path: Path) -> None:
    (app / "models" / "average.py").unlink()
    plan.write_text("{}")
    result = run("compile", app, "--plan", plan, "-O", tmp_path / "out")
    assert result.exit_code == 2
    assert "there is no file 'models/average.py'" in result.stderr
    assert f"{plan}: this is not a plan" in result.stderr


def test_a_folder_with_other_files_is_refused(run: Run, app: Path, plan: Path) -> None:
    result = run("compile", app, "--plan", plan, "-O", app, "--backend", "python")
    assert result.exit_code == 2
    assert "the folder holds something else" in result.stderr
    assert (app / "graph.yaml").is_file()
