"""The controller's process: `python -m jigsaw_triton.api.daemon STATE_DIR`. `deploy` starts it."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jigsaw_triton.api.request import Request
from jigsaw_triton.console.daemon import run_controller
from jigsaw_triton.controller.generation import Wanted
from jigsaw_triton.controller.paths import deployment_paths
from jigsaw_triton.controller.settings import Settings
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.servers.installation import find_installation


def read(request: Mapping[str, Any]) -> Wanted:
    """Reads the files that a request to deploy names."""
    return Request.from_json(request).read()


def main(state: str) -> int:
    """Runs the controller; returns the exit code."""
    # Files that the controller and its servers write are readable by their owner alone.
    os.umask(0o077)
    try:
        run_controller(deployment_paths(Path(state)), find_installation(), read, Settings())
    except JigsawError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
