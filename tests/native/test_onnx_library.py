"""ONNX Runtime's library: where it is found, and which ones are refused."""

import subprocess
from pathlib import Path

import pytest

from native.compiler import find_compiler
from tests.native.onnx import PACKAGES, LoadError, OnnxModel, find_library, runner, tensor

pytest.importorskip("onnxruntime")

PAIR = {"X": tensor("FP32", 2)}


def test_the_error_for_an_unusable_gpu_says_what_to_install(tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime supports GPUs")
    with pytest.raises(
        LoadError, match=r"ONNX Runtime .* cannot use the GPU: .*; install the CUDA and cuDNN libraries"
    ):
        OnnxModel(tmp_path / "model.onnx", runner(PAIR, PAIR), gpu=True)


def test_the_library_is_found_in_the_packages() -> None:
    found = find_library(f"/nowhere:{PACKAGES}")
    assert found.parent.parts[-2:] == ("onnxruntime", "capi")
    assert found.name.startswith("libonnxruntime.so")


@pytest.mark.parametrize("folders", ["", "/nowhere:/neither"])
def test_the_error_for_a_missing_library_says_what_to_install(folders: str) -> None:
    with pytest.raises(LoadError, match=r"ONNX Runtime was not found in .*; install the Python package onnxruntime"):
        find_library(folders)


def test_a_package_without_the_library_is_too_old(tmp_path: Path) -> None:
    capi = tmp_path / "onnxruntime" / "capi"
    capi.mkdir(parents=True)
    with pytest.raises(LoadError, match=r"/onnxruntime/capi is too old: .*; install .* onnxruntime 1\.20 or later"):
        find_library(f"{tmp_path}:/nowhere")
    assert find_library(f"{tmp_path}:{PACKAGES}") == find_library()


def compiled(folder: Path, code: str) -> Path:
    """Compiles a library in place of ONNX Runtime's."""
    source, library = folder / "library.c", folder / "libonnxruntime.so"
    source.write_text(code)
    command = [*find_compiler().command, "-x", "c", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library


OLD = """
struct base { void *(*api)(unsigned); const char *(*release)(void); };
static void *api(unsigned version) { return 0; }
static const char *release(void) { return "1.9.0"; }
static const struct base made = { api, release };
const struct base *OrtGetApiBase(void) { return &made; }
"""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            OLD,
            r"libonnxruntime\.so is ONNX Runtime 1\.9\.0, which is too old; install the Python package onnxruntime 1",
        ),
        ("int other;", r"libonnxruntime\.so is not ONNX Runtime; install the Python package onnxruntime"),
    ],
    ids=["old", "other"],
)
def test_another_library_is_refused(tmp_path: Path, code: str, message: str) -> None:
    with pytest.raises(LoadError, match=message):
        OnnxModel(tmp_path / "model.onnx", runner(PAIR, PAIR), compiled(tmp_path, code))


def test_a_damaged_library_is_refused(tmp_path: Path) -> None:
    library = tmp_path / "libonnxruntime.so"
    library.write_text("damaged")
    with pytest.raises(LoadError, match=r"ONNX Runtime cannot be loaded: .*libonnxruntime\.so.*; install the Python"):
        OnnxModel(tmp_path / "model.onnx", runner(PAIR, PAIR), library)
