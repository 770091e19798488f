"""Speaks to the status interface of a running controller. Blocking: for the command line."""

import http.client
import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jigsaw_triton.errors import InputError, JigsawError, StateError

_ERRORS: Mapping[int, type[JigsawError]] = {2: InputError, 4: StateError}


class ControllerGoneError(StateError):
    """No controller answers."""


class ControllerClient:
    """One controller.

    Args:
        path: Its socket.
        timeout_s: For a call, beyond what the call itself waits.
    """

    def __init__(self, path: Path, timeout_s: float = 30.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def status(self) -> dict[str, Any]:
        """What `status -o json` prints."""
        return self._call("GET", "/status")

    def events(self, after: int = 0, wait_s: float = 0.0) -> dict[str, Any]:
        """Events with an id greater than `after`, and the state; waits for one where there is none yet."""
        return self._call("GET", f"/events?after={after}&wait={wait_s}", extra_s=wait_s)

    def deploy(self, request: Mapping[str, Any]) -> None:
        """Asks for a deployment.

        Raises:
            StateError: Another one is under way.
            InputError: The files are wrong.
        """
        self._call("POST", "/deploy", json.dumps(request))

    def down(self) -> None:
        """Asks to take all down."""
        self._call("POST", "/down")

    def _call(self, method: str, path: str, body: str | None = None, *, extra_s: float = 0.0) -> dict[str, Any]:
        connection = _UnixConnection(self._path, self._timeout_s + extra_s)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            text = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise ControllerGoneError(
                "no controller runs here", where=str(self._path), hint="start one with `jigsaw-triton deploy`"
            ) from error
        finally:
            connection.close()
        try:
            data: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise JigsawError(
                f"the controller's answer ({response.status}) is not JSON",
                where=str(self._path),
                hint="its log says why: `jigsaw-triton logs controller`",
            ) from error
        if "error" in data and response.status >= 400:
            told = data["error"]
            kind = _ERRORS.get(told["code"], JigsawError)
            raise kind(told["message"], where=told["where"], hint=told["hint"])
        return data


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
