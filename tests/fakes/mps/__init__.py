"""A stand-in for `nvidia-cuda-mps-control`: the daemon, the MPS server that it starts, and the program that asks it."""

import sys
from pathlib import Path

_PROGRAM = Path(__file__).with_name("control.py")


def install(folder: Path, *, like: str = "") -> Path:
    """Puts the program into a folder, for PATH; returns the folder.

    Args:
        folder: Made if it is not there.
        like: `broken`, which ends at once, or `deaf`, which knows of no clients; empty where all is well.
    """
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "nvidia-cuda-mps-control"
    program.write_text(f'#!/bin/sh\nMPS_STANDIN="{like}" exec {sys.executable} {_PROGRAM} "$@"\n')
    program.chmod(0o755)
    return folder
