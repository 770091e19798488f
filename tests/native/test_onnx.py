"""ONNX models without a server."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.runtime.dtypes import BF16, to_numpy
from jigsaw_triton.runtime.spec import to_json
from tests.fakes.onnx_files import TYPES, Graph, Node, Tensor, identity, onnx_file
from tests.native.core import Array, Failure
from tests.native.onnx import LoadError, OnnxModel, in_threads, runner, tensor, texts_of

pytest.importorskip("onnxruntime")

PAIR = {"X": tensor("FP32", 2)}
ADD = onnx_file(
    Graph(
        [Node("Add", ["A", "B"], ["SUM"]), Node("Identity", ["TEXT"], ["SAME"])],
        {"A": Tensor("FP32"), "B": Tensor("FP32"), "TEXT": Tensor("BYTES", ("batch", 1))},
        {"SUM": Tensor("FP32"), "SAME": Tensor("BYTES", ("batch", 1))},
    )
)
ADD_INPUTS = {"A": tensor("FP32", 2), "B": tensor("FP32", 2), "TEXT": tensor("BYTES", 1)}
ADD_OUTPUTS = {"SUM": tensor("FP32", 2), "SAME": tensor("BYTES", 1)}


def load(folder: Path, content: bytes, *arguments: Any, **more: Any) -> OnnxModel:
    """Loads a model from its content; the other arguments are those of `runner`."""
    path = folder / "model.onnx"
    path.write_bytes(content)
    return OnnxModel(path, runner(*arguments, **more))


def rows(*values: float) -> Array:
    """Items [v, 10 v]."""
    return np.array([[value, 10 * value] for value in values], np.float32)


def outputs(found: dict[str, Array] | Failure) -> dict[str, Any]:
    assert isinstance(found, dict), found
    return {name: array.tolist() for name, array in found.items()}


def test_tensors_are_matched_by_name(tmp_path: Path) -> None:
    model = load(tmp_path, ADD, dict(reversed(ADD_INPUTS.items())), dict(reversed(ADD_OUTPUTS.items())))
    found = model.ask(TEXT=texts_of([["é".encode()], [b"b"]]), B=rows(1, 2), A=np.ones((2, 2), np.float32))
    assert found["SUM"].tolist() == [[2, 11], [3, 21]]
    assert found["SAME"].tolist() == [["é".encode()], [b"b"]]


@pytest.mark.parametrize("odd", [False, True], ids=["even", "odd"])
@pytest.mark.parametrize("dtype", sorted(TYPES.keys() - {"BYTES"}))
def test_all_types_pass_unchanged(tmp_path: Path, dtype: str, odd: bool) -> None:
    model = load(tmp_path, identity(dtype), {"X": tensor(dtype, 2)}, {"Y": tensor(dtype, 2)})
    kind = to_numpy(dtype)
    raw = b"\0\1" if dtype == "BOOL" else bytes(range(2 * kind.itemsize))
    given = np.frombuffer(raw, BF16 if dtype == "BF16" else kind).reshape(1, 2)
    (found,) = model.answer({"X": given}, odd=odd)
    assert isinstance(found, dict)
    assert (found["Y"].dtype, found["Y"].shape, found["Y"].tobytes()) == (given.dtype, (1, 2), raw)


def test_texts_of_any_bytes_pass_unchanged(tmp_path: Path) -> None:
    model = load(tmp_path, identity("BYTES"), {"X": tensor("BYTES", 2)}, {"Y": tensor("BYTES", 2)})
    given = texts_of([[b"", b"\0in\0side"], [b"\xff", b"long" * 999]])
    assert model.ask(X=given)["Y"].tolist() == given.tolist()
    (empty,) = model.answer({"X": given[:0]})
    assert isinstance(empty, dict)
    assert empty["Y"].shape == (0, 2)


def test_no_items_give_no_items(tmp_path: Path) -> None:
    model = load(tmp_path, identity("FP32"), PAIR, {"Y": tensor("FP32", 2)})
    assert model.ask(X=rows()[:0].reshape(0, 2))["Y"].shape == (0, 2)


def test_requests_of_equal_shapes_are_joined_and_split(tmp_path: Path) -> None:
    # Y is the sum of an item times the largest number of the run, which shows the requests that were joined.
    nodes = [
        Node("ReduceMax", ["X"], ["most"], {"keepdims": 0}),
        Node("ReduceSum", ["X", "axes"], ["sums"], {"keepdims": 1}),
        Node("Mul", ["sums", "most"], ["Y"]),
    ]
    graph = Graph(
        nodes,
        {"X": Tensor("INT64", ("batch", "width"))},
        {"Y": Tensor("INT64", ("batch", 1))},
        {"axes": [1]},
    )
    model = load(tmp_path, onnx_file(graph), {"X": tensor("INT64", -1)}, {"Y": tensor("INT64", 1)})
    requests = [[[1, 1]], [[2, 2], [3, 3]], [[1, 1, 1]], [[5, 5]]]
    found = model.answer(*({"X": np.array(request, np.int64)} for request in requests))
    assert [outputs(one)["Y"] for one in found] == [[[10]], [[20], [30]], [[3]], [[50]]]
    apart = load(tmp_path, onnx_file(graph), {"X": tensor("INT64", -1)}, {"Y": tensor("INT64", 1)}, stack=False)
    found = apart.answer(*({"X": np.array(request, np.int64)} for request in requests))
    assert [outputs(one)["Y"] for one in found] == [[[2]], [[8], [18]], [[3]], [[50]]]


def test_texts_are_joined_and_split(tmp_path: Path) -> None:
    model = load(tmp_path, identity("BYTES"), {"X": tensor("BYTES", 2)}, {"Y": tensor("BYTES", 2)})
    given = [texts_of([[b"a", b""], [b"long" * 9, b"c"]]), texts_of([[b"d", b"e"]])]
    found = model.answer(*({"X": array} for array in given))
    assert [outputs(one)["Y"] for one in found] == [array.tolist() for array in given]


def gather() -> bytes:
    """A model that fails for indices above 1: Y is the row of a table for each index X."""
    graph = Graph(
        [Node("Gather", ["table", "X"], ["Y"])],
        {"X": Tensor("INT64", ("batch", 1))},
        {"Y": Tensor("INT64", ("batch", 1))},
        {"table": [10, 11]},
    )
    return onnx_file(graph)


def test_a_request_that_fails_does_not_fail_others(tmp_path: Path) -> None:
    model = load(tmp_path, gather(), {"X": tensor("INT64", 1)}, {"Y": tensor("INT64", 1)})
    good, bad, last = model.answer(*({"X": np.array([[index]], np.int64)} for index in (1, 7, 0)))
    assert (outputs(good), outputs(last)) == ({"Y": [[11]]}, {"Y": [[10]]})
    assert isinstance(bad, Failure)
    assert bad.blame == "model"
    assert "out of data bounds" in bad.message
    assert outputs(model.answer({"X": np.array([[1]], np.int64)})[0]) == {"Y": [[11]]}


def test_texts_that_are_cut_off_are_the_fault_of_the_request(tmp_path: Path) -> None:
    model = load(tmp_path, identity("BYTES"), {"X": tensor("BYTES", 2)}, {"Y": tensor("BYTES", 2)})
    whole = {"X": texts_of([[b"a", b"b"]])}
    good, bad = model.answer(whole, whole, cut=1)
    assert outputs(good) == {"Y": [[b"a", b"b"]]}
    assert bad == Failure("request", "an element of a BYTES tensor is longer than the tensor")


def test_inputs_that_differ_in_batch_size_are_refused(tmp_path: Path) -> None:
    model = load(tmp_path, ADD, ADD_INPUTS, ADD_OUTPUTS)
    (found,) = model.answer({"A": rows(1), "B": rows(1, 2), "TEXT": texts_of([[b"a"]])})
    assert found == Failure("request", "inputs differ in batch size: A has 1, B has 2, TEXT has 1")


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (tensor("FP32", 3), "output Y has shape [1, 2] where [1, 3] was declared"),
        (tensor("FP32"), "output Y has shape [1, 2] where [1] was declared"),
    ],
)
def test_an_output_of_another_shape_is_the_fault_of_the_model(tmp_path: Path, declared: Any, message: str) -> None:
    model = load(tmp_path, identity("FP32"), PAIR, {"Y": declared})
    assert model.answer({"X": rows(1)}) == [Failure("model", message)]


def up_to() -> bytes:
    """A model whose output Y for one item N has N rows: 0, 1, ..., N - 1."""
    graph = Graph(
        [
            Node("ReduceMax", ["N"], ["n"], {"keepdims": 0}),
            Node("Range", ["zero", "n", "one"], ["range"]),
            Node("Unsqueeze", ["range", "axes"], ["Y"]),
        ],
        {"N": Tensor("INT64", ("batch", 1))},
        {"Y": Tensor("INT64", ("batch", "rows", 1))},
        {"zero": 0, "one": 1, "axes": [0, 2]},
    )
    return onnx_file(graph)


def test_rows_are_padded_and_counted(tmp_path: Path) -> None:
    types = {"N": tensor("INT64", 1)}, {"Y": tensor("INT64", -1, 1)}
    model = load(tmp_path, up_to(), *types, stack=False, pads=("Y",))
    assert outputs(model.answer({"N": np.array([[1], [3], [0]], np.int64)})[0]) == {
        "Y": [[[0], [0], [0]], [[0], [1], [2]], [[0], [0], [0]]],
        "JIGSAW_ROWS.Y": [[1], [3], [0]],
    }
    assert outputs(model.answer({"N": np.array([[2]], np.int64)})[0]) == {"Y": [[[0], [1]]], "JIGSAW_ROWS.Y": [[2]]}
    plain = load(tmp_path, up_to(), *types, stack=False)
    assert plain.answer({"N": np.array([[1], [2]], np.int64)}) == [
        Failure("request", "output Y differs in shape between the items of the request: [1, 1], [2, 1]")
    ]


def test_a_request_without_items_has_no_rows(tmp_path: Path) -> None:
    shape = ("batch", "rows", 2)
    types = {"X": tensor("FP32", -1, 2)}, {"Y": tensor("FP32", -1, 2)}
    model = load(tmp_path, identity("FP32", shape), *types, stack=False, pads=("Y",))
    found = model.ask(X=np.empty((0, 3, 2), np.float32))
    assert (found["Y"].shape, found["JIGSAW_ROWS.Y"].shape) == ((0, 3, 2), (0, 1))


@pytest.mark.parametrize("stack", [True, False])
@pytest.mark.parametrize("shape", [(), (0, 2), (1, 1, 2, 1), (1, 1, 3)])
def test_an_input_of_another_shape_is_the_fault_of_the_request(
    tmp_path: Path, shape: tuple[int, ...], stack: bool
) -> None:
    types = {"X": tensor("FP32", -1, 2)}, {"Y": tensor("FP32", -1, 2)}
    model = load(tmp_path, identity("FP32", ("batch", "rows", 2)), *types, stack=stack, pads=() if stack else ("Y",))
    good = {"X": np.ones((1, 1, 2), np.float32)}
    bad, found = model.answer({"X": np.zeros(shape, np.float32)}, good)
    assert bad == Failure("request", f"input X has shape {list(shape)} where [-1, -1, 2] was declared")
    assert outputs(found)["Y"] == [[[1, 1]]]


@pytest.mark.parametrize("stack", [True, False])
def test_an_input_of_another_size_is_the_fault_of_the_request(tmp_path: Path, stack: bool) -> None:
    model = load(tmp_path, identity("FP32"), PAIR, {"Y": tensor("FP32", 2)}, stack=stack)
    good, bad = model.answer({"X": rows(1)}, {"X": rows(1, 2)}, cut=4)
    assert outputs(good) == {"Y": [[1, 10]]}
    assert bad == Failure("request", "input X has 12 bytes, which its shape [2, 2] contradicts")


def test_an_input_of_another_type_is_the_fault_of_the_request(tmp_path: Path) -> None:
    model = load(tmp_path, identity("FP32"), PAIR, {"Y": tensor("FP32", 2)})
    good, bad = model.answer({"X": rows(1)}, {"X": rows(1).astype(np.float64)})
    assert outputs(good) == {"Y": [[1, 10]]}
    assert bad == Failure("request", "input X is of type FP64 where FP32 was declared")


def test_padded_texts_are_empty(tmp_path: Path) -> None:
    # Y has as many texts as the number N says, which are the number itself.
    nodes = [
        Node("ReduceMax", ["N"], ["n"], {"keepdims": 0}),
        Node("Range", ["zero", "n", "one"], ["range"]),
        Node("Unsqueeze", ["range", "axes"], ["numbers"]),
        Node("Cast", ["numbers"], ["Y"], {"to": TYPES["BYTES"]}),
    ]
    graph = Graph(
        nodes,
        {"N": Tensor("INT64", ("batch", 1))},
        {"Y": Tensor("BYTES", ("batch", "rows", 1))},
        {"zero": 0, "one": 1, "axes": [0, 2]},
    )
    types = {"N": tensor("INT64", 1)}, {"Y": tensor("BYTES", -1, 1)}
    model = load(tmp_path, onnx_file(graph), *types, stack=False, pads=("Y",))
    found = outputs(model.answer({"N": np.array([[1], [2]], np.int64)})[0])
    assert found == {"Y": [[[b"0"], [b""]], [[b"0"], [b"1"]]], "JIGSAW_ROWS.Y": [[1], [2]]}


def test_threads_share_a_model(tmp_path: Path) -> None:
    model = load(tmp_path, ADD, ADD_INPUTS, ADD_OUTPUTS)

    def ask() -> None:
        for value in range(50):
            found = model.ask(A=rows(value), B=rows(1), TEXT=texts_of([[str(value).encode()]]))
            assert (found["SUM"].tolist(), found["SAME"].item()) == (
                [[value + 1, 10 * value + 10]],
                str(value).encode(),
            )

    in_threads(4, ask)


@pytest.mark.parametrize(
    ("inputs", "made", "message"),
    [
        (
            {"A": tensor("FP32", 2)},
            ADD_OUTPUTS,
            "the graph declares the inputs A, but model.onnx has A, B, TEXT; declare the same names",
        ),
        (
            ADD_INPUTS,
            {"MORE": tensor("FP32", 2)},
            "the graph declares the outputs MORE, but model.onnx has SAME, SUM; declare the same names",
        ),
        (
            {**ADD_INPUTS, "B": tensor("FP64", 2)},
            ADD_OUTPUTS,
            "the graph declares input B as FP64, but it is FP32 in model.onnx; declare FP32",
        ),
        (
            ADD_INPUTS,
            {"SUM": tensor("INT64", 2)},
            "the graph declares output SUM as INT64, but it is FP32 in model.onnx; declare FP32",
        ),
        (
            {**ADD_INPUTS, "A": tensor("FP32", 3)},
            ADD_OUTPUTS,
            "the graph declares input A with shape [3], but without its batch dimension it is [2] in model.onnx;"
            " declare this shape",
        ),
    ],
    ids=["inputs", "outputs", "type of an input", "type of an output", "shape"],
)
def test_a_model_that_does_not_match_is_refused(tmp_path: Path, inputs: Any, made: Any, message: str) -> None:
    with pytest.raises(LoadError) as caught:
        load(tmp_path, ADD, inputs, made)
    assert str(caught.value) == message


def test_texts_of_errors_fit_into_a_response(tmp_path: Path) -> None:
    many = {f"a_long_name_of_an_input_{number}": Tensor("FP32") for number in range(999)}
    graph = Graph([Node("Identity", [next(iter(many))], ["Y"])], many, {"Y": Tensor("FP32")})
    with pytest.raises(LoadError, match="declare the same names") as caught:
        load(tmp_path, onnx_file(graph), PAIR, {"Y": tensor("FP32", 2)})
    assert len(str(caught.value)) < 2000
    model = load(tmp_path, up_to(), {"N": tensor("INT64", 1)}, {"Y": tensor("INT64", -1, 1)}, stack=False)
    (found,) = model.answer({"N": np.arange(1, 500, dtype=np.int64).reshape(-1, 1)})
    assert isinstance(found, Failure)
    assert len(found.message) < 2000


def test_a_subset_of_the_outputs_may_be_declared(tmp_path: Path) -> None:
    model = load(tmp_path, ADD, ADD_INPUTS, {"SUM": tensor("FP32", -1)})
    assert outputs(model.answer({"A": rows(1), "B": rows(2), "TEXT": texts_of([[b"a"]])})[0]) == {"SUM": [[3, 30]]}


def test_an_input_with_a_default_may_be_left_out(tmp_path: Path) -> None:
    graph = Graph(
        [Node("Add", ["X", "B"], ["Y"])],
        {"X": Tensor("FP32"), "B": Tensor("FP32")},
        {"Y": Tensor("FP32")},
        {"B": np.full((1, 2), 5, np.float32)},
    )
    model = load(tmp_path, onnx_file(graph), PAIR, {"Y": tensor("FP32", 2)})
    assert model.ask(X=rows(1))["Y"].tolist() == [[6, 15]]
    model = load(tmp_path, onnx_file(graph), {**PAIR, "B": tensor("FP32", 2)}, {"Y": tensor("FP32", 2)})
    assert model.ask(X=rows(1), B=rows(2))["Y"].tolist() == [[3, 30]]
    with pytest.raises(LoadError, match="the graph declares input B with shape"):
        load(tmp_path, onnx_file(graph), {**PAIR, "B": tensor("FP32", 3)}, {"Y": tensor("FP32", 2)})


@pytest.mark.parametrize("shape", [None, ()])
def test_an_input_may_have_no_declared_shape(tmp_path: Path, shape: tuple[int, ...] | None) -> None:
    any_shape = Tensor("FP32", shape)  # ONNX Runtime takes a scalar for a tensor without a declared shape.
    graph = Graph([Node("Identity", ["X"], ["Y"])], {"X": any_shape}, {"Y": any_shape})
    model = load(tmp_path, onnx_file(graph), PAIR, {"Y": tensor("FP32", 2)})
    assert model.ask(X=rows(1, 2))["Y"].tolist() == [[1, 10], [2, 20]]


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    graph = Graph([Node("Teleport", ["X"], ["Y"])], {"X": Tensor("FP32")}, {"Y": Tensor("FP32")})
    with pytest.raises(LoadError, match="Teleport"):
        load(tmp_path, onnx_file(graph), PAIR, {"Y": tensor("FP32", 2)})


@pytest.mark.parametrize("content", [b"", b"this is no model", b"\x08\x0a"], ids=["empty", "text", "no graph"])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(LoadError, match=r"ONNX Runtime [\d.]+ cannot load .*model\.onnx: "):
        load(tmp_path, content, PAIR, {"Y": tensor("FP32", 2)})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}", 'spec has no "inputs"'),
        ('{"inputs": [{"name": "X", "dtype": "FP8", "shape": [1]}]}', "spec.inputs.dtype is not a data type: FP8"),
        ('{"inputs": []}', "spec.inputs is empty"),
        (
            to_json(runner(PAIR, {"Y": tensor("FP32")}, stack=False, pads=("Y",))),
            "spec.pads has an output without rows",
        ),
    ],
)
def test_an_invalid_specification_is_refused(tmp_path: Path, spec: str, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        OnnxModel(tmp_path / "model.onnx", spec)
