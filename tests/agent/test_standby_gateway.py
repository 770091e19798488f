"""The servers of a standby gateway: those that end again and again are restarted after longer and longer delays."""

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from jigsaw_triton.agent import standby_gateway
from jigsaw_triton.agent.standby_gateway import StandbyGateway
from jigsaw_triton.compiler.bundle import Worker
from jigsaw_triton.controller.core.settings import Settings
from jigsaw_triton.controller.fleet.gateway_content import GatewayContent, RemoteWorker
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.gpus.gateway import GatewayPorts
from tests.fakes.node import model, worker

STEPS = worker("steps", model("s"))
CONTENT = GatewayContent((), (), {}, (STEPS,), (), (), {}, "1.a", GatewayPorts(), None, None, 4096)


@dataclass
class Node:
    """A node that records how its workers are started."""

    log: list[str] = field(default_factory=list)
    servers: Any = None

    def server(self, name: str) -> object | None:
        return object() if f"bring up {name}" in self.log else None

    async def bring_up(self, one: Worker) -> None:
        self.log.append(f"bring up {one.name}")

    async def restart(self, one: Worker, delay_s: float) -> None:
        self.log.append(f"restart in {delay_s:g} s")


def standby(folder: Path, node: Node) -> StandbyGateway:
    """Returns a standby gateway without servers."""
    return StandbyGateway(
        "b", Paths(folder, folder), cast(Any, node), cast(Any, None), cast(Any, None), lambda *_: None
    )


def test_a_worker_of_steps_that_ends_again_and_again_has_the_backoff_of_all_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr(standby_gateway, "time", SimpleNamespace(monotonic=lambda: now_s[0]))
    node, settings = Node(), Settings()
    servers = standby(tmp_path, node)

    def step() -> None:
        asyncio.run(servers._step(CONTENT))

    step()
    step()
    for _ in range(4):
        servers.exited("steps")
        # The gateway has a count of its own.
        servers.exited("gateway")
        step()
    now_s[0] = settings.restart_window_s + 1.0
    servers.exited("steps")
    step()
    delays_s = [settings.backoff_s(number) for number in (0, 1, 2, 3, 0)]
    assert node.log == ["bring up steps", *(f"restart in {delay_s:g} s" for delay_s in delays_s)]


def test_the_process_of_a_worker_elsewhere_is_the_one_that_the_gateway_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Side:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        async def start(self, *_: Any, **__: Any) -> None:
            pass

    monkeypatch.setattr(standby_gateway, "GatewaySide", Side)
    servers = standby(tmp_path, Node())
    assert servers.incarnation("a-0-1g-0") == ""
    content = replace(CONTENT, workers=(RemoteWorker("a-0-1g-0", "a", "12.34"),), nodes={"a": "127.0.0.1:1"})
    asyncio.run(servers._link(content))
    assert servers.incarnation("a-0-1g-0") == "12.34"
