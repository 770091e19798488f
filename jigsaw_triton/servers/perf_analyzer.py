"""Finds perf_analyzer, Triton's load generator."""

import shutil
import sys
from pathlib import Path

from jigsaw_triton.errors import MissingDependencyError


def find_perf_analyzer() -> Path:
    """Finds the perf_analyzer of this Python environment, else the one on PATH.

    Raises:
        MissingDependencyError: perf_analyzer is not installed.
    """
    # An environment that is not activated is not on PATH, so look beside the interpreter first.
    found = shutil.which("perf_analyzer", path=str(Path(sys.executable).parent)) or shutil.which("perf_analyzer")
    if found is None:
        raise MissingDependencyError(
            "perf_analyzer is missing",
            hint=f"run {sys.executable} -m pip install 'tritonclient[all]'",
        )
    return Path(found)
