"""The console's HTTP server: its pages, and the API that they use."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

from aiohttp import web

from jigsaw_triton import __version__
from jigsaw_triton.console.client import ControllerGoneError, ControllerHungError
from jigsaw_triton.console.web.access import SESSION_S, Access
from jigsaw_triton.console.web.assets import INDEX, Asset
from jigsaw_triton.console.web.feed import Feed
from jigsaw_triton.console.web.guard import ForbiddenError, Guard, add_headers
from jigsaw_triton.console.web.live import CHANGES, Running
from jigsaw_triton.console.web.pages import page
from jigsaw_triton.console.web.planners import Planners
from jigsaw_triton.console.web.records import Records
from jigsaw_triton.console.web.settings import ConsoleSettings
from jigsaw_triton.controller.persistence.load_history import KEPT_S
from jigsaw_triton.errors import InputError, JigsawError, StateError
from jigsaw_triton.finite_json import finite
from jigsaw_triton.servers.socket_api import error_response, seconds, whole_number

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_KEEP_ALIVE_S = 10.0
"""Seconds after which a stream that has nothing to say says so, so that neither end takes it for dead."""

_ALIVE = b"event: alive\ndata: {}\n\n"
"""An event, since a browser hides comments from the page."""

_WRONG_PASSWORD_S = 1.0
"""Seconds that a wrong password costs, one after the other."""

_LOG_IN_BYTES = 4096
"""Size in bytes of the largest body with a password. Anybody may send one, and all wait for the wrong ones before."""

_MOST_EVENTS, _MOST_LINES, _MOST_TRACES = 1000, 5000, 500
"""Numbers of events, lines of a log and traces that one call returns at most."""

_GZIP = "gzip"


class ConsoleServer:
    """Serves the console.

    Args:
        settings: Settings of the console.
        access: Tokens and sessions.
        assets: Files of the pages, by path.
        live: The running part of the deployment.
        records: The deployment's records.
        deployment: Name of the deployment that the pages show.
    """

    def __init__(
        self,
        settings: ConsoleSettings,
        access: Access,
        assets: Mapping[str, Asset],
        live: Running,
        records: Records,
        deployment: str,
    ) -> None:
        self._settings = settings
        self._access = access
        self._assets = assets
        self._live = live
        self._records = records
        self._deployment = deployment
        # Cookies do not tell ports apart, and a machine may have several consoles.
        self._cookie = f"jigsaw_console_{settings.port}"
        self._guard = Guard(settings, access, self._cookie)
        self._feed = Feed(live)
        self._planners = Planners(records)
        self._logging_in = asyncio.Lock()
        self.app = web.Application(middlewares=[_errors, self._guard.middleware()])
        self.app.on_response_prepare.append(add_headers)
        self.app.on_shutdown.append(self._end)
        self.app.add_routes(
            [
                web.get("/login", self._log_in_by_token),
                web.post("/login", self._log_in_by_password),
                web.post("/logout", self._log_out),
                web.get("/", self._index),
                web.get("/assets/{path:.+}", self._asset),
                web.get("/api/session", self._session),
                web.get("/api/stream", self._stream),
                web.get("/api/history", self._history),
                web.get("/api/events", self._events),
                web.get("/api/servers", self._servers),
                web.get("/api/logs", self._logs),
                web.get("/api/traces", self._traces),
                web.get("/api/traces/{id:.+}", self._trace),
                web.get("/api/plan", self._plan),
                web.post("/api/whatif", self._what_if),
                web.post("/api/change/{kind}", self._change),
            ]
        )

    async def _end(self, _: web.Application) -> None:
        await self._feed.close()
        await self._planners.close()
        await self._live.close()

    async def _log_in_by_token(self, request: web.Request) -> web.StreamResponse:
        cookie = self._access.redeem(request.query.get("token", ""))
        if cookie is None and self._access.has_password:
            # The page after a wrong password has this path, and may be loaded again.
            raise web.HTTPSeeOther("/")
        if cookie is None:
            text = (
                "The URL was used before, is too old, or is incomplete. Run `jigsaw-triton console` on the machine of "
                "the deployment for a new one."
            )
            return page("This URL does not open the console", text, status=403)
        return self._opened(cookie)

    async def _log_in_by_password(self, request: web.Request) -> web.StreamResponse:
        size = request.content_length
        if size is None or size > _LOG_IN_BYTES:
            raise web.HTTPRequestEntityTooLarge(_LOG_IN_BYTES, size or 0)
        password = (await request.post()).get("password", "")
        async with self._logging_in:
            cookie = self._access.log_in(password) if isinstance(password, str) else None
            if cookie is None:
                await asyncio.sleep(_WRONG_PASSWORD_S)
        if cookie is None:
            return page("Wrong password", "Try again.", status=403, form=self._access.has_password)
        return self._opened(cookie)

    def _opened(self, cookie: str) -> web.StreamResponse:
        response = web.Response(status=303, headers={"Location": "/"})
        response.set_cookie(
            self._cookie,
            cookie,
            max_age=int(SESSION_S),
            path="/",
            httponly=True,
            samesite="Strict",
            secure=self._settings.encrypted,
        )
        return response

    async def _log_out(self, request: web.Request) -> web.StreamResponse:
        self._access.log_out(request.cookies.get(self._cookie, ""))
        response = web.json_response({})
        response.del_cookie(self._cookie, path="/")
        return response

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return _sent(request, self._assets[INDEX])

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        asset = self._assets.get(request.match_info["path"])
        if asset is None:
            raise web.HTTPNotFound
        return _sent(request, asset)

    async def _session(self, request: web.Request) -> web.StreamResponse:
        session = self._guard.session(request)
        allowed = self._settings.allow_changes and session is not None
        return web.json_response(
            {
                "version": __version__,
                "deployment": self._deployment,
                "allow_changes": allowed,
                "csrf": session.csrf if allowed and session is not None else None,
            }
        )

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Sends server-sent events until the browser goes, its session ends, or the console does."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        await response.prepare(request)
        with self._feed.page() as opened:
            while self._guard.session(request) is not None:
                try:
                    message = await asyncio.wait_for(opened.next(), _KEEP_ALIVE_S)
                except TimeoutError:
                    message = _ALIVE
                if message is None:
                    break
                try:
                    await response.write(message)
                except ConnectionError:
                    break
        return response

    async def _history(self, request: web.Request) -> web.StreamResponse:
        length_s = seconds(request, "seconds", KEPT_S)
        return web.json_response(await asyncio.to_thread(self._records.history, time.time(), length_s))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        before = whole_number(request, "before") if "before" in request.query else None
        events = await asyncio.to_thread(
            self._records.events,
            after=whole_number(request, "after"),
            before=before,
            limit=min(whole_number(request, "limit", 200), _MOST_EVENTS),
            kind=request.query.get("kind", ""),
            text=request.query.get("text", ""),
        )
        kinds = await asyncio.to_thread(self._records.kinds)
        return web.json_response({"events": [asdict(event) for event in events], "kinds": kinds})

    async def _servers(self, _: web.Request) -> web.StreamResponse:
        return web.json_response(await asyncio.to_thread(self._records.servers))

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        lines = min(whole_number(request, "lines", 200), _MOST_LINES)
        server = request.query.get("server", "")
        return web.json_response({"lines": await asyncio.to_thread(self._records.log, server, lines)})

    async def _traces(self, request: web.Request) -> web.StreamResponse:
        limit = min(whole_number(request, "limit", 100), _MOST_TRACES)
        graph = request.query.get("graph", "")
        return web.json_response(await asyncio.to_thread(self._records.traces, graph, limit))

    async def _trace(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(await asyncio.to_thread(self._records.trace, request.match_info["id"]))

    async def _plan(self, request: web.Request) -> web.StreamResponse:
        number = await asyncio.to_thread(self._records.running)
        if not number:
            return web.json_response({"plan": None, "explain": None, "explaining": False, "explain_error": None})
        plan = await asyncio.to_thread(self._records.plan, number)
        if (asked := request.query.get("explain")) in ("1", "again"):
            self._planners.explain(number, again=asked == "again")
        found = self._planners.explanation(number)
        return web.json_response(
            {
                "plan": finite(plan),
                "explain": finite(found.explanation) if found is not None else None,
                "explaining": found is not None and found.in_progress,
                "explain_error": (found.error or None) if found is not None else None,
            }
        )

    async def _what_if(self, request: web.Request) -> web.StreamResponse:
        asked = await _body(request)
        number = await asyncio.to_thread(self._records.running)
        if not number:
            raise StateError("nothing has been deployed here", hint="deploy first: `jigsaw-triton deploy`")
        return web.json_response(finite(await self._planners.what_if(number, asked)))

    async def _change(self, request: web.Request) -> web.StreamResponse:
        self._guard.check_change(request)
        kind, asked = request.match_info["kind"], await _body(request)
        if kind not in CHANGES:
            raise web.HTTPNotFound
        log.info("change: %s %s", kind, asked)
        await self._live.ask(kind, asked)
        return web.json_response({}, status=202)


def _sent(request: web.Request, asset: Asset) -> web.Response:
    # `no-cache` lets a browser keep the file, but ask each time whether it is still the same.
    headers = {"Content-Type": asset.type, "ETag": asset.etag, "Cache-Control": "no-cache", "Vary": "Accept-Encoding"}
    if asset.etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    if asset.compressed is not None and _GZIP in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=asset.compressed, headers={**headers, "Content-Encoding": _GZIP})
    return web.Response(body=asset.content, headers=headers)


async def _body(request: web.Request) -> dict[str, Any]:
    """Returns the object in the body of a request.

    Raises:
        InputError: The request has no body, or the body's type is not JSON, which a form of another site could send.
    """
    if request.content_type != "application/json":
        raise InputError("the body is not JSON", where="Content-Type", hint="send application/json")
    try:
        found = await request.json()
    except (ValueError, LookupError, RecursionError) as error:
        raise InputError(f"the body is not JSON: {error}", where=request.path) from error
    if not isinstance(found, dict):
        raise InputError("the body is not an object", where=request.path)
    return found


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Responds with errors as the pages expect them."""
    try:
        return await handler(request)
    except ForbiddenError as error:
        return error_response(error, 403)
    except InputError as error:
        return error_response(error, 400)
    except (ControllerGoneError, ControllerHungError) as error:
        return error_response(error, 503)
    except JigsawError as error:
        return error_response(error, 409)
    except web.HTTPException as error:
        if not request.path.startswith("/api/") or error.status < 400:
            raise
        return error_response(JigsawError(error.reason, where=request.path), error.status)
    except (ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:
        log.exception("%s %s failed", request.method, request.path)
        text = f"{request.path} failed: {type(error).__name__}: {error}"
        return error_response(JigsawError(text, hint="see the log of the console"), 500)
