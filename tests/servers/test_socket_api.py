"""The API on a socket: its errors, its parameters, and who may open it."""

import asyncio
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from jigsaw_triton.errors import InputError, StateError
from jigsaw_triton.servers.socket_api import SocketApi, seconds, whole_number

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def asked(folder: Path, handler: Handler, path: str = "/x") -> tuple[int, Any]:
    async def ask() -> tuple[int, Any]:
        api = SocketApi(folder / "api.sock", [web.get("/x", handler)], owner="gateway", grace_s=0.0)
        await api.start()
        try:
            assert stat.S_IMODE((folder / "api.sock").stat().st_mode) == 0o600
            connector = aiohttp.UnixConnector(str(folder / "api.sock"))
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.get(f"http://x{path}") as response,
            ):
                return response.status, await response.json(content_type=None)
        finally:
            await api.stop()
            assert not (folder / "api.sock").exists()

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("error", "status", "code", "words"),
    [
        (StateError("not now", where="here", hint="later"), 409, 4, "not now"),
        (InputError("no"), 409, 2, "no"),
        (KeyError("name"), 400, 2, "the call is malformed: KeyError: 'name'"),
        (ValueError("not a number"), 400, 2, "not a number"),
        (AttributeError("x"), 500, 1, "/x failed: AttributeError: x"),
    ],
)
def test_errors_are_answered_as_json(run_dir: Path, error: Exception, status: int, code: int, words: str) -> None:
    async def fail(_: web.Request) -> web.StreamResponse:
        raise error

    found, answer = asked(run_dir, fail)
    assert (found, answer["error"]["code"]) == (status, code)
    assert words in answer["error"]["message"]
    if status == 500:
        assert "logs gateway" in answer["error"]["hint"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (7, 0.5)),
        ("?n=3&s=0.25", (3, 0.25)),
        ("?n=x", "n is not a whole number"),
        ("?n=-1", "n is not a whole number"),
        ("?s=x", "s is not a number of seconds"),
        ("?s=-1", "s is not a number of seconds"),
        ("?s=nan", "s is not a number of seconds"),
    ],
)
def test_parameters_are_checked(run_dir: Path, query: str, expected: Any) -> None:
    async def read(request: web.Request) -> web.StreamResponse:
        return web.json_response([whole_number(request, "n", 7), seconds(request, "s", 0.5)])

    _, answer = asked(run_dir, read, f"/x{query}")
    if isinstance(expected, str):
        assert expected in answer["error"]["message"]
    else:
        assert tuple(answer) == expected


def test_the_socket_of_a_later_process_stays(run_dir: Path) -> None:
    async def test() -> None:
        path = run_dir / "api.sock"
        first, second = (SocketApi(path, [], owner="gateway", grace_s=0.0) for _ in range(2))
        await first.start()
        await second.start()
        await first.stop()
        assert path.exists()
        await second.stop()
        assert not path.exists()

    asyncio.run(test())


def test_an_api_that_did_not_start_removes_nothing(run_dir: Path) -> None:
    async def test() -> None:
        path = run_dir / "api.sock"
        running, other = (SocketApi(path, [], owner="gateway", grace_s=0.0) for _ in range(2))
        await running.start()
        await other.stop()
        assert path.exists()
        await running.stop()

    asyncio.run(test())
