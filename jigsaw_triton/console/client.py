"""Client of a running controller's status API. Its calls block; it is for the command line."""

import http.client
import json
import socket
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jigsaw_triton.errors import InputError, JigsawError, StateError

_ERRORS: Mapping[int, type[JigsawError]] = {2: InputError, 4: StateError}

_GONE_HINT = (
    "`jigsaw-triton status` waits for a controller that is being restarted, and shows what serves. Then repeat the "
    "command if its change is missing"
)


class ControllerGoneError(StateError):
    """No controller answers at the socket."""


class ControllerHungError(StateError):
    """The controller is running, but does not answer."""


class ControllerClient:
    """Client of one controller.

    Args:
        path: Socket of the controller.
        timeout_s: Seconds without an answer after which the controller counts as hung, in addition to the time that the
            call itself waits for events.
    """

    def __init__(self, path: Path, timeout_s: float = 30.0) -> None:
        self._path = path
        self._timeout_s = timeout_s

    def status(self) -> dict[str, Any]:
        """Returns the status, which is the document that `status -o json` prints."""
        return self._call("GET", "/status")

    def events(self, after: int = 0, wait_s: float = 0.0) -> dict[str, Any]:
        """Returns the state and the events with an id greater than `after`. Waits up to `wait_s` if there are none."""
        return self._call("GET", f"/events?after={after}&wait={wait_s}", extra_s=wait_s)

    def view(self, version: str, event: int | None, sample: float, wait_s: float) -> dict[str, Any]:
        """Returns what is new for the web console. Waits up to `wait_s` for a change of the state.

        Args:
            version: Version of the view that is known; empty for none.
            event: Number of the last event that is known; None to get no events.
            sample: Time of the last sample of the load that is known, in seconds since 1970.
            wait_s: Seconds to wait.
        """
        query = {"version": version, "sample": repr(sample), "wait": repr(wait_s)}
        if event is not None:
            query["event"] = str(event)
        return self._call("GET", f"/view?{urlencode(query)}", extra_s=wait_s)

    def deploy(self, request: Mapping[str, Any], copying_s: float = 0.0) -> None:
        """Requests a deployment.

        Args:
            request: The request.
            copying_s: Seconds that the controller may take to copy the files of the models.

        Raises:
            StateError: Another deploy is in progress.
            InputError: The files have mistakes.
        """
        self._call("POST", "/deploy", json.dumps(request), extra_s=copying_s)

    def rollback(self, generation: int | None) -> bool:
        """Requests a return to an earlier generation; None for the last one that served before.

        Returns:
            True if the request has ended a canary instead, because `generation` is None and one is in progress.

        Raises:
            StateError: Another deploy is in progress, or there is no such generation.
        """
        return bool(self._call("POST", "/rollback", json.dumps({"generation": generation})).get("ended_canary"))

    def pause(self, paused: bool) -> None:
        """Requests that the measured load cause no change, or that it do so again."""
        self._call("POST", "/pause", json.dumps({"paused": paused}))

    def cordon(self, node: str, *, cordoned: bool, drain: bool = False) -> None:
        """Requests that a node be withdrawn from new plans, or returned.

        Args:
            node: Name of the node.
            cordoned: True to withdraw it.
            drain: True to plan at once, so that the workers on it are replaced.

        Raises:
            InputError: The cluster has no such node.
        """
        self._call("POST", "/cordon", json.dumps({"node": node, "cordoned": cordoned, "drain": drain}))

    def remove_all(self, names: Collection[str]) -> None:
        """Requests that the deployment be taken down if it serves only graphs of these names.

        Raises:
            StateError: Another deploy is in progress, or other graphs are served.
        """
        self._call("POST", "/remove-all", json.dumps({"graphs": list(names)}))

    def down(self) -> None:
        """Requests that the deployment be taken down."""
        self._call("POST", "/down")

    def _call(self, method: str, path: str, body: str | None = None, *, extra_s: float = 0.0) -> dict[str, Any]:
        connection, reached = _UnixConnection(self._path, self._timeout_s + extra_s), False
        try:
            connection.connect()
            reached = True
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            response = connection.getresponse()
            text = response.read()
        except (TimeoutError, BlockingIOError) as error:
            # The kernel's queue of connections is full if the controller accepts none, so connecting blocks.
            raise hung(self._path) from error
        except (OSError, http.client.HTTPException) as error:
            message = "the controller ended before it answered" if reached else "no controller is running here"
            raise ControllerGoneError(message, where=str(self._path), hint=_GONE_HINT) from error
        finally:
            connection.close()
        try:
            data: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise JigsawError(
                f"the controller's answer ({response.status}) is not JSON",
                where=str(self._path),
                hint="see its log: `jigsaw-triton logs controller`",
            ) from error
        if "error" in data and response.status >= 400:
            details = data["error"]
            kind = _ERRORS.get(details["code"], JigsawError)
            raise kind(details["message"], where=details["where"], hint=details["hint"])
        return data


def hung(where: Path) -> ControllerHungError:
    """Returns the error that the controller does not answer."""
    return ControllerHungError(
        "the controller is running, but does not answer; the servers go on",
        where=str(where),
        hint="`jigsaw-triton logs controller` may say why; `jigsaw-triton down` ends the controller and the servers",
    )


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
