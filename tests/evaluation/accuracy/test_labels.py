from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.accuracy.labels import LabelledSet, read_labels, scored
from jigsaw_triton.graph.measured import Labels, Metric
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.graph.tensors import TensorRef
from jigsaw_triton.runtime.dtypes import Array
from tests.e2e.app import GRAPH
from tests.fakes.documents import built

APP = GRAPH.format(name="words", target="auto", accuracy=0.95)
METRICS = "    tasks: {square: {metric: exact, output: SQUARE}}\n"

EXAMPLES = """\
import numpy as np
from helper import square

def examples():
    for n in range(1, 6):
        numbers = np.arange(n)
        yield {"NUMBERS": numbers, "square.SQUARE": square(numbers)[:, None], "note": f"request {n}"}
"""


def graph(folder: Path, data: str, metrics: str = METRICS) -> TaskGraph:
    return built(f"{APP}  labels:\n    data: {data}\n{metrics}", folder)


def read(folder: Path, data: str, metrics: str = METRICS, limit: int | None = None) -> LabelledSet:
    of = graph(folder, data, metrics)
    assert of.labels is not None
    return read_labels(of, of.labels, limit)


def write_code(folder: Path, text: str = EXAMPLES) -> None:
    (folder / "labels.py").write_text(text)
    (folder / "helper.py").write_text("def square(x):\n    return x ** 2\n")


def test_graph_yaml_names_the_labels(tmp_path: Path) -> None:
    of = graph(tmp_path, "labels.npz", METRICS + "    graph: {metric: edit, output: TOTAL}\n")
    assert of.labels == Labels(
        tmp_path.resolve() / "labels.npz", {"square": Metric("exact", "SQUARE")}, Metric("edit", "TOTAL")
    )
    (tmp_path / "again").mkdir()
    assert built(of.to_yaml(), tmp_path).labels == of.labels


def test_arrays_are_requests_along_their_first_dimension(tmp_path: Path) -> None:
    numbers = np.arange(12).reshape(3, 4)
    squares = (numbers**2)[:, :, None]
    np.savez(tmp_path / "labels.npz", **{"NUMBERS": numbers, "square.SQUARE": squares})
    found = read(tmp_path, "labels.npz")
    assert (found.name, len(found.requests)) == ("labels.npz", 3)
    assert found.requests[1].inputs[TensorRef("inputs", "NUMBERS")].tolist() == [4, 5, 6, 7]
    assert found.requests[1].labels["square.SQUARE"].tolist() == [[16], [25], [36], [49]]
    assert len(read(tmp_path, "labels.npz", limit=2).requests) == 2


def test_code_makes_requests_of_any_shape_with_modules_of_its_folder(tmp_path: Path) -> None:
    write_code(tmp_path)
    found = read(tmp_path, "labels.py")
    assert [len(request.inputs[TensorRef("inputs", "NUMBERS")]) for request in found.requests] == [1, 2, 3, 4, 5]
    assert found.requests[4].labels["note"] == "request 5"
    assert len(read(tmp_path, "labels.py", limit=2).requests) == 2


def test_an_endless_set_is_cut(tmp_path: Path) -> None:
    text = "import numpy as np\ndef examples():\n    while True:\n        yield {'NUMBERS': np.arange(3)}\n"
    write_code(tmp_path, text)
    assert len(read(tmp_path, "labels.py", limit=7).requests) == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "labels.py: the file defines no function examples"),
        ("def examples(:", "labels.py:1: the code failed: SyntaxError"),
        ("\nimport nowhere\n", "labels.py:2: the code failed: ModuleNotFoundError: No module named 'nowhere'"),
        ("def examples():\n    yield {}\n    raise SystemExit(1)", "request 1: there is no input 'NUMBERS'"),
        ("def examples():\n    raise SystemExit(1)\n    yield", "labels.py:2: the code failed: SystemExit: 1"),
        ("def examples():\n    yield 3", "examples yielded int, not a mapping"),
        ("def examples():\n    return []", "there are no requests in it"),
        ("def examples():\n    yield {'NUMBERS': [1.5]}", "NUMBERS is float64 [1], but the tensor is INT64 [-1]"),
        (
            "def examples():\n    yield {'NUMBERS': [1], 'square.SQUARE': [1]}",
            "square.SQUARE is int64 [1], but the tensor is INT64 [-1, 1]",
        ),
    ],
)
def test_mistakes_in_code_have_their_line(tmp_path: Path, text: str, message: str) -> None:
    write_code(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read(tmp_path, "labels.py")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"NUMBERS": np.zeros((2, 3), np.int64), "square.SQUARE": np.zeros((3, 3, 1), np.int64)}, "different numbers"),
        ({"NUMBERS": np.zeros((2, 3), np.int64), "squares": np.zeros(2)}, "there is no tensor 'squares' in the graph"),
        ({"square.SQUARE": np.zeros((2, 3, 1), np.int64)}, "there is no input 'NUMBERS'"),
        ({"NUMBERS": np.array([{}, {}], object)}, "cannot be read"),
        ({"NUMBERS": np.array(3)}, "there are no requests in it"),
    ],
)
def test_mistakes_in_arrays_are_refused(tmp_path: Path, arrays: dict[str, Array], message: str) -> None:
    np.savez(tmp_path / "labels.npz", **arrays)
    with pytest.raises(InputError, match=message):
        read(tmp_path, "labels.npz")


def test_a_file_that_is_missing_or_no_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read(tmp_path, "labels.npz")
    (tmp_path / "labels.npz").write_text("NUMBERS")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path, "labels.npz")


def test_a_single_array_and_a_damaged_archive_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "labels.npz"
    with file.open("wb") as single:
        np.save(single, np.arange(3))
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path, "labels.npz")
    np.savez_compressed(file, NUMBERS=np.arange(3000).reshape(3, 1000))
    damaged = bytearray(file.read_bytes())
    damaged[200:240] = bytes(40)
    file.write_bytes(damaged)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path, "labels.npz")


def test_a_metric_of_the_user_gets_tensors_and_labels(tmp_path: Path) -> None:
    write_code(tmp_path, EXAMPLES + "\ndef close(tensors, labels):\n    return len(labels['note']), 12\n")
    found = read(tmp_path, "labels.py", "    tasks: {square: {metric: close}}\n")
    assert scored(found.functions["close"], tmp_path / "labels.py", {}, found.requests[0].labels) == (9, 12)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("return 1", "close returned 1, not two numbers"),
        ("return 1, -1", "close returned (1, -1), not two numbers"),
        ("return float('nan'), 1", "not two numbers"),
        ("return 1 / 0, 1", ":9: the code failed: ZeroDivisionError"),
    ],
)
def test_a_metric_that_fails_is_named(tmp_path: Path, code: str, message: str) -> None:
    write_code(tmp_path, EXAMPLES + f"def close(tensors, labels):\n    {code}\n")
    found = read(tmp_path, "labels.py", "    tasks: {square: {metric: close}}\n")
    with pytest.raises(InputError) as caught:
        scored(found.functions["close"], tmp_path / "labels.py", {}, {})
    assert message in str(caught.value)


def test_a_metric_that_the_code_does_not_define_is_refused(tmp_path: Path) -> None:
    write_code(tmp_path)
    with pytest.raises(InputError, match="defines no function close"):
        read(tmp_path, "labels.py", "    tasks: {square: {metric: close}}\n")
