"""Triton's load generator: where it is."""

import shutil
import sys
from pathlib import Path

from jigsaw_triton.errors import MissingDependencyError


def find_perf_analyzer() -> Path:
    """The perf_analyzer of this Python environment, else the one on PATH.

    Raises:
        MissingDependencyError: There is none.
    """
    # Beside the interpreter first: an environment that is not activated is not on PATH.
    found = shutil.which("perf_analyzer", path=str(Path(sys.executable).parent)) or shutil.which("perf_analyzer")
    if found is None:
        raise MissingDependencyError(
            "perf_analyzer is missing",
            hint=f"run {sys.executable} -m pip install 'tritonclient[all]'",
        )
    return Path(found)
