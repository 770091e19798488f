"""The controller's process: `python -m jigsaw_triton.api.daemon STATE_DIR [--resume [--standby]]`.

The supervisor starts it.
"""

import argparse
import gc

if __name__ == "__main__":
    # Objects that imports create are never garbage. Searching them would take a tenth of a controller's start.
    gc.disable()

import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jigsaw_triton.api import membership
from jigsaw_triton.api.request import Request
from jigsaw_triton.api.supervisor import CRASHED
from jigsaw_triton.console.daemon import run_controller
from jigsaw_triton.console.options import options_from
from jigsaw_triton.controller.core.generation import ChangeRequest, Generation
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.errors import JigsawError
from jigsaw_triton.logs import LogFormat, final_entry
from jigsaw_triton.servers.installation import find_installation

_NAME = "jigsaw_triton.api.daemon"
"""Name of this module, which is `__main__` when it runs."""


def read(request: Mapping[str, Any], running: Generation | None) -> ChangeRequest:
    """Reads the files that a request to deploy names.

    Args:
        request: The request.
        running: Generation that serves, which graphs may join or leave; None if none does.
    """
    asked = Request.from_json(request)
    if not asked.changes_membership:
        return ChangeRequest(asked.read(), canary=asked.wanted_canary)
    before = membership.serving(running)
    wanted = asked.read(before.wanted)
    return ChangeRequest(
        wanted,
        membership.reason(before.wanted, wanted),
        canary=asked.wanted_canary,
        provided_rps=membership.provided_rps(before, wanted),
    )


def main(state: str, *, resume: bool) -> int:
    """Runs the controller; returns the exit code.

    Args:
        state: State folder of the deployment.
        resume: True if the controller continues for one that died.
    """
    # Files that the controller and its servers write are readable by their owner alone.
    os.umask(0o077)
    # The event loop waits for the garbage collector, and most of the objects that it looks at are those of the modules.
    gc.freeze()
    gc.enable()
    form: LogFormat = "text"
    try:
        options = options_from(os.environ)
        form = options.log_format or form
        paths = deployment_paths(Path(state))
        run_controller(paths, find_installation(), read, Settings(), resume=resume, options=options)
    except JigsawError as error:
        sys.stderr.write(f"{final_entry(form, _NAME, str(error))}\n")
        return error.exit_code
    except Exception as error:
        sys.stderr.write(f"{final_entry(form, _NAME, f'the controller crashed: {error!r}', traceback.format_exc())}\n")
        return CRASHED
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("state")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--standby", action="store_true", help="wait for a line on stdin; end if there is none")
    arguments = parser.parse_args()
    if arguments.standby and not sys.stdin.readline():
        sys.exit(0)
    sys.exit(main(arguments.state, resume=arguments.resume))
