"""The agent's API: JSON over HTTP on a Unix socket. Other machines reach it through the node's side of the transport.

Operations that take long are ordered with a number of the caller's choice and asked for until they end, so that a lost
connection neither loses nor repeats one.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from aiohttp import web

from jigsaw_triton import __version__
from jigsaw_triton.agent.gateway_keeper import GatewayKeeper
from jigsaw_triton.agent.node_agent import ADOPT, FINAL, KINDS, NodeAgent
from jigsaw_triton.agent.run_records import RunRecords
from jigsaw_triton.controller.fleet.gateway_content import content_digests, copy_digests
from jigsaw_triton.controller.fleet.wire import DEPLOYMENT_HEADER, WIRE_VERSION
from jigsaw_triton.controller.persistence.contents import Contents
from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.logs import about
from jigsaw_triton.servers.socket_api import MAX_WAIT_S, SocketApi, seconds, whole_number
from jigsaw_triton.servers.transport.config import EPOCH_HEADER

_ANSWERED_S = 0.5
"""Seconds that an answer has to reach the controller before the proxy that carries it ends."""

_CHUNK_BYTES = 2**20
_BODY_BYTES = 64 * 2**20


class AgentServer:
    """Serves one agent.

    Args:
        socket: Path of the socket to listen on.
        name: Name of the node.
        agent: The agent.
        gateway: Standby gateway of this machine.
        contents: Files of models.
        runs: Records of traced batches on this machine.
        end: Function that ends the agent with its proxy.
        grace_s: Seconds that `stop` waits for calls in progress.
    """

    def __init__(
        self,
        socket: Path,
        name: str,
        agent: NodeAgent,
        gateway: GatewayKeeper,
        contents: Contents,
        runs: RunRecords,
        *,
        end: Callable[[], None] = lambda: None,
        grace_s: float = 2.0,
    ) -> None:
        self._name = name
        self._agent = agent
        self._gateway = gateway
        self._contents = contents
        self._runs = runs
        self._end_agent = end
        routes = (
            web.get("/node", self._node),
            web.get("/pulse", self._pulse),
            web.post("/survey", self._survey),
            web.post("/end", self._end),
            web.get("/use", self._use),
            web.get("/energy", self._energy),
            web.get("/lost", self._lost),
            web.get("/traces", self._traces),
            web.post("/gateway", self._want_gateway),
            web.get("/gateway", self._gateway_status),
            web.post("/gateway/unused", self._gateway_unused),
            web.post("/fence", self._set_fence),
            web.put("/contents/{digest}", self._receive),
            web.post("/operations/{number}", self._begin),
            web.get("/operations/{number}", self._outcome),
            web.delete("/operations/{number}", self._cancel),
        )
        self._api = SocketApi(socket, routes, owner="agent", body_bytes=_BODY_BYTES, grace_s=grace_s)

    async def start(self) -> None:
        """Starts to listen."""
        await self._api.start()

    async def stop(self) -> None:
        """Stops, after a moment for calls in progress."""
        await self._api.stop()

    async def _node(self, _: web.Request) -> web.Response:
        """Responds with what a controller compares before it starts anything."""
        workers = self._agent.installation
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
                **self._agent.commander.to_json(),
            }
        )

    async def _pulse(self, request: web.Request) -> web.Response:
        """Responds with the running workers and the events after `after`. Waits up to `wait` seconds for one."""
        self._admit(request)
        after = whole_number(request, "after")
        await self._agent.wait(after, min(seconds(request), MAX_WAIT_S))
        return web.json_response(self._agent.pulse(after))

    async def _survey(self, request: web.Request) -> web.Response:
        self._admit(request)
        return web.json_response(await self._agent.survey(await request.json()))

    async def _use(self, request: web.Request) -> web.Response:
        self._admit(request)
        return web.json_response({name: asdict(use) for name, use in (await self._agent.use()).items()})

    async def _energy(self, request: web.Request) -> web.Response:
        self._admit(request)
        return web.json_response({"joules": await self._agent.energy()})

    async def _lost(self, request: web.Request) -> web.Response:
        self._admit(request)
        return web.json_response({"lost": await self._agent.lost()})

    async def _traces(self, request: web.Request) -> web.Response:
        """Responds with the records of traced batches since the last such call, as the workers' models wrote them."""
        self._admit(request)
        return web.json_response({"lines": self._runs.read()})

    async def _want_gateway(self, request: web.Request) -> web.Response:
        """Sets what the standby gateway serves, unless files are missing: the response then says which.

        It also says which files are to be sent afterwards.
        """
        epoch = self._admit(request)
        order = await request.json()
        content, later = order["content"], {}
        if content is not None:
            missing = await asyncio.to_thread(self._contents.missing, set(content_digests(content)))
            if missing:
                return web.json_response({"missing": missing})
            later = await asyncio.to_thread(self._contents.missing, copy_digests(content))
        self._gateway.want(epoch, int(order["number"]), content)
        return web.json_response({"missing": {}, "later": later})

    async def _gateway_status(self, request: web.Request) -> web.Response:
        """Responds with the state of the standby gateway, once it has carried out the order `after` if it can."""
        epoch = self._admit(request)
        after = (epoch, whole_number(request, "after"))
        return web.json_response(await self._gateway.status(after, min(seconds(request), MAX_WAIT_S)))

    async def _gateway_unused(self, request: web.Request) -> web.Response:
        self._admit(request)
        body = await request.json()
        models = [(str(worker), str(model)) for worker, model in body["models"]]
        generations = [(str(graph), int(number)) for graph, number in body["generations"]]
        unused = await self._gateway.unused(models, generations, min(seconds(request), MAX_WAIT_S))
        return web.json_response({"unused": unused})

    async def _set_fence(self, request: web.Request) -> web.Response:
        """Has the workers refuse the gateways of the controllers that the caller, or one before it, has replaced."""
        self._admit(request)
        body = await request.json()
        await self._agent.set_fence(str(body["fence"]), str(body["machine"]))
        return web.json_response({})

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
        await self._contents.receive(request.match_info["digest"], whole_number(request, "offset"), chunks)
        return web.json_response({})

    async def _begin(self, request: web.Request) -> web.Response:
        """Begins an operation, unless it has begun or files are missing: the response then says which.

        An order that was given before the node was last reconciled is stale, and never begins.
        """
        self._admit(request)
        number, order = request.match_info["number"], await request.json()
        kind, body = order["kind"], order["body"]
        if kind not in KINDS:
            raise InputError(f"there is no operation {kind!r}", where="the agent")
        known = number in self._agent.operations
        if not known and (missing := await asyncio.to_thread(self._agent.missing, body)):
            return web.json_response({"missing": missing, "stale": False})
        # Meanwhile, the order may have come a second time, or may have been cancelled.
        if number not in self._agent.operations:
            if kind != ADOPT and order["line"] != self._agent.line:
                return web.json_response({"missing": {}, "stale": True})
            with about(request=number):
                self._agent.operations.begin(number, self._agent.run(kind, body), final=kind in FINAL)
        return web.json_response({"missing": {}, "stale": False}, status=202)

    async def _outcome(self, request: web.Request) -> web.Response:
        """Responds whether the operation has ended. It is not known if it was ordered from an earlier agent."""
        self._admit(request)
        number, wait_s = request.match_info["number"], min(seconds(request), MAX_WAIT_S)
        known = number in self._agent.operations
        done = known and await self._agent.operations.outcome(number, wait_s)
        return web.json_response({"known": known, "done": done})

    async def _cancel(self, request: web.Request) -> web.Response:
        self._admit(request)
        await self._agent.operations.cancel(request.match_info["number"])
        return web.json_response({})

    def _admit(self, request: web.Request) -> str:
        """Checks that the caller is the controller of the workers on this node, and returns its epoch."""
        deployment = request.headers.get(DEPLOYMENT_HEADER, "")
        epoch = request.headers.get(EPOCH_HEADER, "")
        if not deployment or not epoch.partition(".")[0].isdecimal():
            raise InputError("the call names no deployment and epoch", where="the agent")
        self._agent.admit(deployment, epoch)
        return epoch
