from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.cli.inputs.samples import read_sample, read_tensor
from jigsaw_triton.errors import InputError
from jigsaw_triton.runtime.dtypes import Array


def test_a_sample_is_random_data_a_text_or_a_file(tmp_path: Path) -> None:
    assert read_sample("FP32[2,3]").shape == (2, 3)
    assert read_sample("BYTES[]").shape == ()
    assert read_sample("text:Ünder [MASK]=1").item() == "Ünder [MASK]=1".encode()
    np.save(tmp_path / "x.npy", np.arange(3))
    assert read_sample(str(tmp_path / "x.npy")).tolist() == [0, 1, 2]


@pytest.mark.parametrize("array", [np.array(["é", "bc"]), np.array(["é".encode(), b"bc"])])
def test_texts_become_bytes(tmp_path: Path, array: Array) -> None:
    np.save(tmp_path / "x.npy", array)
    found = read_tensor(str(tmp_path / "x.npy"))
    assert found.dtype == np.object_
    assert found.tolist() == ["é".encode(), b"bc"]


def test_a_file_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=np.ones(1), b=np.ones(1))
    with pytest.raises(InputError, match="the file has several arrays; save one array"):
        read_tensor(str(tmp_path / "two.npz"))
    for content in (b"", b"\x93NUMPY\x01\x00", b"something else"):
        (tmp_path / "x.npy").write_bytes(content)
        with pytest.raises(InputError, match="the sample cannot be read"):
            read_tensor(str(tmp_path / "x.npy"))
