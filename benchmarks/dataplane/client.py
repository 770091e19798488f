"""A light HTTP client, for load generators that share the processor with the servers.

One process keeps thousands of requests in flight over raw sockets. Unlike perf_analyzer, it does not stop at the first
refused request.
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
from jigsaw_triton.gpus.gateway import GatewayPorts
from jigsaw_triton.runtime.dtypes import Arrays, to_triton

LONG_TIMEOUT_US = 600_000_000
"""Timeout of requests that may be answered at any time, in microseconds."""

OK, UNAVAILABLE, BROKEN = 200, 503, 0
"""Status of an answer, of a refusal, and of a request without an answer because its connection broke."""

_DRAIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """Reply to a request.

    Attributes:
        status: HTTP status; BROKEN if no reply came.
        text: JSON of the reply, or the error of the connection.
        tensors: Bytes of the outputs, one after the other.
    """

    status: int
    text: bytes
    tensors: bytes = b""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a request that was due at a certain time.

    Attributes:
        due_s: Seconds from the start of the load until the request was due.
        latency_ms: Milliseconds from then until the reply.
        status: Status of the reply; see `Reply`.
    """

    due_s: float
    latency_ms: float
    status: int

    @property
    def ended_s(self) -> float:
        """Seconds from the start of the load until the reply."""
        return self.due_s + self.latency_ms / 1e3


def request(model: str, inputs: Arrays, *, timeout_us: int | None = LONG_TIMEOUT_US) -> bytes:
    """Returns the bytes of an inference request with binary inputs and outputs.

    Args:
        model: Name of the model.
        inputs: Inputs by name, with their batch dimension; strings are not supported.
        timeout_us: Timeout of the request in microseconds; None for none, so that the graph's SLO is the limit.
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
    """A keep-alive connection with one request in flight at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._reply: asyncio.Future[Reply] | None = None
        self._transport: asyncio.Transport | None = None

    @property
    def is_open(self) -> bool:
        """True while the connection is open."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, request: bytes) -> asyncio.Future[Reply]:
        """Sends a request. Await the returned reply before sending the next one."""
        self._reply = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            self._reply.set_result(Reply(BROKEN, b"closed"))
        else:
            self._transport.write(request)
        return self._reply

    def close(self) -> None:
        """Closes the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Implements `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Implements `asyncio.Protocol`."""
        self._received += data
        reply = parse(self._received)
        if reply is not None:
            self._received.clear()
            self._answer(reply)

    def connection_lost(self, error: Exception | None) -> None:
        """Implements `asyncio.Protocol`."""
        self._answer(Reply(BROKEN, str(error or "closed").encode()))

    def _answer(self, reply: Reply) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(reply)


def parse(received: bytes | bytearray) -> Reply | None:
    """Parses a reply. Returns None if bytes are missing."""
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
    """Returns the status, the length of the JSON, and the length of the body."""
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body_bytes = int(fields.get("content-length", 0))
    return int(first.split(" ")[1]), int(fields.get("inference-header-content-length", body_bytes)), body_bytes


async def connect(ports: GatewayPorts) -> Connection:
    """Opens a connection to a gateway. Returns a closed connection if the gateway cannot be reached."""
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
    """Runs clients that each send the next request when the last one is answered.

    They go on after the time until one answer is counted, so that no rate is zero.

    Args:
        ports: Ports of the server.
        request: Request that all clients send.
        clients: Number of clients.
        warm_up_s: Seconds before answers are counted.
        seconds: Seconds in which answers are counted.
        clock: Monotonic clock, in seconds.

    Returns:
        Answers a second.

    Raises:
        ServerError: A request failed.
    """
    begin_s = clock() + warm_up_s
    end_s = begin_s + seconds
    counted, last_s = 0, begin_s
    failed: list[Reply] = []

    async def client(connection: Connection) -> None:
        nonlocal counted, last_s
        while not failed and (clock() < end_s or not counted):
            reply = await connection.ask(request)
            now_s = clock()
            if reply.status != OK:
                failed.append(reply)
            elif begin_s <= now_s < end_s or (end_s <= now_s and not counted):
                counted, last_s = counted + 1, now_s

    async with connections(ports, clients) as opened, asyncio.TaskGroup() as group:
        for connection in opened:
            group.create_task(client(connection))
    if failed:
        raise ServerError(f"a request failed: {failed[0].status} {failed[0].text.decode()}", where="gateway")
    return counted / max(seconds, last_s - begin_s)


async def poisson(
    ports: GatewayPorts,
    request: bytes,
    rate_rps: float,
    seconds: float,
    rng: Random,
    *,
    standby: GatewayPorts | None = None,
) -> list[Outcome]:
    """Sends requests as Poisson arrivals, whether or not earlier ones were answered, as many independent users do.

    Args:
        ports: Ports of the server.
        request: Request to send each time.
        rate_rps: Mean number of requests a second.
        seconds: Seconds in which requests are sent.
        rng: Source of the random times.
        standby: Second server, to which a request goes that cannot be sent to the first; None for none.

    Returns:
        Outcomes of all requests, in no particular order.
    """
    outcomes: list[Outcome] = []
    begin_s = 0.0

    async def one(idle: list[Connection], due_s: float) -> None:
        connection = idle.pop() if idle else await connect(ports)
        if standby is not None and not connection.is_open:
            connection = await _connect_to_first(ports, standby)
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


async def _connect_to_first(*servers: GatewayPorts) -> Connection:
    """Opens a connection to the first server that can be reached, as clients with several addresses do."""
    connection = Connection()
    for ports in servers:
        connection = await connect(ports)
        if connection.is_open:
            break
    return connection


def arrivals(rate_rps: float, seconds: float, rng: Random) -> Iterator[float]:
    """Yields the times of Poisson arrivals between 0 and `seconds`."""
    at_s = rng.expovariate(rate_rps)
    while at_s < seconds:
        yield at_s
        at_s += rng.expovariate(rate_rps)


@asynccontextmanager
async def connections(ports: GatewayPorts, count: int) -> AsyncIterator[list[Connection]]:
    """Opens connections. At the end it closes those that are in the list then."""
    opened = [await connect(ports) for _ in range(count)]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()
