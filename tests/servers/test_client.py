import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.client import TritonClient

SECRET = "0123456789abcdef"
Handler = Callable[[web.Request], Awaitable[web.Response]]


def served(run_dir: Path, handler: Handler, use: Callable[[TritonClient], Awaitable[Any]]) -> Any:
    """Returns the result of `use` with a client whose calls the handler answers."""

    async def main() -> Any:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(application, shutdown_timeout=0)
        await runner.setup()
        socket = run_dir / "t.sock"
        await web.UnixSite(runner, str(socket)).start()
        try:
            async with TritonClient(str(socket), secret=SECRET, timeout_s=5) as client:
                return await use(client)
        finally:
            await runner.cleanup()

    return asyncio.run(main())


def test_the_secret_is_sent_only_with_repository_calls(run_dir: Path) -> None:
    seen: dict[str, str | None] = {}

    async def handler(request: web.Request) -> web.Response:
        seen[request.path] = request.headers.get("x-jigsaw-secret")
        return web.json_response({"model_stats": [{"name": "m"}]})

    async def use(client: TritonClient) -> None:
        await client.load("a.b.g1")
        await client.unload("a.b.g1")
        await client.statistics()
        assert await client.ready()

    served(run_dir, handler, use)
    assert seen == {
        "/v2/repository/models/a.b.g1/load": SECRET,
        "/v2/repository/models/a.b.g1/unload": SECRET,
        "/v2/models/stats": None,
        "/v2/health/ready": None,
    }


def test_a_cancelled_close_still_closes_all_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    close, closed = aiohttp.ClientSession.close, list[aiohttp.ClientSession]()

    async def cancelled_at_first(session: aiohttp.ClientSession) -> None:
        await close(session)
        closed.append(session)
        if len(closed) == 1:
            raise asyncio.CancelledError

    async def main() -> None:
        client = TritonClient("/nowhere", metrics_address="http://127.0.0.1:9")
        assert not await client.ready()
        with pytest.raises(ServerError):
            await client.metrics()
        monkeypatch.setattr(aiohttp.ClientSession, "close", cancelled_at_first)
        with pytest.raises(asyncio.CancelledError):
            await client.close()

    asyncio.run(main())
    assert len(closed) == 2


def test_the_repr_does_not_contain_the_secret() -> None:
    assert SECRET not in repr(TritonClient("http://127.0.0.1:1", secret=SECRET))


def test_the_index_lists_all_models_with_their_states(run_dir: Path) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response(
            [{"name": "never"}, {"name": "m", "version": "1", "state": "READY"}, {"name": "gone", "state": "UNLOADING"}]
        )

    assert served(run_dir, handler, lambda client: client.index()) == {
        "never": "UNAVAILABLE",
        "m": "READY",
        "gone": "UNLOADING",
    }


def test_tritons_own_message_reaches_the_user(run_dir: Path) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"error": "load failed for model 'm': no weights;\n"}, status=400)

    with pytest.raises(ServerError) as caught:
        served(run_dir, handler, lambda client: client.load("m"))
    assert caught.value.message == "load failed for model 'm': no weights"


def test_an_error_without_a_message_is_reported_by_its_status(run_dir: Path) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=502, text="<html>")

    with pytest.raises(ServerError, match="HTTP status 502"):
        served(run_dir, handler, lambda client: client.config("m"))


def test_a_server_that_does_not_listen_is_not_ready(run_dir: Path) -> None:
    async def main() -> None:
        async with TritonClient(str(run_dir / "none.sock")) as client:
            assert not await client.ready()
            await client.index()

    with pytest.raises(ServerError, match="does not answer"):
        asyncio.run(main())


def test_a_late_answer_is_a_timeout(run_dir: Path) -> None:
    given_up = asyncio.Event()

    async def handler(_: web.Request) -> web.Response:
        await given_up.wait()
        return web.Response()

    async def use(client: TritonClient) -> None:
        try:
            await client.infer("m", {}, timeout_s=0.05)
        finally:
            given_up.set()

    with pytest.raises(ServerError, match=r"no answer to v2/models/m/infer within 0\.05 s"):
        served(run_dir, handler, use)


def test_tensors_are_sent_and_received_in_binary_form(run_dir: Path) -> None:
    texts = np.array([[b"ab", b""]], np.object_)
    numbers = np.arange(3, dtype=np.float32).reshape(1, 3).T  # Not contiguous.

    async def handler(request: web.Request) -> web.Response:
        body = await request.read()
        size = int(request.headers["Inference-Header-Content-Length"])
        head = json.loads(body[:size])
        assert head["parameters"] == {"binary_data_output": True, "timeout": 30_000_000}
        head["outputs"] = [{**item, "name": item["name"].lower()} for item in head.pop("inputs")]
        head["outputs"].append({"name": "none", "datatype": "INT64", "shape": [1, 0], "data": []})
        answer = json.dumps(head).encode()
        return web.Response(body=answer + body[size:], headers={"Inference-Header-Content-Length": str(len(answer))})

    outputs = served(run_dir, handler, lambda client: client.infer("m", {"N": numbers, "T": texts}))
    np.testing.assert_array_equal(outputs["n"], numbers)
    assert outputs["t"].tolist() == texts.tolist()
    assert outputs["none"].shape == (1, 0)


def test_an_answer_without_binary_data_is_read(run_dir: Path) -> None:
    async def handler(_: web.Request) -> web.Response:
        outputs = [{"name": "ROWS", "datatype": "FP32", "shape": [1, 0, 4], "data": []}]
        return web.json_response({"outputs": outputs})

    outputs = served(run_dir, handler, lambda client: client.infer("m", {}))
    assert outputs["ROWS"].shape == (1, 0, 4)
    assert outputs["ROWS"].dtype == np.float32


def test_a_malformed_answer_is_an_error(run_dir: Path) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response(
            {"outputs": [{"name": "Y", "datatype": "FP32", "shape": [3], "parameters": {"binary_data_size": 4}}]}
        )

    with pytest.raises(ServerError, match="does not follow Triton's protocol"):
        served(run_dir, handler, lambda client: client.infer("m", {}))
