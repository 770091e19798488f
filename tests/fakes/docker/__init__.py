"""A stand-in for docker and podman, which runs this machine's tritonserver as a process in the place of a container."""

import sys
from pathlib import Path

_PROGRAM = Path(__file__).with_name("docker.py")


class Docker:
    """The program in a folder for PATH, with its images and containers beside it.

    Args:
        folder: Made if it is not there.
        images: That are there; others can be pulled unless they are called `missing`.
        program: `docker` or `podman`.
    """

    def __init__(self, folder: Path, *images: str, program: str = "docker") -> None:
        self.folder = folder / "bin"
        self._state = folder / "state"
        for made in (self.folder, self._state):
            made.mkdir(parents=True, exist_ok=True)
        (self._state / "images").write_text("".join(f"{image}\n" for image in images))
        (self._state / "calls").touch()
        self.program = self.folder / program
        self.program.write_text(f'#!/bin/sh\nDOCKER_STANDIN={self._state} exec {sys.executable} {_PROGRAM} "$@"\n')
        self.program.chmod(0o755)

    def containers(self) -> list[str]:
        """Names of the containers that are there."""
        return sorted(path.stem for path in self._state.glob("*.json"))

    def runs(self) -> list[str]:
        """Those that run containers which stay."""
        return [call for call in self.calls() if call.startswith("run ") and "--entrypoint" not in call]

    def calls(self) -> list[str]:
        """Command lines so far, without the program."""
        return (self._state / "calls").read_text().splitlines()
