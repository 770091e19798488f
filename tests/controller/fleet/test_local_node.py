"""The node of a process that serves one deployment after the other, as an agent's does, and adopts workers."""

import asyncio
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from jigsaw_triton.compiler.bundle import ModelFolder
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet import health, local_node
from jigsaw_triton.controller.fleet.local_node import LocalNode
from jigsaw_triton.controller.fleet.server import Server
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.driver import open_driver
from jigsaw_triton.gpus.gateway import ServerImage
from jigsaw_triton.gpus.model import Cluster, Gpu, GpuId
from jigsaw_triton.servers.client import TritonClient
from jigsaw_triton.servers.image import Image
from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.process import ServerProcess

FOUR = Cluster(tuple(Gpu(GpuId("a", index), CATALOG["A100-80GB"]) for index in range(4)), driver="emulated")
INSTALLATION = cast(Installation, SimpleNamespace(version="24.10", backends=frozenset()))


def found(image: ServerImage) -> Image:
    return cast(Image, SimpleNamespace(name=image.name, runtime=SimpleNamespace(program=Path("/usr/bin/docker"))))


def image_of(node: LocalNode) -> str | None:
    image = node.commands.image
    return image.name if image is not None else None


def test_the_next_deployment_may_have_another_image_and_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Cluster] = []

    def open_emulated(cluster: Cluster, *arguments: object) -> object:
        opened.append(cluster)
        return open_driver(replace(cluster, driver="emulated"), tmp_path)

    monkeypatch.setattr(local_node, "open_driver", open_emulated)
    monkeypatch.setattr(local_node, "find_image", found)
    paths = Paths(tmp_path / "state", tmp_path / "run")
    paths.state.mkdir()

    async def main(node: LocalNode) -> None:
        await node.serve_on(FOUR)
        assert image_of(node) is None
        await node.serve_on(replace(FOUR, gpus=FOUR.gpus[:1], driver="nvml", image=ServerImage("x:1")))
        assert image_of(node) == "x:1" and node.commands.gpu
        assert [gpu.id.index for gpu in opened[-1].gpus] == [0]
        await node.serve_on(FOUR)
        assert (image_of(node), node.commands.gpu) == (None, False)

    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        asyncio.run(main(LocalNode(paths, INSTALLATION, journal, "secret", lambda _: None)))


class FakeClient:
    """A server with models, which may not answer for a while, and of which one may still be loaded."""

    def __init__(self, models: set[str]) -> None:
        self.models = models
        self.loading: dict[str, int] = {}
        self.answers = False
        self.asked = asyncio.Event()

    async def index(self) -> dict[str, str]:
        self.asked.set()
        if not self.answers:
            raise ServerError("no answer")
        self.loading = {name: looks - 1 for name, looks in self.loading.items()}
        still = {name for name, looks in self.loading.items() if looks > 0}
        return {name: "LOADING" if name in still else "READY" for name in self.models}

    async def load(self, name: str) -> None:
        self.models.add(name)

    async def unload(self, name: str) -> None:
        self.models.discard(name)


@pytest.mark.parametrize("changes", ["none", "load", "unload"])
def test_an_adopted_server_keeps_what_is_loaded_before_its_models_could_be_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: str
) -> None:
    monkeypatch.setattr(local_node, "RECONCILE_S", 0.01)
    paths = Paths(tmp_path / "state", tmp_path / "run")
    process = cast(ServerProcess, SimpleNamespace(name="w", pid=None, returncode=None, log=tmp_path, kill=pytest.fail))

    async def main(node: LocalNode) -> None:
        client = FakeClient({"a", "undone"})
        server = Server(process, cast(TritonClient, client), tmp_path / "repository", lambda: None)
        node.servers.by_name["w"] = server
        reconciling = asyncio.create_task(node.reconcile("w", {"a"}))
        await client.asked.wait()
        async with node.servers.locked("w"):
            client.answers = True
            if changes == "load":
                await server.load_all([ModelFolder("b", {"config.pbtxt": b""})])
            if changes == "unload":
                await server.unload_all(["a"])
        await reconciling
        assert client.models == {"none": {"a"}, "load": {"a", "b"}, "unload": set()}[changes]

    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        asyncio.run(main(LocalNode(paths, INSTALLATION, journal, "secret", lambda _: None)))


@pytest.mark.parametrize(
    ("wanted", "looks", "ends"),
    [({"a", "b"}, 3, ""), ({"a", "b"}, 0, ""), ({"a", "b", "c"}, 3, "it did not have c")],
    ids=["loads", "has loaded", "lacks a model"],
)
def test_an_adopted_server_that_still_loads_its_models_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: set[str], looks: int, ends: str
) -> None:
    monkeypatch.setattr(local_node, "_LOADING_POLL_S", 0.01)
    paths = Paths(tmp_path / "state", tmp_path / "run")
    killed: list[str] = []
    process = cast(ServerProcess, SimpleNamespace(name="w", pid=None, returncode=None, log=tmp_path))
    process.kill = lambda: killed.append(server.cause)  # type: ignore[method-assign]
    client = FakeClient({"a", "b"})
    client.answers, client.loading = True, {"b": looks}
    server = Server(process, cast(TritonClient, client), tmp_path / "repository", lambda: None, unseen=True)
    events: list[e.Event] = []
    noted: list[list[str]] = []
    unseen: list[bool] = []
    index = client.index

    async def looked() -> dict[str, str]:
        noted.append(list(server.loading))
        unseen.append(server.unseen)
        return await index()

    client.index = looked  # type: ignore[method-assign]

    async def main(node: LocalNode) -> None:
        node.servers.by_name["w"] = server
        await node.reconcile("w", wanted)

    with closing(Journal(tmp_path / "journal.sqlite")) as journal:
        asyncio.run(main(LocalNode(paths, INSTALLATION, journal, "secret", events.append)))
    # `Answered` is sent in any case, because an earlier task may have sent `Loading`.
    assert events == [*([e.Loading("w")] if looks else []), *([] if ends else [e.Answered("w")])]
    assert noted[: max(looks, 1)] == [[], *([["b"]] * (looks - 1))]
    assert unseen == [True, *([False] * (len(noted) - 1))] and not server.unseen
    assert killed == ([ends] if ends else []) and server.loading == []


def test_the_heap_of_an_adopted_gateway_is_limited_once_it_is_known_that_it_loads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited: list[int] = []
    monkeypatch.setattr(health, "limit_heap", lambda pid, mib: limited.append(mib))
    process = cast(ServerProcess, SimpleNamespace(name="gateway", pid=1, returncode=None, log=tmp_path))
    server = Server(process, cast(TritonClient, FakeClient(set())), tmp_path, lambda: None, unseen=True)
    watching = health.Health(Paths(tmp_path, tmp_path), {"gateway": server}, lambda _: None)
    watching.gateway_memory_mib = 512
    for unseen, loading in ((True, []), (False, ["a"]), (False, [])):
        assert not limited
        server.unseen, server.loading = unseen, loading
        watching._limit_memory(server)
    assert limited == [512]
