"""Status API of a controller: JSON over HTTP on a Unix socket that only its owner can open."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from jigsaw_triton.console.metrics import CONTENT_TYPE, exposition
from jigsaw_triton.console.options import DEFAULTS, ProcessOptions
from jigsaw_triton.console.status import snapshot
from jigsaw_triton.controller.core.generation import ChangeRequest, Generation
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.persistence.checkpoint import pickled
from jigsaw_triton.controller.persistence.history import earlier
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.shell import Controller
from jigsaw_triton.errors import JigsawError, StateError

log = logging.getLogger(__name__)

MAX_WAIT_S = 30.0

Read = Callable[[Mapping[str, Any], Generation | None], ChangeRequest]
"""Function that loads a deploy request, whose files and flags come from the command line, given what serves now."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class StatusServer:
    """Serves GET /status, /metrics and /events, and POST /deploy, /rollback, /pause, /cordon, /remove-all and /down.

    Args:
        socket: Path of the socket to listen on.
        controller: Controller to serve.
        fleet: Servers of the controller.
        journal: Journal with the controller's event log.
        read: Function that reads a deploy request.
        options: Options of this process.
    """

    def __init__(
        self,
        socket: Path,
        controller: Controller,
        fleet: Fleet,
        journal: Journal,
        read: Read,
        options: ProcessOptions = DEFAULTS,
    ) -> None:
        self._socket = socket
        self._controller = controller
        self._fleet = fleet
        self._journal = journal
        self._read = read
        self._options = options
        self._asking = asyncio.Lock()
        app = web.Application(middlewares=[_errors])
        app.router.add_get("/status", self._status)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/events", self._events)
        app.router.add_post("/deploy", self._deploy)
        app.router.add_post("/rollback", self._rollback)
        app.router.add_post("/pause", self._pause)
        app.router.add_post("/cordon", self._cordon)
        app.router.add_post("/remove-all", self._remove_all)
        app.router.add_post("/down", self._down)
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=2.0, access_log=None)

    async def start(self) -> None:
        """Starts to listen."""
        await self._runner.setup()
        self._socket.unlink(missing_ok=True)
        await web.UnixSite(self._runner, str(self._socket)).start()
        self._socket.chmod(0o600)

    async def stop(self) -> None:
        """Stops, after up to two seconds for calls in progress."""
        await self._runner.cleanup()
        self._socket.unlink(missing_ok=True)

    async def _status(self, _: web.Request) -> web.Response:
        # Whoever asks may read the journal next, to see which MIG instances are ours.
        self._journal.sync()
        status = snapshot(self._controller, self._fleet, await self._fleet.use())
        status["controller"] |= self._options.to_json()
        return web.json_response(status)

    def metrics(self) -> str:
        """Returns the metrics of the controller."""
        return exposition(snapshot(self._controller, self._fleet), self._controller.totals)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self.metrics().encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _events(self, request: web.Request) -> web.Response:
        """Responds with the events after `after`. Waits up to `wait` seconds for one if there are none."""
        after = int(request.query.get("after", "0"))
        wait_s = min(float(request.query.get("wait", "0")), MAX_WAIT_S)
        events = self._journal.events(after)
        if not events and wait_s > 0:
            await self._controller.wait_changed(wait_s)
            events = self._journal.events(after)
        state = self._controller.state
        return web.json_response(
            {
                "events": [asdict(e) for e in events],
                "state": state.phase.value,
                "queued": state.queued is not None,
                "error": state.error,
                "error_code": state.error_code,
            }
        )

    async def _deploy(self, request: web.Request) -> web.Response:
        # The files are read before the response, so that it can report mistakes in them.
        await self._ask(partial(self._read, await request.json()))
        return web.json_response({}, status=202)

    async def _rollback(self, request: web.Request) -> web.Response:
        number = (await request.json())["generation"]
        if number is None and await self._controller.end_canary():
            return web.json_response({"ended_canary": True}, status=202)
        await self._ask(partial(self._restoring, number))
        return web.json_response({}, status=202)

    def _restoring(self, number: int | None, running: Generation | None) -> ChangeRequest:
        """Returns the request to return to an earlier generation."""
        if running is None:
            raise StateError("nothing serves yet", hint="wait for it: `jigsaw-triton status --wait ready`")
        found = earlier(self._journal, running.bundle.generation, number)
        return ChangeRequest(found.wanted, restored=found)

    async def _ask(self, read: Callable[[Generation | None], ChangeRequest]) -> None:
        """Reads a request to change what serves, and has the controller carry it out.

        Args:
            read: Function that reads the request, given what serves.
        """
        # One user at a time: the change of another would begin from what served before it.
        async with self._asking:
            while True:
                self._controller.check_free()
                running = self._controller.state.running
                asked = await asyncio.to_thread(_encoded, read, running)
                # A change that the load has called for may have ended meanwhile.
                if self._controller.state.running is running:
                    break
            await self._controller.ask(asked)

    async def _pause(self, request: web.Request) -> web.Response:
        await self._controller.pause((await request.json())["paused"])
        return web.json_response({}, status=202)

    async def _cordon(self, request: web.Request) -> web.Response:
        asked = await request.json()
        await self._controller.cordon(asked["node"], cordoned=asked["cordoned"], drain=asked["drain"])
        return web.json_response({}, status=202)

    async def _remove_all(self, request: web.Request) -> web.Response:
        await self._controller.remove_all((await request.json())["graphs"])
        return web.json_response({}, status=202)

    async def _down(self, _: web.Request) -> web.Response:
        self._controller.down()
        return web.json_response({}, status=202)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except JigsawError as error:
        body = {"message": error.message, "where": error.where, "hint": error.hint, "code": error.exit_code}
        return web.json_response({"error": body}, status=409)
    except ValueError as error:
        return web.json_response({"error": {"message": str(error), "where": "", "hint": "", "code": 2}}, status=400)
    except web.HTTPException:
        raise
    except Exception as error:
        log.exception("%s %s failed", request.method, request.path)
        message = f"{request.path} failed: {type(error).__name__}: {error}"
        hint = "see the controller's log: `jigsaw-triton logs controller`"
        return web.json_response({"error": {"message": message, "where": "", "hint": hint, "code": 1}}, status=500)


def _encoded(read: Callable[[Generation | None], ChangeRequest], running: Generation | None) -> ChangeRequest:
    """Reads a request and encodes its profiles, which takes long for hundreds of models. Blocks.

    A profile table encodes itself once. Otherwise the event loop would, for the checkpoint that has the request.
    """
    asked = read(running)
    pickled(asked)
    return asked
