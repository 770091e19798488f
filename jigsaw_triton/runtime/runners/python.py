"""Runner of variants that are written in Python.

The artifact is `model.py`, stored as `variant.py` because Triton itself uses `model.py`. It defines a class `Model`
with `__init__(self, folder: Path, parameters: Mapping[str, str], threads: int)` and
`__call__(self, inputs: Mapping[str, ndarray]) -> Mapping[str, ndarray]`; arrays have a leading batch dimension.
"""

import importlib.util
import sys
import uuid
from pathlib import Path
from typing import Any

from jigsaw_triton.runtime.dtypes import Arrays
from jigsaw_triton.runtime.runners.base import Runner, artifact
from jigsaw_triton.runtime.spec import RunnerSpec

FILE_NAME = "variant.py"


class PythonRunner(Runner):
    """An instance of the class that the user's code defines.

    Args:
        spec: Specification of the variant.
        model: Instance of the user's class.
    """

    def __init__(self, spec: RunnerSpec, model: Any) -> None:
        super().__init__(spec)
        self._model = model

    def run(self, inputs: Arrays) -> Arrays:
        """Calls the instance once."""
        outputs: Arrays = self._model(inputs)
        return outputs


def load(folder: Path, spec: RunnerSpec, _instance: str) -> PythonRunner:
    """Imports the file and creates an instance of its class.

    Raises:
        RuntimeError: The file is missing or defines no class `Model`.
    """
    path = artifact(folder, "model.py", stored_as=FILE_NAME)
    name = f"jigsaw_variant_{uuid.uuid4().hex}"
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module
    module_spec.loader.exec_module(module)
    if not hasattr(module, "Model"):
        raise RuntimeError("the variant's model.py defines no class Model; define one")
    return PythonRunner(spec, module.Model(folder, spec.parameters, spec.threads))
