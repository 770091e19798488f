import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from numpy.typing import NDArray

from jigsaw_triton.api.files import load_graph
from jigsaw_triton.resources import applications_dir

Array = NDArray[Any]

Script = Callable[[str], ModuleType]
"""Function that imports a file of the ready applications by its path, such as `docread/models/detect.py`."""

CallModel = Callable[[Mapping[str, Array]], Mapping[str, Array]]

Load = Callable[[str, str, str], CallModel]
"""Function that loads the model of a variant, given an application, a task and the variant's name."""


@pytest.fixture(scope="session")
def script() -> Iterator[Script]:
    """Puts the applications' folders on the import path: their files import each other by their bare names."""
    root = applications_dir()
    before = list(sys.path)
    sys.path[:0] = [str(root / name) for name in ("docread", "digits-strip", "digits", "traffic-cpu")]

    def load(path: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), root / path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[module.__name__] = module
        spec.loader.exec_module(module)
        return module

    yield load
    sys.path[:] = before


@pytest.fixture(scope="session")
def load_model(script: Script) -> Load:
    """Loads models as a worker does: from a folder with the variant's artifacts."""

    def load(application: str, task: str, name: str) -> CallModel:
        variant = load_graph(applications_dir() / application).tasks[task].variant(name)
        code = variant.artifacts["model.py"].relative_to(applications_dir())
        with tempfile.TemporaryDirectory() as folder:
            for file, source in variant.artifacts.items():
                Path(folder, file).symlink_to(source)
            model: CallModel = script(str(code)).Model(Path(folder), variant.parameters, 1)
        return model

    return load
