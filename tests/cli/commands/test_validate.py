import json
from pathlib import Path

import pytest

from jigsaw_triton.servers import runner_packages
from tests.cli.conftest import Run

pytestmark = pytest.mark.usefixtures("kept_models")

CLUSTER = """\
apiVersion: jigsaw-triton/v1
kind: Cluster
spec:
  nodes: [{name: a, gpus: [{model: cpu, count: 2}]}]
"""


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))


def test_an_application_without_mistakes_is_valid(run: Run, app: Path) -> None:
    result = run("validate", app)
    assert result.exit_code == 0
    assert "no mistakes" in result.stdout
    assert result.stderr == ""


def test_json_describes_the_graph(run: Run, app: Path) -> None:
    (app / "models" / "average.py").unlink()
    result = run("validate", app, "--gpus", "2xcpu", "-o", "json")
    found = json.loads(result.stdout)
    graph = found["graphs"]["hello"]
    assert found["gpus"] == 2
    assert graph["profiles"] == 4
    assert graph["missing_files"] == [str(app / "models" / "average.py")]
    assert graph["paths"] == [["average"]]
    assert "jigsaw-triton fetch" in result.stderr


def test_a_missing_package_is_a_warning_with_the_command_that_installs_it(
    run: Run, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (app / "graph.yaml").read_text().replace("template: python", "template: torch")
    (app / "graph.yaml").write_text(text.replace("model.py: models/average.py", "model.pt: models/average.pt"))
    monkeypatch.setattr(runner_packages, "find_spec", lambda _: None)
    result = run("validate", app, "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["graphs"]["hello"]["missing_packages"] == ["torch"]
    assert "average.exact needs the Python package torch" in result.stderr
    assert "`pip install 'jigsaw-triton[torch]'` installs it" in result.stderr


def test_a_python_step_is_checked_drawn_and_planned(run: Run, app: Path) -> None:
    edit(app / "graph.yaml", "MEAN: average.MEAN\n  tasks:", "MEAN: half.MEAN\n  tasks:")
    tensors = "inputs: {MEAN: average.MEAN}, outputs: {MEAN: {dtype: FP32, shape: [1]}}"
    step = f"    half: {{python: half.py, latency_ms: 20, {tensors}}}\n"
    edit(app / "graph.yaml", "    # To pass", f"{step}    # To pass")
    (app / "half.py").write_text("def step(MAEN):\n    return {'MEAN': MAEN / 2}\n")
    refused = run("validate", app)
    assert refused.exit_code == 2
    assert "half.py:1: step has no parameter for the input 'MEAN'; did you mean 'MAEN'?" in refused.stderr
    (app / "half.py").write_text("def step(MEAN):\n    return {'MEAN': MEAN / 2}\n")
    result = run("validate", app)
    assert result.exit_code == 0
    assert "1 and 1 Python steps" in result.stdout
    assert "python half.py, 20 ms" in run("show", app).stdout
    edit(app / "graph.yaml", "  slo:", "  target: ensemble\n  slo:")
    refused = run("validate", app)
    assert refused.exit_code == 2
    assert "an ensemble cannot express the graph: half is a Python step" in refused.stderr
    edit(app / "graph.yaml", "  target: ensemble\n  slo:", "  slo:")
    plan = run("plan", app, "--gpus", "1xcpu", "--demand", "20")
    assert plan.exit_code == 0
    assert "ms (20 of them for Python steps), at most 100;" in plan.stdout


WRONG = [
    ("MEAN: {dtype: FP32, shape: [1]}", "MEAN: {dtype: FP64, shape: [1]}", "write MEAN: {dtype: FP32, shape: [1]}"),
    ("MEAN: {dtype: FP32, shape: [1]}", "MEAN: {dtype: FP32, shape: []}", "write MEAN: {dtype: FP32, shape: [1]}"),
    ("{VALUES: inputs.VALUES}", "{VALUE: inputs.VALUES}", "fails on random data, which may not suit it: KeyError"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG, ids=["type", "shape", "name"])
def test_a_model_that_does_not_fit_its_task_is_found_by_a_run(
    run: Run, app: Path, old: str, new: str, message: str
) -> None:
    edit(app / "graph.yaml", old, new)
    result = run("validate", app)
    assert message in result.stderr
    assert result.exit_code == (0 if "random" in message else 2)
    if "random" in message:
        assert len(json.loads(run("validate", app, "-o", "json").stdout)["graphs"]["hello"]["model_notes"]) == 2
    else:
        assert (
            f"{app / 'graph.yaml'}:21: average.exact returns 'MEAN' as FP32 [1], but average declares" in result.stderr
        )
    assert run("validate", app, "--no-models").exit_code == 0


def test_a_graph_is_read_from_a_file_or_standard_input(run: Run, app: Path) -> None:
    assert run("validate", app / "graph.yaml").exit_code == 0
    assert run("validate", "-", stdin=(app / "graph.yaml").read_text()).exit_code == 0


def test_a_cluster_is_checked_without_graphs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    result = run("validate", "--cluster", tmp_path)
    assert result.exit_code == 0
    assert "cluster: 2 GPUs, driver emulated" in result.stdout


def test_profiles_may_be_missing(run: Run, app: Path) -> None:
    (app / "profiles.csv").unlink()
    assert run("validate", app).exit_code == 0


@pytest.mark.parametrize("kind", ["graph", "cluster"])
def test_json_schemas_are_printed(run: Run, kind: str) -> None:
    schema = json.loads(run("validate", "--schema", kind).stdout)
    assert schema["title"] == f"{kind}.yaml"


def assert_mistake(run: Run, app: Path, place: str, message: str) -> None:
    result = run("validate", app)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert [line for line in result.stderr.splitlines() if line.startswith(f"{app / place}: ") and message in line]
    assert "Traceback" not in result.stderr
    document = json.loads(run("validate", app, "-o", "json").stdout)
    assert any(message in f"{d['message']}; {d['hint']}" for d in document["error"]["diagnostics"])


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("graph.yaml", "kind: TaskGraph", "kind: Cluster", "it must be TaskGraph"),
        ("graph.yaml", "latency_ms: 100", "latency_s: 100", "did you mean 'latency_ms'?"),
        ("graph.yaml", "    MEAN: average.MEAN", "    MEAN: averag.MEAN", "did you mean 'average'?"),
        ("graph.yaml", "accuracy: 0.96", "accuracy: .nan", "is not a finite number"),
        ("graph.yaml", "template: python         #", "template: pyton #", "did you mean 'python'?"),
        ("graph.yaml", "stride: 4", "stride: &x 4", "anchors and aliases are not supported"),
        ("profiles.csv", "gpu,task", "board,task", "the header lacks gpu"),
        ("profiles.csv", "2.0,3.0,4.0", "2.0,1.0,4.0", "the latencies are not ascending"),
        ("profiles.csv", "1.5,2.0,3.0", "1.5,fast,3.0", "latency_p95_ms is 'fast'"),
    ],
)
def test_a_mistake_has_file_line_and_hint(run: Run, app: Path, file: str, old: str, new: str, message: str) -> None:
    text = (app / file).read_text()
    line = text[: text.index(old)].count("\n") + 1
    edit(app / file, old, new)
    assert_mistake(run, app, f"{file}:{line}", message)


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (b"", "graph.yaml", "the file is empty"),
        (b"\xff\xfe\x00", "graph.yaml:1", "the file is not UTF-8 text"),
        (b"a: [1, 2", "graph.yaml:1", "this is not valid YAML"),
        (b"a: " + b"[" * 100, "graph.yaml:1", "nested more than"),
        (b"a: 1\n" * 300_000, "graph.yaml", "the file is larger than"),
    ],
)
def test_a_file_without_a_graph_is_refused(run: Run, app: Path, content: bytes, place: str, message: str) -> None:
    (app / "graph.yaml").write_bytes(content)
    assert_mistake(run, app, place, message)


def test_a_missing_file_is_reported(run: Run, app: Path) -> None:
    (app / "graph.yaml").unlink()
    assert_mistake(run, app, "graph.yaml", "there is no such file")


def test_mistakes_in_several_files_are_reported_at_once(run: Run, app: Path) -> None:
    edit(app / "graph.yaml", "latency_ms: 100", "latency_ms: -1")
    result = run("validate", app, app / "nothing", "--gpus", "1xB52")
    assert result.exit_code == 2
    assert "error: 3 mistakes in the input" in result.stderr


def test_no_argument_is_a_usage_error(run: Run) -> None:
    result = run("validate")
    assert result.exit_code == 2
    assert "Missing argument" in result.stderr
