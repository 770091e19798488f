import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import numpy as np
import pytest

from benchmarks.dataplane import client
from benchmarks.dataplane.client import BROKEN, OK, UNAVAILABLE, Outcome, Reply
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.gateway import GatewayPorts

X = np.arange(4, dtype=np.float32).reshape(1, 4)


def answer(status: int, text: bytes, tensors: bytes = b"") -> bytes:
    length = f"Inference-Header-Content-Length: {len(text)}\r\n" if tensors else ""
    head = f"HTTP/1.1 {status} X\r\nContent-Type: x\r\n{length}Content-Length: {len(text) + len(tensors)}\r\n\r\n"
    return head.encode() + text + tensors


class Server:
    """Answers every request with the next of its answers; an empty answer closes the connection.

    Args:
        answers: Bytes of the answers, which are repeated for ever.
    """

    def __init__(self, *answers: bytes) -> None:
        self._answers = itertools.cycle(answers)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[GatewayPorts]:
        handlers: list[asyncio.Task[None]] = []

        def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handlers.append(asyncio.create_task(self._serve(reader, writer)))

        try:
            async with await asyncio.start_server(accepted, "127.0.0.1", 0) as server:
                yield GatewayPorts(http=server.sockets[0].getsockname()[1])
        finally:
            await asyncio.gather(*handlers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = dict(line.split(": ") for line in head.decode().split("\r\n")[1:-2])
                await reader.readexactly(int(fields["Content-Length"]))
                data = next(self._answers)
                if not data:
                    break
                # Send two pieces, as a network may.
                writer.write(data[:9])
                await writer.drain()
                writer.write(data[9:])
        writer.close()
        await writer.wait_closed()


def test_a_request_has_the_form_of_the_protocol() -> None:
    head, _, body = client.request("graph", {"X": X}, timeout_us=5).partition(b"\r\n\r\n")
    fields = dict(line.split(": ") for line in head.decode().split("\r\n")[1:])
    text = json.loads(body[: int(fields["Inference-Header-Content-Length"])])
    assert head.startswith(b"POST /v2/models/graph/infer HTTP/1.1\r\n")
    assert int(fields["Content-Length"]) == len(body)
    assert text["inputs"] == [
        {"name": "X", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    ]
    assert text["parameters"] == {"binary_data_output": True, "timeout": 5}
    assert body.endswith(X.tobytes())


def test_a_request_may_have_no_timeout() -> None:
    assert b"timeout" not in client.request("graph", {"X": X}, timeout_us=None)
    assert b"timeout" in client.request("graph", {"X": X})


def test_a_reply_is_parsed_only_when_it_is_complete() -> None:
    whole = answer(200, b'{"a":1}', b"tensor")
    assert [client.parse(whole[:end]) for end in range(len(whole))] == [None] * len(whole)
    assert client.parse(whole) == Reply(200, b'{"a":1}', b"tensor")
    assert client.parse(answer(503, b'{"error":"late"}')) == Reply(503, b'{"error":"late"}')


def replies(count: int, *answers: bytes) -> list[Reply]:
    async def main() -> list[Reply]:
        async with Server(*answers).serving() as ports, client.connections(ports, 1) as (connection,):
            return [await connection.ask(client.request("m", {"X": X})) for _ in range(count)]

    return asyncio.run(main())


def test_replies_belong_to_their_requests() -> None:
    first, second, third = replies(3, answer(200, b"{}", b"one"), answer(503, b"late"))
    assert (first.tensors, second.status, third.tensors) == (b"one", UNAVAILABLE, b"one")


def test_a_broken_connection_is_reported_and_stays_broken() -> None:
    assert [reply.status for reply in replies(3, answer(200, b"{}"), b"")] == [OK, BROKEN, BROKEN]


@pytest.mark.parametrize(
    ("seconds", "rate"),
    [(8.0, 4 / 8), (0.5, 1.0)],
    ids=["answers at 2, 4, ..., 12, four of them between 3 and 11", "answers at 2 and 4, none between 3 and 3.5"],
)
def test_a_closed_loop_counts_answers_after_its_warm_up_and_goes_on_until_there_is_one(
    seconds: float, rate: float
) -> None:
    async def main() -> float:
        ticks = itertools.count()
        async with Server(answer(200, b"{}")).serving() as ports:
            # Each reading of the clock advances it by 1: once at the start, then before and after each request.
            return await client.closed_loop(
                ports, client.request("m", {"X": X}), 1, warm_up_s=3, seconds=seconds, clock=lambda: float(next(ticks))
            )

    assert asyncio.run(main()) == rate


def test_a_closed_loop_ends_at_a_failed_request() -> None:
    async def main() -> float:
        async with Server(answer(503, b"too late")).serving() as ports:
            return await client.closed_loop(ports, client.request("m", {"X": X}), 1, warm_up_s=1, seconds=1)

    with pytest.raises(ServerError, match="503 too late"):
        asyncio.run(main())


def test_requests_to_a_closed_port_are_broken() -> None:
    async def main() -> Reply:
        async with Server().serving() as ports:
            pass
        return await (await client.connect(ports)).ask(b"")

    assert asyncio.run(main()).status == BROKEN


def test_poisson_arrivals_report_every_outcome() -> None:
    async def main() -> list[Outcome]:
        async with Server(answer(200, b"{}"), answer(503, b"late"), b"").serving() as ports:
            return await client.poisson(ports, client.request("m", {"X": X}), 1000.0, 0.1, Random(1))

    found = asyncio.run(main())
    assert len(found) == len(list(client.arrivals(1000.0, 0.1, Random(1))))
    assert {outcome.status for outcome in found} == {OK, UNAVAILABLE, BROKEN}
    assert all(outcome.ended_s >= outcome.due_s for outcome in found)


def test_arrivals_have_the_given_mean_rate() -> None:
    times = list(client.arrivals(200.0, 50.0, Random(1)))
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 50
    assert len(times) == pytest.approx(10_000, rel=0.03)
