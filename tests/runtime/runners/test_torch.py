from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.runtime.dtypes import BF16
from jigsaw_triton.runtime.outcome import Failure
from jigsaw_triton.runtime.runners import load_runner
from jigsaw_triton.runtime.spec import RunnerSpec, TensorSpec

A, B = TensorSpec("A", "FP32", (2,)), TensorSpec("B", "FP32", (2,))
SUM, PRODUCT = TensorSpec("SUM", "FP32", (2,)), TensorSpec("PRODUCT", "FP32", (2,))

Pair = namedtuple("Pair", ["SUM", "PRODUCT"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # Importing torch takes too long for every run that collects this file.
    import torch

    class Both(torch.nn.Module):  # type: ignore[misc]
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return a - b, a * b

    with pytest.warns((DeprecationWarning, FutureWarning), match="torch.jit"):
        torch.jit.trace(Both(), (torch.ones(1, 2), torch.ones(1, 2))).save(str(tmp_path / "model.pt"))
    return tmp_path


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_inputs_and_outputs_are_positional(folder: Path) -> None:
    runner = load_runner(folder, RunnerSpec("torch", (A, B), (SUM, PRODUCT)))
    a = np.array([[5, 6]], np.float32)
    a.flags.writeable = False
    (result,) = runner.answer([{"B": np.array([[2, 3]], np.float32), "A": a}])
    assert isinstance(result, dict)
    assert result["SUM"].tolist() == [[3, 3]]
    assert result["PRODUCT"].tolist() == [[10, 18]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_bf16_tensors_are_exchanged_bit_for_bit(folder: Path) -> None:
    tensors = [TensorSpec(name, "BF16", (2,)) for name in ("A", "B", "SUM", "PRODUCT")]
    runner = load_runner(folder, RunnerSpec("torch", tuple(tensors[:2]), tuple(tensors[2:])))
    one, two = (np.array([[bits, bits]], np.uint16).view(BF16) for bits in (0x3F80, 0x4000))
    (result,) = runner.answer([{"A": two, "B": one}])
    assert isinstance(result, dict)
    assert (result["SUM"].tobytes(), result["PRODUCT"].tobytes()) == (one.tobytes(), two.tobytes())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_wrong_number_of_outputs_is_an_error(folder: Path) -> None:
    runner = load_runner(folder, RunnerSpec("torch", (A, B), (SUM,)))
    ones = np.ones((1, 2), np.float32)
    (result,) = runner.answer([{"A": ones, "B": ones}])
    assert result == Failure("ValueError: model.pt returned 2 outputs where 1 are declared", "model")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("form", ["dictionary", "named tuple"])
def test_tensors_are_matched_by_the_names_that_the_model_has(tmp_path: Path, form: str) -> None:
    import torch

    class Named(torch.nn.Module):  # type: ignore[misc]
        def forward(self, A: torch.Tensor, B: torch.Tensor, scale: float = 2.0) -> dict[str, torch.Tensor]:
            return {"SUM": scale * A - B, "PRODUCT": A * B, "UNUSED": A}

    class Fields(torch.nn.Module):  # type: ignore[misc]
        def forward(self, A: torch.Tensor, B: torch.Tensor) -> Pair:
            return Pair(2.0 * A - B, A * B)

    module = Named() if form == "dictionary" else Fields()
    torch.jit.script(module).save(str(tmp_path / "model.pt"))
    runner = load_runner(tmp_path, RunnerSpec("torch", (B, A), (PRODUCT, SUM)))
    (result,) = runner.answer([{"B": np.array([[2, 3]], np.float32), "A": np.array([[5, 6]], np.float32)}])
    assert isinstance(result, dict)
    assert (result["SUM"].tolist(), result["PRODUCT"].tolist()) == ([[8, 9]], [[10, 18]])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_an_output_that_a_dictionary_lacks_is_an_error(tmp_path: Path) -> None:
    import torch

    class Named(torch.nn.Module):  # type: ignore[misc]
        def forward(self, a: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"PRODUCT": a}

    torch.jit.script(Named()).save(str(tmp_path / "model.pt"))
    runner = load_runner(tmp_path, RunnerSpec("torch", (A,), (SUM,)))
    (result,) = runner.answer([{"A": np.ones((1, 2), np.float32)}])
    assert result == Failure("ValueError: model.pt returned no output SUM; it returned PRODUCT", "model")
