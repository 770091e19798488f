import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pytest
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

import jigsaw_triton
from jigsaw_triton.errors import ServerError
from jigsaw_triton.servers.backend import Api, server_api, server_library
from jigsaw_triton.servers.client import TritonClient
from jigsaw_triton.servers.command import Command, gateway_command, worker_command
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.probe import probe_inputs
from jigsaw_triton.servers.process import ServerProcess, group_members

pytestmark = pytest.mark.e2e

SECRET = "0123456789abcdef"
CONFIG = """
name: "echo" backend: "python" max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "S" data_type: TYPE_STRING dims: [ 1 ] } ]
output [
  { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] },
  { name: "T" data_type: TYPE_STRING dims: [ 1 ] },
  { name: "WHERE" data_type: TYPE_STRING dims: [ 2 ] }
]
dynamic_batching {}
instance_group [ { count: 2 kind: KIND_CPU } ]
"""
MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils
import jigsaw_triton

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x, s = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in "XS")
        where = np.array([[np.__file__.encode(), jigsaw_triton.__file__.encode()]] * len(x), np.object_)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("Y", x + 1), pb_utils.Tensor("T", s), pb_utils.Tensor("WHERE", where)]
        )
"""


@pytest.fixture
def repository(run_dir: Path) -> Path:
    folder = run_dir / "models"
    (folder / "echo" / "1").mkdir(parents=True)
    (folder / "echo" / "config.pbtxt").write_text(CONFIG)
    (folder / "echo" / "1" / "model.py").write_text(MODEL)
    (folder / "broken" / "1").mkdir(parents=True)
    (folder / "broken" / "config.pbtxt").write_text(CONFIG.replace("echo", "broken"))
    (folder / "broken" / "1" / "model.py").write_text("raise RuntimeError('no weights')")
    return folder


@pytest.fixture
def worker(installation: Installation, repository: Path, run_dir: Path) -> Command:
    return worker_command(
        installation, name="a-0-1g-0", repository=repository, run_dir=run_dir, secret=SECRET, device=None
    )


def regions(command: Command) -> list[str]:
    return [path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(command.shm_prefix)]


async def counted(client: TritonClient) -> int:
    (statistics,) = await client.statistics("echo")
    count: int = statistics["inference_count"]
    return count


async def state(client: TritonClient, model: str = "echo") -> str:
    return (await client.index())[model]


async def until(ask: Callable[[], Awaitable[object]], expected: object) -> None:
    while True:
        if await ask() == expected:
            return
        await asyncio.sleep(0.02)


def assert_nothing_left(server: ServerProcess) -> None:
    assert server.pid is not None
    assert group_members(server.pid) == []
    assert regions(server.command) == []
    assert not any(path.exists() for path in server.command.sockets)


def test_the_life_cycle_of_a_worker(
    worker: Command, run_dir: Path, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The current folder may be another checkout of this project.
    (tmp_path / "jigsaw_triton.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(tmp_path)
    server = ServerProcess("a-0-1g-0", worker, run_dir / "worker.log")

    async def main() -> None:
        await server.start()
        async with TritonClient.of(worker) as client, TritonClient(str(worker.sockets[0])) as listener:
            assert await client.index() == {"echo": "UNAVAILABLE", "broken": "UNAVAILABLE"}
            with pytest.raises(ServerError, match="unknown model"):
                await listener.infer("echo", {})
            await client.load("echo")
            assert (await client.index())["echo"] == "READY"
            await client.infer("echo", probe_inputs(await client.config("echo")))
            x = np.arange(6, dtype=np.float32).reshape(2, 3)
            outputs = await listener.infer("echo", {"X": x, "S": np.array([[b"a"], [b""]], np.object_)})
            np.testing.assert_array_equal(outputs["Y"], x + 1)
            assert outputs["T"].tolist() == [[b"a"], [b""]]
            # The stub sees the packages of this interpreter and this package itself.
            assert outputs["WHERE"][0].tolist() == [np.__file__.encode(), jigsaw_triton.__file__.encode()]
            # Triton counts a request shortly after it has answered.
            await until(lambda: counted(client), 3)
            metrics = {m.name: m.value for m in await client.metrics() if m.labels.get("model") == "echo"}
            assert metrics["nv_inference_request_success"] == 2
            assert regions(worker)
            await client.unload("echo")
            await until(lambda: state(client), "UNAVAILABLE")
        await server.stop(grace_s=30)

    asyncio.run(main())
    assert server.returncode == 0
    assert_nothing_left(server)
    assert not list(repository.rglob("__pycache__"))
    assert {path.stat().st_mode & 0o077 for path in run_dir.glob("*.log")} == {0}


def test_loading_a_model_does_not_delay_inferences(worker: Command, run_dir: Path, repository: Path) -> None:
    gate = run_dir / "gate"
    shutil.copytree(repository / "echo", repository / "slow")
    (repository / "slow" / "config.pbtxt").write_text(CONFIG.replace("echo", "slow"))
    wait = f"import os, time\nwhile not os.path.exists({str(gate)!r}):\n    time.sleep(0.02)\n"
    (repository / "slow" / "1" / "model.py").write_text(wait + MODEL)
    server = ServerProcess("a-0-1g-0", worker, run_dir / "worker.log")
    x = {"X": np.zeros((1, 3), np.float32), "S": np.array([[b""]], np.object_)}

    async def main() -> None:
        await server.start()
        clients = [TritonClient.of(worker) for _ in range(8)]
        try:
            await clients[0].load("echo")
            # The connections are opened before the load; a load over HTTP would block the thread of most of them.
            for client in clients:
                await client.infer("echo", x)
            loading = asyncio.create_task(clients[0].load("slow"))
            await until(lambda: state(clients[0], "slow"), "LOADING")
            for client in clients:
                await client.infer("echo", x)
            assert not loading.done()
            gate.touch()
            await loading
        finally:
            for client in clients:
                await client.close()
            await server.stop()

    asyncio.run(main())
    assert_nothing_left(server)


def test_errors_have_tritons_own_message(worker: Command, run_dir: Path) -> None:
    server = ServerProcess("a-0-1g-0", worker, run_dir / "worker.log")

    async def main() -> None:
        await server.start()
        try:
            async with TritonClient.of(worker) as client, TritonClient(worker.address) as stranger:
                with pytest.raises(ServerError, match="restricted"):
                    await stranger.index()
                with pytest.raises(ServerError, match="no weights"):
                    await client.load("broken")
                with pytest.raises(ServerError, match="failed to poll"):
                    await client.load("absent")
                await client.load("echo")
                with pytest.raises(ServerError, match="missing required input"):
                    await client.infer("echo", {"Z": np.zeros((1, 3), np.float32)})
        finally:
            await server.stop()

    asyncio.run(main())
    assert_nothing_left(server)


def test_a_killed_server_leaves_nothing_after_stop(worker: Command, run_dir: Path) -> None:
    server = ServerProcess("a-0-1g-0", worker, run_dir / "worker.log")

    async def main() -> None:
        await server.start()
        async with TritonClient.of(worker) as client:
            await client.load("echo")
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        assert await server.wait() == -9
        await server.stop()
        await server.start()  # The same server can be started again.
        await server.stop()

    asyncio.run(main())
    assert_nothing_left(server)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_the_backend_api_of_a_server_is_read(installation: Installation) -> None:
    assert server_api(installation.binary, installation.env) >= Api(1, 19)  # type: ignore[operator]


def test_the_server_has_all_functions_that_the_compiled_backend_needs(installation: Installation) -> None:
    library = server_library(installation.binary, installation.env)
    compiled = installation.backend_dir / "jigsaw" / "libtriton_jigsaw.so"
    # ctypes resolves all functions when it loads a library, so a missing one is an error.
    load = f"import ctypes; ctypes.CDLL({str(library)!r}, ctypes.RTLD_GLOBAL); ctypes.CDLL({str(compiled)!r})"
    subprocess.run([sys.executable, "-c", load], env={**os.environ, **installation.env}, check=True)


def test_a_gateway_is_open_only_for_inference(installation: Installation, repository: Path, run_dir: Path) -> None:
    command = gateway_command(
        installation,
        repository=repository,
        run_dir=run_dir,
        secret=SECRET,
        address="127.0.0.1",
        http_port=free_port(),
        grpc_port=free_port(),
        metrics_port=free_port(),
    )
    server = ServerProcess("gateway", command, run_dir / "gateway.log")
    grpc = InferenceServerClient(f"127.0.0.1:{command.ports[1][1]}")

    async def main() -> None:
        await server.start()
        try:
            async with TritonClient.of(command) as client:
                await client.load("echo")
                assert await client.metrics()
                await asyncio.to_thread(use_grpc)
                # By default, urllib sends the content type of form data; Triton reads the whole body into a stack.
                with pytest.raises(HTTPError, match=r"400|500"):
                    await asyncio.to_thread(urlopen, f"{command.address}/v2/models/echo/infer", bytes(2**25))
                assert await client.ready()
        finally:
            await server.stop()

    def use_grpc() -> None:
        assert grpc.is_model_ready("echo")
        assert grpc.get_inference_statistics("echo").model_stats
        assert grpc.get_model_config("echo").config.name == "echo"
        for restricted in (grpc.get_model_repository_index, lambda: grpc.unload_model("echo")):
            with pytest.raises(InferenceServerException, match="restricted"):
                restricted()

    with grpc:
        asyncio.run(main())
    assert_nothing_left(server)
