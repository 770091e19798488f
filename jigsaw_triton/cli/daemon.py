"""The controller's process: `python -m jigsaw_triton.cli.daemon STATE_DIR`; `deploy` starts it."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jigsaw_triton.cli.inputs.files import read_wanted
from jigsaw_triton.cli.inputs.request import Request
from jigsaw_triton.cli.io.output import Output
from jigsaw_triton.console.daemon import run_controller
from jigsaw_triton.controller.generation import Wanted
from jigsaw_triton.controller.paths import deployment_paths
from jigsaw_triton.controller.settings import Settings
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.servers.installation import find_installation


def read(request: Mapping[str, Any]) -> Wanted:
    """What a deploy request names."""
    return Request.of_json(request).read(Output(), read_wanted)


def main(state: str) -> int:
    """Runs the controller; returns the exit code."""
    # Whatever it and its servers write is its owner's alone.
    os.umask(0o077)
    try:
        run_controller(deployment_paths(Path(state)), find_installation(), read, Settings())
    except JigsawError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
