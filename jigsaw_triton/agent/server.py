"""The agent's API: JSON over HTTP on a Unix socket. Other machines reach it through the node's side of the transport.

Operations that take long are ordered with a number of the caller's choice and asked for until they end, so that a lost
connection neither loses nor repeats one.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiohttp import web

from jigsaw_triton import __version__
from jigsaw_triton.agent.contents import Contents
from jigsaw_triton.agent.node_agent import ADOPT, FINAL, KINDS, NodeAgent
from jigsaw_triton.controller.fleet.wire import DEPLOYMENT_HEADER, EPOCH_HEADER, WIRE_VERSION, Json
from jigsaw_triton.errors import InputError, JigsawError, StateError
from jigsaw_triton.servers.installation import Installation

MAX_WAIT_S = 30.0

_ANSWERED_S = 0.5
"""Seconds in which an answer reaches the controller, before the proxy ends that carries it."""

_CHUNK_BYTES = 2**20
_BODY_BYTES = 64 * 2**20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AgentServer:
    """Serves one agent.

    Args:
        socket: Path of the socket to listen on.
        name: Name of the node.
        agent: The agent.
        contents: Files of models.
        installation: Tritonserver of this machine.
        end: Ends the agent with its proxy.
        grace_s: Seconds that `stop` waits for calls in progress.
    """

    def __init__(
        self,
        socket: Path,
        name: str,
        agent: NodeAgent,
        contents: Contents,
        installation: Installation,
        *,
        end: Callable[[], None] = lambda: None,
        grace_s: float = 2.0,
    ) -> None:
        self._socket = socket
        self._name = name
        self._agent = agent
        self._contents = contents
        self._installation = installation
        self._end_agent = end
        app = web.Application(middlewares=[_errors], client_max_size=_BODY_BYTES)
        app.router.add_get("/node", self._node)
        app.router.add_get("/pulse", self._pulse)
        app.router.add_post("/survey", self._survey)
        app.router.add_post("/end", self._end)
        app.router.add_get("/use", self._use)
        app.router.add_get("/lost", self._lost)
        app.router.add_put("/contents/{digest}", self._receive)
        app.router.add_post("/operations/{number}", self._begin)
        app.router.add_get("/operations/{number}", self._outcome)
        app.router.add_delete("/operations/{number}", self._cancel)
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=grace_s, access_log=None)

    async def start(self) -> None:
        """Starts to listen."""
        await self._runner.setup()
        self._socket.unlink(missing_ok=True)
        await web.UnixSite(self._runner, str(self._socket)).start()
        self._socket.chmod(0o600)

    async def stop(self) -> None:
        """Stops, after a moment for calls in progress."""
        await self._runner.cleanup()
        self._socket.unlink(missing_ok=True)

    async def _node(self, _: web.Request) -> web.Response:
        """Responds with what a controller compares before it starts anything."""
        workers = self._installation
        return web.json_response(
            {
                "name": self._name,
                "release": __version__,
                "wire": WIRE_VERSION,
                "agent": self._agent.id,
                "tritonserver": workers.version,
                "backends": sorted(workers.backends),
                "utc_s": time.time(),
                "workers": self._agent.names(),
            }
        )

    async def _pulse(self, request: web.Request) -> web.Response:
        """Responds with the running workers and the events after `after`. Waits up to `wait` seconds for one."""
        self._admit(request)
        after = _number(request, "after")
        await self._agent.wait(after, min(_seconds(request), MAX_WAIT_S))
        return web.json_response(self._agent.pulse(after))

    async def _survey(self, request: web.Request) -> web.Response:
        self._admit(request)
        return web.json_response(await self._agent.survey(await request.json()))

    async def _use(self, request: web.Request) -> web.Response:
        self._admit(request)
        return web.json_response({name: asdict(use) for name, use in (await self._agent.use()).items()})

    async def _lost(self, request: web.Request) -> web.Response:
        self._admit(request)
        return web.json_response({"lost": await self._agent.lost()})

    async def _end(self, request: web.Request) -> web.Response:
        """Ends the agent and its proxy once the answer has been sent. No worker may be left."""
        self._admit(request)
        if names := self._agent.names():
            raise StateError(f"{len(names)} workers are left", where="the agent", hint="end them first")
        asyncio.get_running_loop().call_later(_ANSWERED_S, self._end_agent)
        return web.json_response({})

    async def _receive(self, request: web.Request) -> web.Response:
        self._admit(request)
        chunks = request.content.iter_chunked(_CHUNK_BYTES)
        await self._contents.receive(request.match_info["digest"], _number(request, "offset"), chunks)
        return web.json_response({})

    async def _begin(self, request: web.Request) -> web.Response:
        """Begins an operation, unless it has begun or files are missing: the response then says which.

        An order that was given before the node was last brought in line is stale, and never begins.
        """
        self._admit(request)
        number, order = request.match_info["number"], await request.json()
        kind, body = order["kind"], order["body"]
        if kind not in KINDS:
            raise InputError(f"there is no operation {kind!r}", where="the agent")
        known = number in self._agent.operations
        if not known and (missing := await asyncio.to_thread(self._agent.missing, body)):
            return web.json_response({"missing": missing, "stale": False})
        # The same order may have come once more meanwhile, or its end.
        if number not in self._agent.operations:
            if kind != ADOPT and order["line"] != self._agent.line:
                return web.json_response({"missing": {}, "stale": True})
            self._agent.operations.begin(number, self._agent.run(kind, body), final=kind in FINAL)
        return web.json_response({"missing": {}, "stale": False}, status=202)

    async def _outcome(self, request: web.Request) -> web.Response:
        """Responds whether the operation has ended. It is not known if it was ordered from an earlier agent."""
        self._admit(request)
        number, wait_s = request.match_info["number"], min(_seconds(request), MAX_WAIT_S)
        known = number in self._agent.operations
        done = known and await self._agent.operations.outcome(number, wait_s)
        return web.json_response({"known": known, "done": done})

    async def _cancel(self, request: web.Request) -> web.Response:
        self._admit(request)
        await self._agent.operations.cancel(request.match_info["number"])
        return web.json_response({})

    def _admit(self, request: web.Request) -> None:
        """Checks that the caller is the controller of the workers on this node."""
        deployment = request.headers.get(DEPLOYMENT_HEADER, "")
        epoch = request.headers.get(EPOCH_HEADER, "")
        if not deployment or not epoch.partition(".")[0].isdecimal():
            raise InputError("the call names no deployment and epoch", where="the agent")
        self._agent.admit(deployment, epoch)


def _number(request: web.Request, name: str) -> int:
    text = request.query.get(name, "0")
    if not text.isdecimal():
        raise InputError(f"{name} is not a number", where=repr(text))
    return int(text)


def _seconds(request: web.Request) -> float:
    try:
        return max(float(request.query.get("wait", "0")), 0.0)
    except ValueError as error:
        raise InputError("wait is not a number of seconds", where=request.path) from error


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except JigsawError as error:
        return web.json_response({"error": _error_json(error)}, status=409)
    except (KeyError, TypeError, ValueError) as error:
        # A message from the controller of another release may lack a key.
        described = JigsawError(f"{request.path}: the call is malformed: {type(error).__name__}: {error}")
        return web.json_response({"error": _error_json(described)}, status=400)


def _error_json(error: JigsawError) -> Json:
    described: dict[str, Any] = {"message": error.message, "where": error.where, "hint": error.hint}
    return {**described, "code": error.exit_code}
