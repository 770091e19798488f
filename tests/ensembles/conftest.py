import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from numpy.typing import NDArray

from jigsaw_triton.resources import applications_dir

Array = NDArray[Any]

Script = Callable[[str], ModuleType]
"""Function that imports a file of the ready applications by its path, such as `docread/models/detect.py`."""


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
