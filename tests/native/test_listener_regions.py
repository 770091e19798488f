"""Tensors of calls of the listener in shared memory."""

import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.native import specs
from tests.native.core import Engine
from tests.native.listener import DATA, INFER, ITEM, Client, client, connect, path
from tests.native.worker import SECRET, SHARED_MEMORY
from tests.waiting import eventually

__all__ = ["client", "connect", "path"]


@pytest.fixture
def region() -> Iterator[mmap.mmap]:
    file = os.open(SHARED_MEMORY / f"jigsaw-test-{os.getpid()}-listener", os.O_RDWR | os.O_CREAT, 0o600)
    os.ftruncate(file, 4096)
    with mmap.mmap(file, 4096) as mapped:
        yield mapped
    os.close(file)
    (SHARED_MEMORY / f"jigsaw-test-{os.getpid()}-listener").unlink()


def register(client: Client, size: int = 4096, secret: str = SECRET, name: str = "listener") -> tuple[int, Any, bytes]:
    key = f"/jigsaw-test-{os.getpid()}-{name}"
    head = {"key": key, "offset": 0, "byte_size": size}
    return client.ask("/v2/systemsharedmemory/region/r/register", head, x_jigsaw_secret=secret)


def placed(offset: int, size: int = 8) -> dict[str, Any]:
    parameters = {"shared_memory_region": "r", "shared_memory_offset": offset, "shared_memory_byte_size": size}
    item = {**ITEM, "shape": [size // 4, 1], "parameters": parameters}
    return {"inputs": [item], "outputs": [{"name": "Y", "parameters": {**parameters, "shared_memory_offset": 2048}}]}


def test_tensors_may_be_in_shared_memory(client: Client, region: mmap.mmap) -> None:
    assert register(client)[0] == 200
    region[64:72] = DATA
    status, head, tensors = client.ask(INFER, placed(64))
    assert (status, tensors) == (200, b"")
    assert head["outputs"] == [{"name": "Y", "datatype": "INT32", "shape": [2, 1]}]
    assert region[2048:2056] == DATA
    assert client.ask("/v2/systemsharedmemory/region/r/unregister", {}, x_jigsaw_secret=SECRET)[0] == 200
    status, head, _ = client.ask(INFER, placed(64))
    assert (status, head["error"]) == (400, "Unable to find shared memory region: 'r'")


@pytest.mark.usefixtures("region")
def test_a_region_is_checked(client: Client, connect: Callable[[], Client]) -> None:
    assert register(client, secret="wrong")[:2] == (403, {"error": "the secret is wrong"})
    for size in (0, 4097):
        assert register(client, size)[0] == 400
    assert register(client, name="absent")[0] == 400
    assert register(client)[0] == 200
    for offset in (4096, 4089, 1 << 39):
        status, head, _ = client.ask(INFER, placed(offset))
        assert (status, head["error"]) == (400, "a tensor is outside the region r")
    # It belongs to the connection.
    assert connect().ask(INFER, placed(64))[0] == 400


def test_an_output_that_does_not_fit_its_place_is_an_error(client: Client, region: mmap.mmap) -> None:
    assert register(client)[0] == 200
    region[0:8] = DATA
    head = placed(0)
    head["outputs"][0]["parameters"]["shared_memory_byte_size"] = 4
    status, text, _ = client.ask(INFER, head)
    assert (status, text["error"]) == (400, "output Y is larger than its part of the region")


@pytest.mark.usefixtures("path")
def test_a_front_calls_models_through_the_listener(run_dir: Path) -> None:
    kind = ("INT64", (50_000,))
    made = specs.task(inputs={"X": ("inputs.X", kind)}, outputs={"Y": kind})
    prefix = f"jigsaw-test-{os.getpid()}-listener-"
    specs.write_route(run_dir, specs.entry("w", model="echo"))
    with Engine(run_dir, SECRET, prefix) as engine:
        front = engine.front(specs.spec([made], {"X": kind}, {"Y": ("t.Y", kind)}))

        def shared() -> bool:
            x = np.arange(50_000).reshape(1, -1)
            assert (front.ask({"X": x})["Y"] == x).all()
            return maps(prefix) == 2

        eventually(shared)
    # The listener unmaps a region when its connection ends.
    eventually(lambda: maps(prefix) == 0)


def maps(prefix: str) -> int:
    """Returns the number of mappings of regions in this process."""
    return sum(prefix in line for line in Path("/proc/self/maps").read_text().splitlines())
