"""The user's own code between models: executed by a worker, updated, and refused if it cannot be loaded."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from jigsaw_triton.profiles.read import write_profiles
from tests.e2e.app import SPLIT, claim
from tests.e2e.clients import PROTOCOLS, Client
from tests.e2e.system import System

pytestmark = pytest.mark.e2e

GRAPH = """\
apiVersion: jigsaw-triton/v1
kind: TaskGraph
metadata: {name: scaled}
spec:
  slo: {latency_ms: 2000}
  inputs:
    NUMBERS: {dtype: INT64, shape: [-1]}
  outputs:
    ROWS: scale.ROWS
    TEXT: scale.TEXT
    DOUBLED: double.ROW
  sample: {NUMBERS: numbers.npy}
  tasks:
    split:
      inputs: {NUMBERS: inputs.NUMBERS}
      outputs: {ROWS: {dtype: INT64, shape: [-1, 1]}}
      variants: [{name: plain, accuracy: 1.0, template: python, artifacts: {model.py: split.py}}]
    scale:
      python: steps/scale.py
      inputs: {ROWS: split.ROWS, NUMBERS: inputs.NUMBERS}
      outputs:
        ROWS: {dtype: INT64, shape: [-1, 1]}
        TEXT: {dtype: BYTES, shape: [1]}
      yields: {ROWS: 2}
    double:
      for_each: scale.ROWS
      inputs: {ROW: scale.ROWS}
      outputs: {ROW: {dtype: INT64, shape: [1]}}
      variants: [{name: plain, accuracy: 1.0, template: python, artifacts: {model.py: double.py}}]
"""

SCALE = """\
import numpy as np

from jigsaw_triton.runtime.steps import Answer


def step(ROWS, NUMBERS):
    if 13 in NUMBERS:
        raise ValueError("thirteen")
    if len(NUMBERS) == 0:
        return Answer(ROWS=ROWS, TEXT=["early"], DOUBLED=np.array([[-1]]))
    if not ROWS.any():
        raise ValueError("no step has to take the zeros of a probe")
    return {"ROWS": ROWS[ROWS[:, 0] > 0] * 10, "TEXT": [f"{len(ROWS)} rows".encode()]}
"""

DOUBLE = """\
class Model:
    def __init__(self, folder, parameters, threads):
        pass

    def __call__(self, inputs):
        return {"ROW": inputs["ROW"] * 2}
"""


def write(folder: Path, scale: str = SCALE) -> Path:
    (folder / "steps").mkdir(parents=True, exist_ok=True)
    (folder / "graph.yaml").write_text(GRAPH)
    (folder / "split.py").write_text(SPLIT)
    (folder / "double.py").write_text(DOUBLE)
    (folder / "steps" / "scale.py").write_text(scale)
    np.save(folder / "numbers.npy", np.array([1, 2], np.int64))
    rows = [claim(task, "plain", "1g", batch, 2.0) for task in ("split", "double") for batch in (1, 4)]
    (folder / "profiles.csv").write_text(write_profiles(rows))
    return folder


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("apps") / "scaled")


@pytest.fixture(scope="module")
def served(shared: System, app: Path) -> System:
    status = shared.deploy(app, "--gpus", "1xcpu", "--demand", "5")
    assert status["graphs"]["scaled"]["target"] == "graph"
    (steps,) = (w for w in status["workers"] if w["slice"] is None)
    assert (steps["name"], steps["uuid"], steps["gpu"]) == ("steps-scaled", "", None)
    return shared


@pytest.fixture(params=PROTOCOLS)
def client(served: System, request: pytest.FixtureRequest) -> Iterator[Client]:
    with Client(served, request.param) as client:
        yield client


def ask(client: Client, *requests: list[int]) -> tuple[list[list[int]], list[str], list[list[int]]]:
    """Sends requests as one batch. Returns the scaled rows, the text and the doubled rows of each request."""
    numbers = np.array(requests, np.int64).reshape(len(requests), -1)
    answer = client.ask("scaled", {"NUMBERS": numbers}, ("ROWS", "TEXT", "DOUBLED"))
    texts = [text.decode() for text in answer["TEXT"][:, 0]]
    return answer["ROWS"][..., 0].tolist(), texts, answer["DOUBLED"][..., 0].tolist()


def test_a_step_runs_between_models(client: Client) -> None:
    assert ask(client, [1, -2, 3]) == ([[10, 30]], ["3 rows"], [[20, 60]])
    assert ask(client, [-1]) == ([[]], ["1 rows"], [[]])
    assert ask(client, [1, 2], [3, 4]) == ([[10, 20], [30, 40]], ["2 rows"] * 2, [[20, 40], [60, 80]])


def test_an_error_of_a_step_fails_only_its_request(client: Client) -> None:
    with pytest.raises(InferenceServerException, match=r"step scale: ValueError: thirteen \(steps/scale.py:8\)"):
        ask(client, [13])
    assert ask(client, [12]) == ([[120]], ["1 rows"], [[240]])


def test_a_step_may_answer_before_the_models_that_follow_it(client: Client) -> None:
    assert ask(client, []) == ([[]], ["early"], [[-1]])


def test_metrics_and_traces_include_steps(served: System, client: Client) -> None:
    name = f"traced-{type(client.triton).__module__}"
    client.ask("scaled", {"NUMBERS": np.array([[1, 2]], np.int64)}, ("DOUBLED",), request_id=name)
    split, scale, double = ({"graph": "scaled", "task": task} for task in ("split", "scale", "double"))
    # Requests reach the step from the first model, and its rows go to the last one.
    served.wait_alike(*(("jigsaw_requests_total", task) for task in (split, scale)))
    served.wait_alike(("jigsaw_yield_rows_total", scale), ("jigsaw_batch_items_sum", double))
    trace = served.run("trace", "scaled", "--request", name, "-o", "json").json
    hops = {hop["task"]: hop["calls"] for hop in trace["hops"]}
    assert list(hops) == ["split", "scale", "double"]
    (call,) = hops["scale"]
    assert (call["worker"], call["variant"], call["items"]) == ("steps-scaled", "", 1)


def test_changed_code_is_an_update_and_code_that_cannot_be_loaded_is_refused(served: System, app: Path) -> None:
    write(app, SCALE.replace("* 10", "* 100"))
    served.deploy(app, "--gpus", "1xcpu", "--demand", "5")
    with Client(served, "http") as client:
        assert ask(client, [1])[0] == [[100]]
    write(app, SCALE.replace("import numpy", "import os\nos._exit(1)\nimport numpy"))
    result = served.run("deploy", app, "--gpus", "1xcpu", "--demand", "5", *served.ports, "--detach")
    assert result.code == 1
    assert "is not healthy" in result.err
    assert "gateway ended unexpectedly" not in served.events()
    write(app, SCALE.replace("import numpy", "undefined\nimport numpy"))
    result = served.run("deploy", app, "--gpus", "1xcpu", "--demand", "5", *served.ports, "--detach")
    assert result.code == 1
    assert "step scale: NameError: name 'undefined' is not defined (steps/scale.py:1)" in result.err
    with Client(served, "http") as client:
        assert ask(client, [1])[0] == [[100]]
