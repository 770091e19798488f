"""Servers after a failed action, on a fake NVML: a server that computes without MPS must not serve."""

import asyncio
import gc
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.compiler.bundle import ModelFolder, Place, Worker, WorkerModel
from jigsaw_triton.controller.fleet.fleet import Fleet
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId, Placement
from jigsaw_triton.servers.installation import Installation
from tests.fakes import mps
from tests.fakes.nvml.machine import Machine

pytestmark = pytest.mark.e2e

CONFIG = """
name: "echo" backend: "python" max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ 1 ] } ]
instance_group [ { count: 1 kind: KIND_CPU } ]
"""
CODE = """
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        inputs = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", x)]) for x in inputs]
"""
ECHO = WorkerModel(
    ModelFolder("echo", {"config.pbtxt": CONFIG.encode(), "1/model.py": CODE.encode()}), "g", "t", "v", 1, 8, "digest"
)
GPU = GpuId("local", 0)
BARE = Worker("local-0-1g-0-p1", (), Place(GPU, "cpu", Placement(0, "1g")), 1000, process=1)


@pytest.fixture
def fleet(
    installation: Installation, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Fleet]:
    """A fleet on a machine whose MPS daemons report no clients."""
    machine = Machine(tmp_path / "gpus", ["cpu"])
    for name, value in machine.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{mps.install(tmp_path / 'bin', like='deaf')}{os.pathsep}{os.environ['PATH']}")
    machine.enter()
    paths = Paths(run_dir / "state", run_dir / "run")
    paths.create()
    journal = Journal(paths.journal)
    yield Fleet(paths, installation, journal, "0123456789abcdef", lambda _: None)
    journal.close()
    machine.leave()


def test_a_server_that_computes_without_mps_does_not_serve(fleet: Fleet) -> None:
    async def main() -> None:
        await fleet.serve_on(Cluster((Gpu(GPU, CATALOG["cpu"]),), driver="nvml", processes="mps"))
        await fleet.bring_up(BARE)
        try:
            server = fleet.server(BARE.name)
            assert server is not None
            with pytest.raises(ServerError, match="compute on the slice without MPS"):
                await fleet.load(BARE.name, [ECHO])
            assert await server.client.index() == {}
            with pytest.raises(ServerError, match="compute on the slice without MPS"):
                await fleet.restart(replace(BARE, models=(ECHO,)), 0.0)
            server = fleet.server(BARE.name)
            assert server is not None and server.process.returncode is not None
        finally:
            await fleet.retire(BARE.name)

    asyncio.run(main())


def test_requests_to_a_server_that_is_being_stopped_leave_no_connection_open(fleet: Fleet) -> None:
    async def main() -> None:
        await fleet.serve_on(Cluster((Gpu(GPU, CATALOG["cpu"]),), driver="nvml", processes="mps"))
        await fleet.bring_up(BARE)
        server = fleet.server(BARE.name)
        assert server is not None

        async def ask() -> None:
            while server.process.returncode is None:
                await server.client.ready()
                await asyncio.sleep(0)

        await asyncio.gather(ask(), fleet.retire(BARE.name))

    asyncio.run(main())
    with warnings.catch_warnings(record=True, action="always", category=ResourceWarning) as left_open:
        gc.collect()
    assert not left_open
