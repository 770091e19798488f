"""A process that handles the models of several tests: a new one would import the libraries of the models again."""

from collections.abc import Iterator
from typing import Any

import pytest

from jigsaw_triton.api import variants
from jigsaw_triton.child_process import ChildProcess
from jigsaw_triton.models import describing, running


class KeptProcess(ChildProcess):
    """A process that goes on when its user closes it. It still ends when a call fails."""

    def call(self, request: object, timeout_s: float) -> Any:
        try:
            return super().call(request, timeout_s)
        except BaseException:
            # A late answer would be taken for that to another request.
            self.kill()
            raise

    def close(self) -> None:
        pass

    def end(self) -> None:
        """Ends the process and closes the pipe."""
        super().close()


class KeptProcesses:
    """Starts a process where there is none, and returns the one that there is otherwise."""

    def __init__(self) -> None:
        self._process: KeptProcess | None = None

    def start(self, module: str) -> ChildProcess:
        if self._process is None or not self._process.alive:
            self.end()
            self._process = KeptProcess(module)
        return self._process

    def end(self) -> None:
        if self._process is not None:
            self._process.end()


@pytest.fixture(scope="module")
def kept_processes() -> Iterator[KeptProcesses]:
    processes = KeptProcesses()
    yield processes
    processes.end()


@pytest.fixture
def kept_models(kept_processes: KeptProcesses, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets all tests of a module handle models in the same process."""
    for module in (describing, running, variants):
        monkeypatch.setattr(module, "ChildProcess", kept_processes.start)
