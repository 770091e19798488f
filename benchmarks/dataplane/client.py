"""A light HTTP client, because the load generator shares the processor with what it loads.

One process keeps thousands of requests under way over raw sockets, and goes on where perf_analyzer would stop: at the
first request that is refused.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import lru_cache
from random import Random

from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.model import GatewayPorts
from jigsaw_triton.runtime.dtypes import Arrays, to_triton

PATIENCE_US = 600_000_000
"""Timeout of requests that are wanted however late they are answered."""

OK, UNAVAILABLE, BROKEN = 200, 503, 0
"""Status of an answer, of a refusal, and where there was none because the connection broke."""

_DRAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        status: Of HTTP; BROKEN where nothing came.
        text: The JSON, or what broke.
        tensors: The bytes of the outputs, one after the other.
    """

    status: int
    text: bytes
    tensors: bytes = b""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request that was sent at its time.

    Attributes:
        due_s: When, after the first might have been.
        latency_ms: From then on.
        status: See `Reply`.
    """

    due_s: float
    latency_ms: float
    status: int

    @property
    def ended_s(self) -> float:
        """When it was over, on the clock of `due_s`."""
        return self.due_s + self.latency_ms / 1e3


def request(model: str, inputs: Arrays, *, timeout_us: int | None = PATIENCE_US) -> bytes:
    """An inference request that asks for binary outputs.

    Args:
        model: Name.
        inputs: With their batch dimension; no strings.
        timeout_us: That the request carries; None for none, so that the graph's SLO is its limit.
    """
    tensors = tuple((name, to_triton(a.dtype), a.shape, a.nbytes) for name, a in inputs.items())
    return b"".join((_head(model, tensors, timeout_us), *(a.tobytes() for a in inputs.values())))


@lru_cache(maxsize=64)
def _head(model: str, tensors: tuple[tuple[str, str, tuple[int, ...], int], ...], timeout_us: int | None) -> bytes:
    body = {
        "inputs": [
            {"name": name, "datatype": dtype, "shape": shape, "parameters": {"binary_data_size": size}}
            for name, dtype, shape, size in tensors
        ],
        "parameters": {"binary_data_output": True} | ({} if timeout_us is None else {"timeout": timeout_us}),
    }
    text = json.dumps(body).encode()
    lines = (
        f"POST /v2/models/{model}/infer HTTP/1.1",
        "Host: gateway",
        f"Inference-Header-Content-Length: {len(text)}",
        f"Content-Length: {len(text) + sum(size for *_, size in tensors)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + text


class Connection(asyncio.Protocol):
    """A keep-alive connection with one request under way at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._reply: asyncio.Future[Reply] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """Whether it stands."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes) -> asyncio.Future[Reply]:
        """Sends a request; await the reply before the next one."""
        self._reply = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            self._reply.set_result(Reply(BROKEN, b"closed"))
        else:
            self._transport.write(request)
        return self._reply

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._received += data
        reply = parse(self._received)
        if reply is not None:
            self._received.clear()
            self._answer(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self._answer(Reply(BROKEN, str(error or "closed").encode()))

    def _answer(self, reply: Reply) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(reply)


def parse(received: bytes | bytearray) -> Reply | None:
    """The reply that these bytes are; None where some are missing."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    status, text_bytes, body_bytes = _parse_head(bytes(received[:end]))
    start = end + 4
    if len(received) < start + body_bytes:
        return None
    middle = start + text_bytes
    with memoryview(received) as view:
        return Reply(status, bytes(view[start:middle]), bytes(view[middle : start + body_bytes]))


@lru_cache(maxsize=1024)
def _parse_head(head: bytes) -> tuple[int, int, int]:
    """Status, bytes of JSON, bytes in all."""
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body_bytes = int(fields.get("content-length", 0))
    return int(first.split(" ")[1]), int(fields.get("inference-header-content-length", body_bytes)), body_bytes


async def connect(ports: GatewayPorts) -> Connection:
    """Opens a connection to a gateway; one that is closed where there is none."""
    try:
        _, connection = await asyncio.get_running_loop().create_connection(Connection, ports.address, ports.http)
    except OSError:
        return Connection()
    return connection


async def closed_loop(
    ports: GatewayPorts,
    request: bytes,
    clients: int,
    *,
    warm_up_s: float,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> float:
    """Answers a second to clients that each send the next request when the last one is answered.

    Args:
        ports: Of the server.
        request: That all send.
        clients: How many.
        warm_up_s: Before anything counts.
        seconds: Counted.
        clock: Seconds.

    Raises:
        ServerError: A request failed.
    """
    begin_s = clock() + warm_up_s
    end_s = begin_s + seconds
    counted = 0
    failed: list[Reply] = []

    async def client(connection: Connection) -> None:
        nonlocal counted
        while not failed and clock() < end_s:
            reply = await connection.ask(request)
            if reply.status == OK:
                counted += begin_s <= clock() < end_s
            else:
                failed.append(reply)

    async with connections(ports, clients) as opened, asyncio.TaskGroup() as group:
        for connection in opened:
            group.create_task(client(connection))
    if failed:
        raise ServerError(f"a request failed: {failed[0].status} {failed[0].text.decode()}", where="gateway")
    return counted / seconds


async def poisson(ports: GatewayPorts, request: bytes, rate_rps: float, seconds: float, rng: Random) -> list[Outcome]:
    """Sends requests at Poisson times, whether or not earlier ones were answered, as of many independent users.

    Args:
        ports: Of the server.
        request: Sent each time.
        rate_rps: Mean.
        seconds: How long.
        rng: For the times.

    Returns:
        In no order, what became of each.
    """
    outcomes: list[Outcome] = []
    begin_s = 0.0

    async def one(idle: list[Connection], due_s: float) -> None:
        connection = idle.pop() if idle else await connect(ports)
        reply = await connection.ask(request)
        outcomes.append(Outcome(due_s, (time.monotonic() - begin_s - due_s) * 1e3, reply.status))
        if connection.is_open:
            idle.append(connection)

    async with connections(ports, 1) as idle, asyncio.timeout(seconds + _DRAIN_S), asyncio.TaskGroup() as group:
        begin_s = time.monotonic()
        for due_s in arrivals(rate_rps, seconds, rng):
            await asyncio.sleep(max(0.0, begin_s + due_s - time.monotonic()))
            group.create_task(one(idle, due_s))
    return outcomes


def arrivals(rate_rps: float, seconds: float, rng: Random) -> Iterator[float]:
    """Poisson times from 0 to `seconds`."""
    at_s = rng.expovariate(rate_rps)
    while at_s < seconds:
        yield at_s
        at_s += rng.expovariate(rate_rps)


@asynccontextmanager
async def connections(ports: GatewayPorts, count: int) -> AsyncIterator[list[Connection]]:
    """So many connections; those in the list in the end are closed."""
    opened = [await connect(ports) for _ in range(count)]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()
