from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.errors import InputError
from jigsaw_triton.evaluation.profiling.tensors import batches, calls, gather, made_up, sample_inputs
from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.graph.tensors import TensorType
from tests.fakes.graphs import chain, conditional, fan_out, nested, ref

ROWS = np.arange(48, dtype=np.float32).reshape(3, 16)


def sampled(tmp_path: Path, array: object) -> TaskGraph:
    np.save(tmp_path / "x.npy", np.asarray(array))
    return replace(chain(), samples={"X": tmp_path / "x.npy"})


def test_samples_become_graph_inputs(tmp_path: Path) -> None:
    found = sample_inputs(sampled(tmp_path, ROWS[0]))
    np.testing.assert_array_equal(found[ref("inputs.X")], ROWS[0])
    assert sample_inputs(chain()) == {}


@pytest.mark.parametrize("array", [ROWS, ROWS[0].astype(np.float64), ROWS[0][:3], [b"text"]])
def test_a_sample_of_the_wrong_type_is_refused(tmp_path: Path, array: object) -> None:
    with pytest.raises(InputError, match="the sample of X is"):
        sample_inputs(sampled(tmp_path, array))


def test_a_sample_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    found = sampled(tmp_path, ROWS[0])
    (tmp_path / "x.npy").write_text("no tensor")
    with pytest.raises(InputError, match="cannot be read"):
        sample_inputs(found)


@pytest.mark.parametrize("dtype", ["BOOL", "UINT8", "INT64", "FP16", "FP32", "BYTES"])
def test_made_up_data_has_the_type_and_varies(dtype: str) -> None:
    found = made_up(TensorType(dtype, (-1, 3)), np.random.default_rng(0))
    assert found.shape == (32, 3)
    assert len(set(found.ravel().tolist())) > 1
    assert dtype != "BYTES" or isinstance(found[0, 0], bytes)


def test_a_task_is_called_once_per_tensor_or_once_per_row() -> None:
    found = fan_out()
    (whole,) = calls(found, found.tasks["detect"], {ref("inputs.X"): ROWS[0]})
    np.testing.assert_array_equal(whole["X"], ROWS[0])
    each = calls(found, found.tasks["classify"], {ref("detect.CROPS"): ROWS})
    np.testing.assert_array_equal([call["CROP"] for call in each], ROWS)
    assert calls(found, found.tasks["classify"], {ref("detect.CROPS"): ROWS[:0]}) == []


def test_answers_are_combined_into_the_tensors_of_consumers() -> None:
    found = fan_out()
    detect = gather(found, found.tasks["detect"], [{"BOX": ROWS[:1], "CROPS": ROWS[None]}])
    assert {str(key): array.shape for key, array in detect.items()} == {"detect.BOX": (16,), "detect.CROPS": (3, 16)}
    labels = gather(found, found.tasks["classify"], [{"LABEL": np.array([[n]])} for n in range(3)])
    assert labels[ref("classify.LABEL")].tolist() == [[0], [1], [2]]
    found = conditional()
    inspect = gather(found, found.tasks["inspect"], [{"Y": ROWS[:1]}])
    assert inspect[ref("inspect.Y")].shape == (1, 16)


def test_nested_rows_become_one_tensor() -> None:
    found = nested()
    answers = [{"WORDS": ROWS[None, :count], "KIND": np.array([[count]])} for count in (2, 0, 3)]
    split = gather(found, found.tasks["split"], answers)
    np.testing.assert_array_equal(split[ref("split.WORDS")], [*ROWS[:2], *ROWS])
    assert split[ref("split.KIND")].tolist() == split[ref("split.PER_LINE")].tolist() == [[2], [0], [3]]
    assert len(calls(found, found.tasks["read"], split)) == 5


@given(st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_batches_are_full_and_cycle_through_the_calls(count: int, size: int, side_by_side: bool) -> None:
    found = batches([{"X": np.array([n])} for n in range(count)], size, side_by_side=side_by_side)
    assert {len(batch) for batch in found} == {size if side_by_side else 1}
    items = [n for batch in found for request in batch for n in request["X"][:, 0].tolist()]
    assert items == [n % count for n in range(len(found) * size)]
    assert len(items) % count == 0
