"""Probes: requests that show that a model answers before it serves."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web

from jigsaw_triton.compiler.bundle import ModelFolder
from jigsaw_triton.controller.fleet.server import Server
from jigsaw_triton.errors import ServerError
from jigsaw_triton.runtime.dtypes import Arrays
from jigsaw_triton.servers.client import TritonClient
from jigsaw_triton.servers.command import Command
from jigsaw_triton.servers.process import ServerProcess

INPUTS: Arrays = {"X": np.zeros((1, 1), np.int64)}
ANSWER = {"outputs": [{"name": "Y", "datatype": "INT64", "shape": [1, 1], "data": [7]}]}


def probe(folder: Path, statuses: list[int]) -> tuple[Arrays | ServerError, list[float]]:
    """Probes a model that answers with these HTTP statuses, one after the other.

    Returns:
        The answer or the error, and the timeouts of the requests in seconds.
    """
    timeouts: list[float] = []

    async def handler(request: web.Request) -> web.Response:
        body = await request.read()
        head = json.loads(body[: int(request.headers["Inference-Header-Content-Length"])])
        timeouts.append(head["parameters"]["timeout"] / 1e6)
        status = statuses[len(timeouts) - 1]
        return web.json_response(ANSWER if status == 200 else {"error": f"status {status}"}, status=status)

    async def main() -> Arrays | ServerError:
        application = web.Application()
        application.router.add_post("/v2/models/m/infer", handler)
        runner = web.AppRunner(application, shutdown_timeout=0)
        await runner.setup()
        await web.UnixSite(runner, str(folder / "s")).start()
        try:
            async with TritonClient(str(folder / "s")) as client:
                process = ServerProcess(
                    "n-0-1g-0",
                    Command((), {}, str(folder / "s"), "", "", (), (), "", "", folder / "arguments"),
                    folder / "log",
                )
                return await Server(process, client, folder, lambda: None).probe("m", INPUTS)
        except ServerError as error:
            return error
        finally:
            await runner.cleanup()

    return asyncio.run(main()), timeouts


def test_a_refused_probe_is_sent_again_with_more_time(run_dir: Path) -> None:
    answer, timeouts = probe(run_dir, [503, 503, 200])
    assert not isinstance(answer, ServerError) and answer["Y"].item() == 7
    assert timeouts == sorted(timeouts) and len(set(timeouts)) == 3
    assert timeouts[0] < 5


@pytest.mark.parametrize(("statuses", "sent"), [([500], 1), ([503] * 4, 4)])
def test_a_probe_fails_with_the_model_or_after_the_last_refusal(run_dir: Path, statuses: list[int], sent: int) -> None:
    error, timeouts = probe(run_dir, statuses)
    assert isinstance(error, ServerError)
    assert error.message == f"model m loaded but does not answer a probe: status {statuses[-1]}"
    assert len(timeouts) == sent


def test_each_instance_of_a_model_answers_a_probe_before_the_model_serves(run_dir: Path) -> None:
    """The model answers only once all probes have arrived."""
    instances, arrived = 3, list[str]()
    calls = {"load": {}, "index": [{"name": "m", "state": "READY"}], "config": {"input": []}}

    async def main() -> None:
        complete = asyncio.Event()

        async def handler(request: web.Request) -> web.Response:
            call = request.path.rpartition("/")[2]
            if call != "infer":
                return web.json_response(calls[call])
            arrived.append(call)
            if len(arrived) == instances:
                complete.set()
            await complete.wait()
            return web.json_response(ANSWER)

        application = web.Application()
        application.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(application, shutdown_timeout=0)
        await runner.setup()
        await web.UnixSite(runner, str(run_dir / "s")).start()
        try:
            async with asyncio.timeout(20), TritonClient(str(run_dir / "s")) as client:
                command = Command((), {}, str(run_dir / "s"), "", "", (), (), "", "", run_dir / "arguments")
                server = Server(ServerProcess("n-0-1g-0", command, run_dir / "log"), client, run_dir, lambda: None)
                await server.load_all([ModelFolder("m", {"config.pbtxt": b""})], probed={"m": instances})
        finally:
            await runner.cleanup()

    asyncio.run(main())
    assert len(arrived) == instances
