"""Runners, which execute variants inside the Python backend; `RunnerSpec.runner` names one of these modules."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from jigsaw_triton.runtime.runners.base import Runner
from jigsaw_triton.runtime.spec import RunnerSpec

__all__ = ["RUNNERS", "Runner", "load_runner"]

RUNNERS = ("emulated", "python", "torch", "transformers")


def load_runner(folder: Path, spec: RunnerSpec, instance: str = "") -> Runner:
    """Loads a variant.

    Args:
        folder: Version folder of the model, which contains its artifacts.
        spec: Specification of the variant.
        instance: Name of the model's instance, unique in the deployment.

    Raises:
        RuntimeError: The runner is unknown, a package or an artifact is missing, or the model does not match the spec.
    """
    if spec.runner not in RUNNERS:
        raise RuntimeError(f"there is no runner {spec.runner!r}; use one of {', '.join(RUNNERS)}")
    try:
        with _uncollected():
            module = import_module(f"{__name__}.{spec.runner}")
    except ModuleNotFoundError as error:
        if error.name != spec.runner:
            raise
        raise RuntimeError(
            f"runner {spec.runner}: the server's Python lacks the package {error.name}; run pip install {error.name}"
        ) from error
    runner: Runner = module.load(folder, spec, instance)
    return runner


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keeps Python's garbage collector from running inside the `with` block.

    It takes a sixth of the import of torch and a quarter of that of transformers, and finds hardly anything.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
