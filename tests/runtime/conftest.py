import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jigsaw_triton.resources import templates_dir
from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.runtime.spec import (
    RUN_DIR_VARIABLE,
    PipelineSpec,
    RunnerSpec,
    StepSpec,
    to_json,
)
from tests.runtime import fake_pb_utils as pb

Start = Callable[..., Any]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Start]:
    """Returns a function that loads a template's model.py and initialises its model with a spec."""
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path / "run"))
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", pb)
    monkeypatch.setattr(pb.InferenceRequest, "models", {})
    before = set(sys.modules)
    models = []

    def load(template: str, spec: RunnerSpec | StepSpec | PipelineSpec, folder: Path = Path("/none")) -> Any:
        path = templates_dir() / template / "model.py"
        module_spec = importlib.util.spec_from_file_location(f"template_{template}", path)
        assert module_spec is not None
        assert module_spec.loader is not None
        module = importlib.util.module_from_spec(module_spec)
        module_spec.loader.exec_module(module)
        model = module.TritonPythonModel()
        config = {"parameters": {"spec": {"string_value": to_json(spec)}}}
        args = {"model_name": "d", "model_instance_name": "d_0_0", "model_config": json.dumps(config)}
        model.initialize({**args, "model_repository": str(folder), "model_version": "1"})
        models.append(model)
        return model

    yield load
    for model in models:
        if hasattr(model, "finalize"):
            model.finalize()
    for name in set(sys.modules) - before:
        if name.startswith("jigsaw_triton.runtime"):
            del sys.modules[name]


def column(*values: int) -> Array:
    return np.array(values, np.int64).reshape(-1, 1)


def content(response: pb.InferenceResponse) -> dict[str, list[int]] | tuple[str, int]:
    error = response.error()
    if error is not None:
        return error.message(), error.code()
    return {tensor.name(): tensor.as_numpy().ravel().tolist() for tensor in response.output_tensors()}
