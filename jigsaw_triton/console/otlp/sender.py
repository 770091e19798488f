"""Sends spans to an OTLP endpoint, in a thread of its own."""

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPException
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from jigsaw_triton.console.otlp.encoding import Encoded, rejected

BATCH = 512
"""Most spans in one message."""

MAX_QUEUED = 20_000
"""Spans that wait to be sent; further ones are dropped. Some 20 MB of memory."""

TIMEOUT_S = 10.0
"""Seconds that the endpoint may take to accept a connection, and to answer."""

GIVE_UP_S = 60.0
"""Seconds after which a batch that could not be sent is dropped, so that newer ones get their chance."""

_FIRST_DELAY_S, _MAX_DELAY_S = 0.5, 15.0
"""First and longest delay of the exponential backoff between two tries."""

_GATHER_S = 1.0
"""Seconds for which spans are gathered to a batch."""

_RETRIED = (429, 502, 503, 504)
"""Statuses after which OTLP asks clients to try again."""

_MAX_ANSWER = 64 * 1024
_SHOWN = 200
"""Bytes of an answer to read, and characters of it to show in a message."""


class RetryLaterError(Exception):
    """The endpoint cannot be reached, or asks to try again.

    Args:
        message: Description of the failure.
        after_s: Seconds to wait, if the endpoint says so; else 0.
    """

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class RefusedError(Exception):
    """The endpoint does not take this batch, however often it is sent."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of spans since the start.

    Attributes:
        exported: Spans that the endpoint has accepted.
        dropped: Lost spans by reason: `full` (too many waited), `unreachable` or `refused`.
        error: Reason for which the last attempt failed; empty if it succeeded.
    """

    exported: int
    dropped: dict[str, int]
    error: str


class Sender:
    """Sends spans in batches, with retries. No call of it waits for the endpoint, except `close`.

    Args:
        encode: Function that encodes a batch.
        post: Function that sends a message. Returns the number of spans that the endpoint rejected. May raise
            `RetryLaterError` and `RefusedError`.
    """

    def __init__(self, encode: Callable[[Sequence[Encoded]], bytes], post: Callable[[bytes], int]) -> None:
        self._encode = encode
        self._post = post
        self._queue: deque[Encoded] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._exported = 0
        self._dropped: Counter[str] = Counter()
        self._error = ""
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)
        self._thread.start()

    def counts(self) -> Counts:
        """Returns the counters."""
        with self._changed:
            return Counts(self._exported, dict(self._dropped), self._error)

    def offer(self, spans: Iterable[Encoded]) -> None:
        """Queues spans to be sent, or drops them if too many wait."""
        with self._changed:
            for span in spans:
                if len(self._queue) < MAX_QUEUED:
                    self._queue.append(span)
                else:
                    self._dropped["full"] += 1
            self._changed.notify()

    def close(self, wait_limit_s: float) -> None:
        """Sends what is queued, as far as the endpoint takes it in time.

        Args:
            wait_limit_s: Seconds to wait.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(wait_limit_s)

    def _run(self) -> None:
        while batch := self._next():
            self._send(batch)

    def _next(self) -> list[Encoded]:
        """Waits for the next batch; returns none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            self._changed.wait_for(lambda: len(self._queue) >= BATCH or self._closing, _GATHER_S)
            return [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]

    def _send(self, batch: Sequence[Encoded]) -> None:
        """Sends a batch, as often as it takes and is worth it."""
        message = self._encode(batch)
        give_up_s, delay_s = time.monotonic() + GIVE_UP_S, _FIRST_DELAY_S
        while (after_s := self._tried(message, len(batch))) is not None:
            pause_s = max(after_s, delay_s * random.uniform(0.5, 1.0))
            delay_s = min(2 * delay_s, _MAX_DELAY_S)
            with self._changed:
                # At the end there is no time for another try.
                late = time.monotonic() + pause_s > give_up_s
                if late or self._changed.wait_for(lambda: self._closing, pause_s):
                    self._dropped["unreachable"] += len(batch)
                    return

    def _tried(self, message: bytes, count: int) -> float | None:
        """Sends a message once. Returns the least seconds until the next try; None if there is to be none."""
        error, lost, after_s = "", 0, None
        try:
            lost = min(self._post(message), count)
        except RefusedError as refusal:
            error, lost = str(refusal), count
        except RetryLaterError as failure:
            error, after_s = str(failure), failure.after_s
        with self._changed:
            self._error = error
            if after_s is None:
                self._exported += count - lost
            if lost:
                self._dropped["refused"] += lost
        return after_s


class _NoRedirect(HTTPRedirectHandler):
    """Takes a redirection as a refusal: urllib would follow it with a GET."""

    def redirect_request(self, *_: object) -> None:
        return None


_OPENER = build_opener(_NoRedirect)


def post(url: str, message: bytes) -> int:
    """Sends a message to an OTLP endpoint; returns the number of spans that it rejected.

    Args:
        url: Address, such as `http://localhost:4318/v1/traces`.
        message: Encoded `ExportTraceServiceRequest`.

    Raises:
        RetryLaterError: The endpoint cannot be reached, does not answer in time, or asks to try again.
        RefusedError: The endpoint refuses the message.
    """
    request = Request(url, message, {"Content-Type": "application/x-protobuf"})
    try:
        with _OPENER.open(request, timeout=TIMEOUT_S) as answer:
            return rejected(answer.read(_MAX_ANSWER))
    except HTTPError as error:
        with error:
            message_text = f"{url} answers {error.code} {error.reason}: {_text(error)[:_SHOWN]}".rstrip(": ")
            if error.code not in _RETRIED:
                raise RefusedError(message_text) from error
            raise RetryLaterError(message_text, _seconds(error.headers.get("Retry-After"))) from error
    except BadStatusLine as error:
        hint = "if it speaks gRPC, write grpc:// in place of http://"
        raise RetryLaterError(f"{url} gives no answer of HTTP; {hint}") from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise RetryLaterError(f"{url} cannot be reached: {reason}") from error


def _text(error: HTTPError) -> str:
    """Returns the body of an answer; empty if the connection breaks before its end. The status decides without it."""
    try:
        return error.read(_MAX_ANSWER).decode("utf-8", "replace")
    except (OSError, HTTPException):
        return ""


def _seconds(text: str | None) -> float:
    """Returns the seconds of a header Retry-After; 0 if there is none, or if it is a date."""
    return float(text) if text is not None and text.isdecimal() else 0.0
