"""Status API of a controller: JSON over HTTP on a Unix socket that only its owner can open."""

import asyncio
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from jigsaw_triton.background import end_tasks
from jigsaw_triton.console.metrics import CONTENT_TYPE, exposition
from jigsaw_triton.console.options import DEFAULTS, ProcessOptions
from jigsaw_triton.console.status import reading, snapshot
from jigsaw_triton.console.view import view
from jigsaw_triton.controller.core.generation import ChangeRequest, Generation
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.persistence.checkpoint import pickled
from jigsaw_triton.controller.persistence.history import earlier
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.shell import Controller
from jigsaw_triton.errors import StateError
from jigsaw_triton.finite_json import finite
from jigsaw_triton.gpus.model import DeviceUse
from jigsaw_triton.servers.socket_api import MAX_WAIT_S, SocketApi, seconds, whole_number

_USE_S = 0.2
"""Seconds that the nodes may take to answer with the utilisation of their instances. The console shows a change within
half a second, and a node that is about to be lost must not delay that."""

Read = Callable[[Mapping[str, Any], Generation | None], ChangeRequest]
"""Function that loads a deploy request, whose files and flags come from the command line, given what serves now."""


class StatusServer:
    """Serves the state of a controller, and takes requests to change it.

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
        self._controller = controller
        self._fleet = fleet
        self._journal = journal
        self._read = read
        self._options = options
        self._use: Mapping[str, DeviceUse] = {}
        self._using: asyncio.Task[Mapping[str, DeviceUse]] | None = None
        self._asking = asyncio.Lock()
        routes = (
            web.get("/status", self._status),
            web.get("/metrics", self._metrics),
            web.get("/events", self._events),
            web.get("/view", self._view),
            web.post("/deploy", self._deploy),
            web.post("/rollback", self._rollback),
            web.post("/pause", self._pause),
            web.post("/cordon", self._cordon),
            web.post("/remove-all", self._remove_all),
            web.post("/down", self._down),
        )
        self._api = SocketApi(socket, routes, owner="controller")

    async def start(self) -> None:
        """Starts to listen."""
        await self._api.start()

    async def stop(self) -> None:
        """Stops, after up to two seconds for calls in progress."""
        await self._api.stop()
        await end_tasks(self._using)

    async def _status(self, _: web.Request) -> web.Response:
        # The caller may read the journal next, to see which MIG instances are ours.
        self._journal.sync()
        status = snapshot(self._controller, self._fleet, await self._fleet.use())
        status["controller"] |= self._options.to_json()
        return web.json_response(status)

    async def metrics(self) -> str:
        """Returns the metrics of the controller."""
        # The text for a thousand GPUs takes time, during which the controller must not block.
        return await asyncio.to_thread(exposition, reading(self._controller, self._fleet))

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=(await self.metrics()).encode(), headers={"Content-Type": CONTENT_TYPE})

    async def _events(self, request: web.Request) -> web.Response:
        """Responds with the events after `after`. Waits up to `wait` seconds for one if there are none."""
        after, wait_s = whole_number(request, "after"), min(seconds(request), MAX_WAIT_S)
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
                "asked_error": state.asked_error,
                "asked_error_code": state.asked_error_code,
            }
        )

    async def _view(self, request: web.Request) -> web.Response:
        """Responds with what is new for the web console. Waits up to `wait` seconds for a change of the state.

        The parameters say what the caller knows: `version` of the view, `event` as the number of the last event, and
        `sample` as the time of the last sample of the load. Without `event`, no events are sent.
        """
        known, wait_s = request.query.get("version", ""), min(seconds(request), MAX_WAIT_S)
        if known == self._version and wait_s > 0:
            await self._controller.wait_changed(wait_s)
        version = self._version
        last = self._journal.events(limit=1)
        follows = "event" in request.query
        events = self._journal.events(whole_number(request, "event")) if follows else ()
        answer = {
            "version": version,
            "event": last[-1].id if last else 0,
            "events": [asdict(e) for e in events],
            "samples": self._controller.load.after(seconds(request, "sample")),
        }
        if known != version:
            answer["view"] = view(self._controller, self._fleet, await self._recent_use())
        return web.json_response(finite(answer))

    async def _recent_use(self) -> Mapping[str, DeviceUse]:
        """Returns the utilisation of MIG instances by worker: that of the last time if a node does not answer soon."""
        using = self._using = self._using or asyncio.create_task(self._fleet.use(), name="utilisation")
        await asyncio.wait({using}, timeout=_USE_S)
        if using.done():
            if self._using is using:
                self._using = None
            self._use = using.result()
        return self._use

    @property
    def _version(self) -> str:
        """Version of the view, which the next controller does not repeat."""
        # The state of other machines may change without an event of the controller.
        nodes = "".join(f"{node.away:d}{node.headless:d}" for node in self._fleet.nodes)
        standby = self._fleet.replication.status()
        since = standby["since"] if standby is not None else ""
        return f"{os.getpid()}.{self._controller.changes}.{nodes}.{since}"

    async def _deploy(self, request: web.Request) -> web.Response:
        # The files are read and copied before the response, so that it can report what is wrong with them.
        await self._ask(partial(self._deploying, await request.json()))
        return web.json_response({}, status=202)

    async def _rollback(self, request: web.Request) -> web.Response:
        number = (await request.json())["generation"]
        if number is None and await self._controller.end_canary():
            return web.json_response({"ended_canary": True}, status=202)
        await self._ask(partial(self._restoring, number))
        return web.json_response({}, status=202)

    def _deploying(self, request: Mapping[str, Any], running: Generation | None) -> ChangeRequest:
        """Returns the request to deploy copies of the files that it names."""
        asked = self._read(request, running)
        return replace(asked, wanted=replace(asked.wanted, graphs=self._fleet.files.keep(asked.wanted.graphs)))

    def _restoring(self, number: int | None, running: Generation | None) -> ChangeRequest:
        """Returns the request to return to an earlier generation."""
        if running is None:
            raise StateError("nothing serves yet", hint="wait for it: `jigsaw-triton status --wait ready`")
        found = earlier(self._journal, running.bundle.generation, number)
        if self._fleet.files.lacks(found.wanted.graphs):
            message = f"the model files of generation {found.bundle.generation} are no longer kept"
            raise StateError(message, where=str(self._fleet.files.folder), hint="deploy its files again")
        return ChangeRequest(found.wanted, restored=found)

    async def _ask(self, read: Callable[[Generation | None], ChangeRequest]) -> None:
        """Reads a request to change what serves, and has the controller carry it out.

        Args:
            read: Function that reads the request, given what serves.
        """
        # Requests are read one at a time, because each is a change of what serves after the one before it.
        async with self._asking:
            while True:
                self._controller.check_free()
                running = self._controller.state.running
                asked = await asyncio.to_thread(_encoded, read, running)
                # If a change that followed the load has ended meanwhile, the request must be read again.
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


def _encoded(read: Callable[[Generation | None], ChangeRequest], running: Generation | None) -> ChangeRequest:
    """Reads a request and encodes its profiles, which takes long for hundreds of models. Blocks.

    A profile table encodes itself once. Otherwise the event loop would, for the checkpoint that has the request.
    """
    asked = read(running)
    pickled(asked)
    return asked
