"""Access to the console: tokens that open it once, a password, and the sessions that follow from either."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

TOKEN_S = 600.0
"""Seconds for which a token that was not used stays valid."""

SESSION_S = 12 * 3600.0
"""Seconds after which a session ends. A convention: a working day."""

_MOST = 1000
"""Number of tokens, and of sessions, that are kept. A convention that bounds the memory; the latest are kept."""


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that may use the console.

    Attributes:
        csrf: Token that a request to change something must carry.
        ends_s: Time at which the session ends, on the clock of `Access`.
    """

    csrf: str
    ends_s: float


class Access:
    """Tokens and sessions, which live as long as the process. It keeps only digests of them.

    Args:
        password: Password that opens the console, instead of tokens; None for tokens.
        clock: Clock in seconds.
    """

    def __init__(self, password: str | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._password = None if password is None else _digest(password)
        self._clock = clock
        self._tokens: dict[bytes, float] = {}
        self._sessions: dict[bytes, Session] = {}

    @property
    def has_password(self) -> bool:
        """True if a password opens the console."""
        return self._password is not None

    def new_token(self) -> str:
        """Returns a token that opens the console once."""
        token = secrets.token_urlsafe(32)
        self._tokens[_digest(token)] = self._clock() + TOKEN_S
        _shorten(self._tokens)
        return token

    def redeem(self, token: str) -> str | None:
        """Returns the cookie of a new session; None if the token is wrong, too old or was used before."""
        ends_s = self._tokens.pop(_digest(token), None)
        return self._opened() if ends_s is not None and self._clock() < ends_s else None

    def log_in(self, password: str) -> str | None:
        """Returns the cookie of a new session; None if the password is wrong or there is none."""
        known = self._password
        return self._opened() if known is not None and hmac.compare_digest(known, _digest(password)) else None

    def session(self, cookie: str) -> Session | None:
        """Returns the session of a cookie; None if there is none, or if it has ended."""
        key = _digest(cookie)
        session = self._sessions.get(key)
        if session is not None and self._clock() >= session.ends_s:
            del self._sessions[key]
            return None
        return session

    def log_out(self, cookie: str) -> None:
        """Ends the session of a cookie, if there is one."""
        self._sessions.pop(_digest(cookie), None)

    def _opened(self) -> str:
        cookie = secrets.token_urlsafe(32)
        self._sessions[_digest(cookie)] = Session(secrets.token_urlsafe(32), self._clock() + SESSION_S)
        _shorten(self._sessions)
        return cookie


def same(given: str, known: str) -> bool:
    """Compares two secrets in a time that does not depend on where they differ."""
    return hmac.compare_digest(_digest(given), _digest(known))


def _digest(secret: str) -> bytes:
    # Only equality counts, so a fast digest without salt is enough: nothing of this is ever written to a disk.
    return hashlib.sha256(secret.encode("utf-8", "backslashreplace")).digest()


def _shorten(kept: dict[bytes, float] | dict[bytes, Session]) -> None:
    while len(kept) > _MOST:
        del kept[next(iter(kept))]
