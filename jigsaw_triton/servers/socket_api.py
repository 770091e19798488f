"""JSON over HTTP on a Unix socket that only its owner can open: the form of the controller's and of an agent's API."""

import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from aiohttp import web

from jigsaw_triton.errors import InputError, JigsawError

log = logging.getLogger(__name__)

MAX_WAIT_S = 30.0
"""Seconds that a call may wait for something to happen, at most."""

_BODY_BYTES = 2**20

_MOST_DIGITS = 15
"""Digits of the largest whole number in a query, which any reader of it can hold."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class SocketApi:
    """Serves routes on a Unix socket.

    Args:
        socket: Path of the socket to listen on.
        routes: Routes, as `aiohttp.web.get` and its siblings return them.
        owner: Name of the program whose log has unexpected errors, as `jigsaw-triton logs` takes it.
        body_bytes: Size in bytes of the largest body of a request.
        grace_s: Seconds that `stop` waits for calls in progress.
    """

    def __init__(
        self,
        socket: Path,
        routes: Iterable[web.RouteDef],
        *,
        owner: str,
        body_bytes: int = _BODY_BYTES,
        grace_s: float = 2.0,
    ) -> None:
        self._socket = socket
        app = web.Application(middlewares=[errors_as_json(owner)], client_max_size=body_bytes)
        app.add_routes(routes)
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=grace_s, access_log=None)
        self._made: tuple[int, int] | None = None

    async def start(self) -> None:
        """Starts to listen."""
        await self._runner.setup()
        self._socket.unlink(missing_ok=True)
        await web.UnixSite(self._runner, str(self._socket)).start()
        self._socket.chmod(0o600)
        self._made = self._identity()

    async def stop(self) -> None:
        """Stops, after a moment for calls in progress. A socket that another process has made since stays."""
        await self._runner.cleanup()
        if self._made is not None and self._identity() == self._made:
            self._socket.unlink(missing_ok=True)

    def _identity(self) -> tuple[int, int] | None:
        """Returns the device and the inode of the socket; None if there is none."""
        try:
            found = self._socket.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def errors_as_json(owner: str) -> Any:
    """Returns a middleware that responds with each error as JSON: its message, place, hint and exit code.

    Args:
        owner: Name of the program whose log has unexpected errors.
    """

    @web.middleware
    async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except JigsawError as error:
            return error_response(error, 409)
        except (KeyError, TypeError) as error:
            # A body of another release may lack a key.
            text = f"{request.path}: the call is malformed: {type(error).__name__}: {error}"
            log.warning("%s", text, exc_info=True)
            return error_response(InputError(text), 400)
        except ValueError as error:
            return error_response(InputError(str(error)), 400)
        except web.HTTPException:
            raise
        except Exception as error:
            log.exception("%s %s failed", request.method, request.path)
            text = f"{request.path} failed: {type(error).__name__}: {error}"
            hint = f"see its log: `jigsaw-triton logs {owner}`"
            return error_response(JigsawError(text, hint=hint), 500)

    return errors


def error_response(error: JigsawError, status: int) -> web.Response:
    """Returns a response with an error as JSON."""
    body = {"message": error.message, "where": error.where, "hint": error.hint, "code": error.exit_code}
    return web.json_response({"error": body}, status=status)


def whole_number(request: web.Request, name: str, default: int = 0) -> int:
    """Returns a parameter of the query that is a whole number, 0 or more.

    Raises:
        InputError: The parameter is something else.
    """
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
        raise InputError(f"{name} is not a whole number", where=repr(text))
    return int(text)


def seconds(request: web.Request, name: str = "wait", default: float = 0.0) -> float:
    """Returns a parameter of the query that is a number of seconds, 0 or more.

    Raises:
        InputError: The parameter is something else.
    """
    text = request.query.get(name, str(default))
    try:
        value = float(text)
    except ValueError as error:
        raise InputError(f"{name} is not a number of seconds", where=repr(text)) from error
    if not value >= 0:
        raise InputError(f"{name} is not a number of seconds", where=repr(text))
    return value
