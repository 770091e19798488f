"""A stand-in for `nvidia-cuda-mps-control`: the daemon, the MPS server that it starts, and its command-line client."""

import sys
from pathlib import Path

_PROGRAM = Path(__file__).with_name("control.py")


def install(folder: Path, *, like: str = "") -> Path:
    """Installs the program in a folder for PATH, and returns the folder.

    Args:
        folder: Folder for the program; created if missing.
        like: Fault of the daemon: `broken` exits at once, and `deaf` never sees a client. Empty for a healthy daemon.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "nvidia-cuda-mps-control"
    program.write_text(f'#!/bin/sh\nMPS_STANDIN="{like}" exec {sys.executable} {_PROGRAM} "$@"\n')
    program.chmod(0o755)
    return folder
