"""A stand-in for docker and podman, which runs this machine's tritonserver as a plain process for each container."""

import sys
from pathlib import Path

_PROGRAM = Path(__file__).with_name("docker.py")


class Docker:
    """Installs the program in a folder for PATH and keeps the state of its images and containers.

    Args:
        folder: Folder for program and state; created if missing.
        images: Names of the local images. Others can be pulled unless their name contains `missing`.
        program: Name of the program: `docker` or `podman`.
    """

    def __init__(self, folder: Path, *images: str, program: str = "docker") -> None:
        self.folder = folder / "bin"
        self._state = folder / "state"
        for path in (self.folder, self._state):
            path.mkdir(parents=True, exist_ok=True)
        (self._state / "images").write_text("".join(f"{image}\n" for image in images))
        (self._state / "calls").touch()
        self.program = self.folder / program
        self.program.write_text(f'#!/bin/sh\nDOCKER_STANDIN={self._state} exec {sys.executable} {_PROGRAM} "$@"\n')
        self.program.chmod(0o755)

    def containers(self) -> list[str]:
        """Returns the names of the existing containers."""
        return sorted(path.stem for path in self._state.glob("*.json"))

    def runs(self) -> list[str]:
        """Returns the command lines that started servers, without those that only inspected an image."""
        return [call for call in self.calls() if call.startswith("run ") and "--entrypoint" not in call]

    def calls(self) -> list[str]:
        """Returns all command lines so far, without the program."""
        return (self._state / "calls").read_text().splitlines()
