"""Checks of every request to the console: its host, session and origin; and the headers of every response."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from jigsaw_triton.console.web.access import Access, Session, same
from jigsaw_triton.console.web.pages import page
from jigsaw_triton.console.web.settings import ConsoleSettings
from jigsaw_triton.errors import JigsawError, StateError
from jigsaw_triton.servers.socket_api import error_response

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CSRF_HEADER = "X-CSRF-Token"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; img-src 'self' data:; "
        "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # With `no-referrer`, browsers would hide the origin of the form for the password.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_OPEN = ("/login",)
"""Paths that need no session."""

_NEW_URL = "Run `jigsaw-triton console` on the machine of the deployment: it prints a URL that opens the console once."


class Guard:
    """Admits requests.

    Args:
        settings: Settings of the console.
        access: Tokens and sessions.
        cookie: Name of the session's cookie.
    """

    def __init__(self, settings: ConsoleSettings, access: Access, cookie: str) -> None:
        self._settings = settings
        self._access = access
        self._cookie = cookie

    def middleware(self) -> Any:
        """Returns the middleware that refuses what may not pass."""

        @web.middleware
        async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            refused = self._refused(request)
            return await handler(request) if refused is None else refused

        return admit

    def session(self, request: web.Request) -> Session | None:
        """Returns the session of a request; None if it has none."""
        return self._access.session(request.cookies.get(self._cookie, ""))

    def check_change(self, request: web.Request) -> None:
        """Checks that a request may change the deployment.

        Raises:
            ForbiddenError: The request may not change the deployment.
        """
        session = self.session(request)
        if not self._settings.allow_changes:
            raise ForbiddenError("this console only shows", "start it with --allow-changes")
        if session is None or not same(request.headers.get(CSRF_HEADER, ""), session.csrf):
            raise ForbiddenError(f"the header {CSRF_HEADER} is missing or wrong", "reload the page")

    def _refused(self, request: web.Request) -> web.StreamResponse | None:
        host = request.headers.get("Host", "")
        if not self._settings.accepts_host(host):
            text = f"This console is not known as {host}. Start it with --host, or open it by its address."
            return self._refusal(request, 421, "Wrong host", text)
        origin = request.headers.get("Origin")
        if request.method != "GET" and origin is not None and not self._is_own(origin.partition("://")[2], host):
            return self._refusal(request, 403, "Wrong origin", f"A page of {origin} may not use this console.")
        if request.path in _OPEN or self.session(request) is not None:
            return None
        if self._access.has_password:
            return self._refusal(request, 401, "jigsaw-triton console", "This console needs a password.", form=True)
        return self._refusal(request, 401, "This browser has not opened the console", _NEW_URL)

    def _is_own(self, origin: str, host: str) -> bool:
        """Returns True if a page of this origin is the console's. A proxy may have changed the Host header."""
        return origin.lower() == host.lower() or (self._settings.behind_proxy and self._settings.names(origin))

    def _refusal(
        self, request: web.Request, status: int, title: str, text: str, *, form: bool = False
    ) -> web.StreamResponse:
        if request.path.startswith("/api/"):
            hint = "" if status != 401 else _NEW_URL if not form else "Load the page again, and enter the password."
            return error_response(StateError(text, hint=hint), status)
        return page(title, text, status=status, form=form)


class ForbiddenError(JigsawError):
    """A request that this console does not allow.

    Args:
        message: Sentence that says what is not allowed.
        hint: Advice on how to get it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, where="the console", hint=hint)


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """Adds the headers of every response. Register it for `on_response_prepare`."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
