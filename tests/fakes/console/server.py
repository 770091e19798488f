"""A web console's server on this machine that serves documents from `states` and what a test pushes."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from tests.fakes.console import states
from tests.fakes.console.states import Document

T = TypeVar("T")

POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of the console."""

TOKEN = "csrf-of-the-test"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_TIMEOUT_S = 60.0
_KEEP_ALIVE_S = 10.0


def merged(target: Any, patch: Any) -> Any:
    """Applies a JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


class FakeConsole:
    """Serves the assets of the console and its API, from a thread of its own.

    Args:
        assets: Folder of the built assets.
        state: State that pages get first.
        allow_changes: True if pages may change the deployment.
    """

    def __init__(self, assets: Path, state: Document, *, allow_changes: bool = False) -> None:
        self.state = state
        self.asked: list[tuple[str, Document]] = []
        self.explain: Document | None = states.explanation()
        self.whatif: Callable[[Document], Document] = self._whatif
        self.events = states.events(450, time.time())
        self.explaining = False
        self.explain_error = ""
        self.plans_read = 0
        self.signed_out = False
        self._assets = assets
        self._allow_changes = allow_changes
        self._streams: set[asyncio.Queue[bytes | None]] = set()
        self._runner: web.AppRunner | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake console")
        self._thread.start()
        # A socket that never listens keeps the port while the server is stopped; connections to it are refused.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self._port = self._holder.getsockname()[1]
        self.start()

    @property
    def url(self) -> str:
        """Address of the first page."""
        return f"http://127.0.0.1:{self._port}/"

    @property
    def streams(self) -> int:
        """Number of pages that listen."""
        return len(self._streams)

    def start(self) -> None:
        """Begins to answer, on the same port as before."""
        self._do(self._start())

    def stop(self) -> None:
        """Ends all connections and no longer answers."""
        self._do(self._stop())

    def close(self) -> None:
        """Ends the server and its thread."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_TIMEOUT_S)
        self._loop.close()
        self._holder.close()

    def push(self, kind: str, data: Any) -> None:
        """Sends an event to all pages."""
        self._do(self._push(_encoded(kind, data)))

    def patch(self, patch: Document) -> None:
        """Changes the state, here and in all pages."""
        self.state = merged(self.state, patch)
        self.push("patch", patch)

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_TIMEOUT_S)

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._headers])
        app.router.add_get("/", self._asset)
        app.router.add_get("/assets/{name}", self._asset)
        app.router.add_get("/api/stream", self._stream)
        app.router.add_get("/api/{name:.+}", self._get)
        app.router.add_post("/api/{name:.+}", self._post)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()

    async def _stop(self) -> None:
        await self._push(None)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _push(self, message: bytes | None) -> None:
        for stream in self._streams:
            stream.put_nowait(message)

    @web.middleware
    async def _headers(self, request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        if self.signed_out and request.path.startswith("/api/"):
            return _error(401, "the session is over")
        response: web.StreamResponse = await handler(request)
        if not response.prepared:
            response.headers["Content-Security-Policy"] = POLICY
        return response

    async def _asset(self, request: web.Request) -> web.Response:
        path = self._assets / request.match_info.get("name", "index.html")
        if not path.is_file():
            raise web.HTTPNotFound
        found = web.Response(
            body=path.read_bytes(), content_type=_TYPES.get(path.suffix, "text/plain"), charset="utf-8"
        )
        found.enable_compression()
        return found

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        await response.prepare(request)
        await response.write(_encoded("state", self.state))
        self._streams.add(queue)
        try:
            while True:
                try:
                    message = await asyncio.wait_for(queue.get(), _KEEP_ALIVE_S)
                except TimeoutError:
                    message = _encoded("alive", {})
                if message is None:
                    return response
                await response.write(message)
        except ConnectionError:
            return response
        finally:
            self._streams.discard(queue)

    async def _get(self, request: web.Request) -> web.Response:
        name, query = request.match_info["name"], request.query
        now = time.time()
        if name.startswith("traces/"):
            return web.json_response(states.trace(name.removeprefix("traces/")))
        found: Mapping[str, Callable[[], Any]] = {
            "session": lambda: {
                "version": "0.1.0",
                "deployment": "city",
                "allow_changes": self._allow_changes,
                "csrf": TOKEN if self._allow_changes else None,
            },
            "history": lambda: states.history(now),
            "events": lambda: self._events(query),
            "servers": lambda: ["controller", "gateway", *sorted(self.state["workers"])],
            "logs": lambda: {"lines": _log(query["server"], int(query["lines"]))},
            "traces": lambda: states.traces(now),
            "plan": lambda: self._plan(query),
        }
        return web.json_response(found[name]()) if name in found else _error(404, f"{name} is unknown")

    def _plan(self, query: Mapping[str, str]) -> Document:
        self.plans_read += 1
        if query.get("explain") == "again":
            self.explain_error = ""
        found = None if self.explaining or self.explain_error else self.explain
        return {
            "plan": states.plan(self.state),
            "explain": found,
            "explaining": self.explaining,
            "explain_error": self.explain_error or None,
        }

    def _events(self, query: Mapping[str, str]) -> Document:
        before, text, kind = int(query.get("before", 10**9)), query.get("text", "").lower(), query.get("kind", "")
        found = [e for e in self.events if e["id"] < before and text in e["text"].lower() and kind in ("", e["kind"])]
        return {"events": found[-int(query.get("limit", 100)) :], "kinds": sorted({e["kind"] for e in self.events})}

    async def _post(self, request: web.Request) -> web.Response:
        name, body = request.match_info["name"], await request.json()
        self.asked.append((name, body))
        if name == "whatif":
            return web.json_response(self.whatif(body))
        if not self._allow_changes or request.headers.get("X-CSRF-Token") != TOKEN:
            return _error(403, "changes are not allowed")
        return web.json_response({})

    def _whatif(self, asked: Document) -> Document:
        plan = states.plan(self.state)
        ratio = asked["demand"]["traffic"] / plan["graphs"]["traffic"]["demand_rps"]
        slices = round(plan["slices_used"] * ratio)
        if slices > plan["slices_total"]:
            reasons = [f"the cluster has {plan['slices_total']} slices, and {slices} are needed"]
            return {"feasible": False, "reasons": reasons, "difference": [], "seconds": 0.21}
        return {
            "feasible": True,
            "reasons": [],
            "slices": slices,
            "gpus": plan["gpus_used"],
            "plan": plan,
            "difference": [f"{slices - plan['slices_used']:+} slices", "detect: 1 more 3g with yolov5m"],
            "seconds": 0.31,
        }


def _encoded(kind: str, data: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def _error(status: int, message: str) -> web.Response:
    body = {"error": {"message": message, "where": "", "hint": "", "code": 1}}
    return web.json_response(body, status=status)


def _log(server: str, lines: int) -> list[str]:
    kinds = ("I1130 12:00:{0:02} 1 server.cc:674] {1} serves", "W1130 12:00:{0:02} 1 pool.cc:12] {1} is slow")
    return [kinds[number % 7 == 3].format(number % 60, server) for number in range(min(lines, 120))]
