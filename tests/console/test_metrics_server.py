import asyncio
import socket
from contextlib import closing

import aiohttp

from jigsaw_triton.console.metrics_server import serve_metrics
from jigsaw_triton.console.options import Listen
from tests.e2e.system import free_ports
from tests.waiting import WAIT_LIMIT_S


async def text() -> str:
    return "a 1\n"


async def fetched(port: int, path: str = "/metrics") -> tuple[int, str, str]:
    """Returns the status, the type and the body, as soon as the port is open."""
    async with asyncio.timeout(WAIT_LIMIT_S), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                    return answer.status, answer.headers["Content-Type"], await answer.text()
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.01)


def test_only_metrics_are_served() -> None:
    async def run() -> None:
        (port,) = free_ports(1)
        reports: list[str] = []
        task = asyncio.create_task(serve_metrics(Listen("127.0.0.1", port), text, reports.append))
        assert await fetched(port) == (200, "text/plain; version=0.0.4", "a 1\n")
        assert (await fetched(port, "/status"))[0] == 404
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() and reports == []

    asyncio.run(run())


def test_a_port_in_use_is_reported_once_and_taken_when_it_is_free() -> None:
    async def run() -> None:
        reports: list[str] = []
        reported = asyncio.Event()

        def report(text: str) -> None:
            reports.append(text)
            reported.set()

        with closing(socket.create_server(("127.0.0.1", 0))) as other:
            port = other.getsockname()[1]
            listen = Listen("127.0.0.1", port)
            task = asyncio.create_task(serve_metrics(listen, text, report, retry_s=0.01))
            await asyncio.wait_for(reported.wait(), WAIT_LIMIT_S)
            # The pause allows several attempts, of which only the first may be reported.
            await asyncio.sleep(0.1)
        assert (await fetched(port))[0] == 200
        assert len(reports) == 1 and f"cannot be served on 127.0.0.1:{port}" in reports[0]
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(run())
