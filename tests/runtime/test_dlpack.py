import gc
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest

from jigsaw_triton.runtime import dlpack
from jigsaw_triton.runtime.dlpack import from_capsule, to_capsule
from jigsaw_triton.runtime.dtypes import BF16, Array


@pytest.fixture
def torch() -> ModuleType:
    """Imports torch, which takes too long for every run that collects this file."""
    return import_module("torch")


def bits(*shape: int) -> Array:
    return np.random.default_rng(1).integers(0, 2**16, shape, np.uint16).view(BF16)


@pytest.mark.parametrize("array", [bits(2, 3), bits(1, 0, 4), bits(4, 6)[:, ::2], bits(1)])
def test_an_array_survives_a_round_trip_through_a_capsule(array: Array) -> None:
    back = from_capsule(to_capsule(array))
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_torch_can_read_and_create_capsules(torch: ModuleType) -> None:
    array = bits(2, 3)
    tensor = torch.from_dlpack(to_capsule(array))
    assert tensor.dtype == torch.bfloat16
    assert tensor.view(torch.int16).numpy().view(np.uint16).tolist() == array.view(np.uint16).tolist()
    assert from_capsule(torch.to_dlpack(tensor)).tobytes() == array.tobytes()


def test_the_array_is_kept_alive_until_the_consumer_releases_it(torch: ModuleType) -> None:
    before = len(dlpack._kept)
    tensor = torch.from_dlpack(to_capsule(bits(2)))
    assert len(dlpack._kept) == before + 1
    del tensor
    gc.collect()
    assert len(dlpack._kept) == before


def test_another_type_is_refused(torch: ModuleType) -> None:
    with pytest.raises(ValueError, match="DLPack type 2 with 32 bits, not BF16"):
        from_capsule(torch.to_dlpack(torch.ones(2)))
