"""Fronts over the gateways of cells."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.errors import StateError
from jigsaw_triton.front.build import build_front
from jigsaw_triton.front.model import Front
from jigsaw_triton.spec import load as spec

if TYPE_CHECKING:
    from jigsaw_triton.api.files import PathLike

_STATE = "front.state"


class FrontFile:
    """A front, running or not, with the front.yaml that it is run with.

    Args:
        path: Path of a front.yaml or its folder.
        state: Folder of the front; by default `front.state` beside the file.
        http: Port for HTTP, instead of the file's.
        grpc: Port for gRPC, instead of the file's.
        metrics: Port of the front's own metrics, instead of the file's.
        address: IPv4 address to listen on, instead of the file's.
    """

    def __init__(
        self,
        path: "PathLike",
        state: "PathLike | None" = None,
        *,
        http: int | None = None,
        grpc: int | None = None,
        metrics: int | None = None,
        address: str | None = None,
    ) -> None:
        self.path = Path(path)
        folder = self.path if self.path.is_dir() else self.path.parent
        self.paths = deployment_paths(Path(state) if state is not None else folder / _STATE)
        listen = {"http": http, "grpc": grpc, "metrics": metrics, "address": address}
        self._listen = {key: value for key, value in listen.items() if value is not None}

    def read(self) -> Front:
        """Reads the file.

        Raises:
            SpecError: The file has mistakes; the error has a diagnostic for each.
        """
        loaded = spec.load_front(self.path)
        document = loaded.document
        if self._listen:
            entry = document.spec.listen.model_copy(update=self._listen)
            own = document.spec.model_copy(update={"listen": entry})
            loaded = replace(loaded, document=document.model_copy(update={"spec": own}))
        return build_front(loaded)

    def run(self) -> None:
        """Runs the front in this process until SIGTERM or SIGINT.

        Raises:
            StateError: Another front runs with this folder.
            InputError: The file has mistakes, or a port is in use.
            JigsawError: HAProxy cannot be fetched or does not start.
        """
        from jigsaw_triton.front.process import run_front

        run_front(self.paths, self.read)

    def find_status(self) -> dict[str, Any] | None:
        """Returns the state of the front, and of each cell for each graph; None if it does not run.

        Raises:
            SpecError: The file has mistakes.
        """
        from jigsaw_triton.front.status import front_status

        return asyncio.run(front_status(self.paths, self.read()))

    def status(self) -> dict[str, Any]:
        """Returns the same as `find_status`.

        Raises:
            StateError: The front does not run.
            SpecError: The file has mistakes.
        """
        status = self.find_status()
        if status is None:
            hint = f"start it: `jigsaw-triton front {self.path}`"
            raise StateError("no front is running here", where=str(self.paths.state), hint=hint)
        return status
