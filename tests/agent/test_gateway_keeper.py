"""The standby gateway of a node: the last order counts, failures are tried again, and its events stay here."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jigsaw_triton.agent import gateway_keeper
from jigsaw_triton.agent.gateway_keeper import GatewayKeeper
from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.core.state import GATEWAY
from jigsaw_triton.controller.fleet.drain import locked
from jigsaw_triton.controller.fleet.gateway_content import GatewayContent, sealed_content
from jigsaw_triton.controller.fleet.wire import Condemned, Json
from jigsaw_triton.controller.persistence.contents import Contents
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import ServerError
from jigsaw_triton.gpus.gateway import GatewayPorts
from tests.fakes.node import model, worker
from tests.waiting import WAIT_LIMIT_S, until

PLAIN = GatewayContent((), (), {}, (), (), (), {}, "1.a", GatewayPorts(), None, None, 4096)
STEPS = worker("steps", model("s"))


def content(routes: str, state: bytes = b"state") -> Json:
    """Returns the content with one route of this name, and one worker of Python steps."""
    made = replace(PLAIN, routes={routes: ""}, steps=(STEPS,))
    return sealed_content(made, lambda path: hashlib.sha256(path.read_bytes()).hexdigest(), state).json


@dataclass
class Servers:
    """The servers of a standby gateway, which are in sync at once.

    Attributes:
        log: Steps that were taken, in order.
        fails: Message with which the next applications fail; empty for none.
    """

    log: list[str] = field(default_factory=list)
    fails: str = ""
    steps: dict[str, set[str]] = field(default_factory=dict)
    is_current: bool = True
    serves: bool = True
    pid: int = 1

    def exited(self, name: str) -> None:
        self.steps.pop(name, None)
        self.log.append(f"exited {name}")

    def incarnation(self, worker: str) -> str:
        return f"incarnation of {worker}"

    async def clear(self, steps: Iterable[str]) -> None:
        self.log.append(" ".join(["clear", *steps]))

    async def adopt(self, wanted: GatewayContent, ended: frozenset[str]) -> None:
        if self.fails:
            self.log.append("fail")
            raise ServerError(self.fails)
        self.log.append(f"adopt {' '.join(wanted.routes)}")

    async def apply(self, wanted: GatewayContent) -> bool:
        if self.fails:
            self.log.append("fail")
            raise ServerError(self.fails)
        self.log.append(f"apply {' '.join(wanted.routes)}")
        return True

    async def end(self) -> None:
        self.log.append("end")


@dataclass
class World:
    """A node with a keeper, and its events."""

    keeper: GatewayKeeper
    servers: Servers
    folder: Path
    events: list[Any]

    def said(self, text: str) -> int:
        """Returns the number of events that contain a text."""
        return sum(text in str(event) for event in self.events)


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, test: Callable[[World], Awaitable[None]]) -> None:
    """Runs a test with a keeper that has started. A second call goes on with the same journal."""

    async def main() -> None:
        servers, events = Servers(), []  # type: ignore[var-annotated]
        monkeypatch.setattr(gateway_keeper, "StandbyGateway", lambda *_: servers)
        monkeypatch.setattr(gateway_keeper, "_TIDY_S", 0.05)
        node: Any = SimpleNamespace(servers=SimpleNamespace(health=SimpleNamespace(elsewhere=None)))
        journal = Journal(folder / "journal.sqlite")
        contents, credentials = Contents(folder / "contents"), SimpleNamespace()
        paths = Paths(folder, folder)
        keeper = GatewayKeeper("b", paths, node, journal, contents, credentials, events.append)  # type: ignore[arg-type]
        await keeper.start()
        try:
            await test(World(keeper, servers, folder, events))
        finally:
            assert keeper._task is not None
            keeper._task.cancel()
            journal.close()

    asyncio.run(main())


async def keep_one(world: World) -> None:
    """Has the keeper serve a first content."""
    world.keeper.want("1.a", 1, content("one"))
    await until(lambda: "apply one" in world.servers.log)


def test_the_last_order_of_a_controller_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        world.keeper.want("1.a", 2, content("two"))
        await until(lambda: "apply two" in world.servers.log)
        world.keeper.want("1.a", 1, content("one"))
        # The next controller counts from one.
        world.keeper.want("2.b", 1, content("three"))
        status = await world.keeper.status(("2.b", 1), WAIT_LIMIT_S)
        assert status == {"order": ["2.b", 1], "applied": ["2.b", 1], "state": "ready", "pid": 1, "failure": ""}
        assert "apply one" not in world.servers.log and world.servers.log[-1] == "apply three"

    run(tmp_path, monkeypatch, test)


@pytest.mark.slow
def test_a_failure_is_reported_once_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        world.servers.fails = "the disk is full"
        world.keeper.want("1.a", 1, content("one"))
        await until(lambda: world.servers.log.count("fail") > 1)
        assert world.said("the standby gateway on node b is not in sync: the disk is full") == 1
        assert (await world.keeper.status())["failure"] == "the disk is full"
        world.servers.fails = ""
        # Another order does not wait for the next try.
        world.keeper.want("1.a", 2, content("two"))
        assert (await world.keeper.status(("1.a", 2), WAIT_LIMIT_S))["failure"] == ""

    run(tmp_path, monkeypatch, test)


def test_the_next_agent_goes_on_with_the_last_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def second(world: World) -> None:
        assert set(world.keeper.steps()) == {"steps"}
        await until(lambda: world.servers.log == ["adopt one", "apply one"])

    async def third(world: World) -> None:
        await world.keeper.end()
        assert not world.keeper.exists and world.servers.log[-1] == "end"

    async def fourth(world: World) -> None:
        await until(lambda: world.servers.log == ["clear", "end"])
        assert world.keeper.steps() == {}

    for test in (keep_one, second, third, fourth):
        run(tmp_path, monkeypatch, test)


@pytest.mark.slow
def test_an_adoption_that_fails_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def second(world: World) -> None:
        world.servers.fails = "the image cannot be found"
        await until(lambda: world.servers.log.count("fail") > 1)
        world.keeper.want("1.a", 2, content("two"))
        world.servers.fails = ""
        # The gateway still serves the content of the first order, and takes that of the second.
        await until(lambda: world.servers.log[-2:] == ["adopt one", "apply two"])

    for test in (keep_one, second):
        run(tmp_path, monkeypatch, test)


def test_workers_beside_a_gateway_that_is_not_adopted_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def second(world: World) -> None:
        # Another order comes before the task begins.
        world.keeper.want("1.a", 2, None)
        await until(lambda: world.servers.log == ["clear steps", "end"])

    async def third(world: World) -> None:
        world.servers.is_current = False
        await until(lambda: world.servers.log == ["clear steps", "apply one"])

    for test in (keep_one, third, second):
        run(tmp_path, monkeypatch, test)


def test_events_of_the_standby_gateway_stay_at_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        world.keeper.want("1.a", 1, content("one"))
        await until(lambda: "apply one" in world.servers.log)
        assert not world.keeper.takes(e.WorkerExited("b-0-1g-0", "signal 9"))
        assert not world.keeper.takes(e.Noticed("error", "x"))
        world.servers.steps = {"steps": {"s"}}
        for event in (e.WorkerExited("steps", "signal 9"), e.GatewayExited("signal 9")):
            done = len(world.servers.log)
            assert world.keeper.takes(event)
            await until(lambda done=done: "apply one" in world.servers.log[done:])  # type: ignore[misc]
        assert world.servers.steps == {} and {"exited steps", "exited gateway"} <= set(world.servers.log)
        assert world.keeper.takes(e.Stalled(GATEWAY, 5.0)) and world.said("has not answered for 5 s")
        assert world.keeper.takes(e.Answered("steps"))

    run(tmp_path, monkeypatch, test)


def test_the_controller_learns_of_a_condemned_worker_on_another_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(world: World) -> None:
        await world.keeper._condemn("a-0-1g-0", "it hung")
        assert world.events == [Condemned("a-0-1g-0", "it hung", "incarnation of a-0-1g-0")]

    run(tmp_path, monkeypatch, test)


def test_only_the_last_copy_of_the_state_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        for number, state in enumerate((b"first", b"second", b"second")):
            digest = hashlib.sha256(state).hexdigest()
            (tmp_path / "contents" / digest).write_bytes(state)
            world.keeper.want("1.a", number + 1, content("one", state))
        found = [path.read_bytes() for path in (tmp_path / "contents").iterdir()]
        assert found == [b"second"]

    run(tmp_path, monkeypatch, test)


def test_models_that_are_locked_are_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(world: World) -> None:
        assert await world.keeper.unused([("w", "m")], [("g", 1)], 0.0)
        with locked(tmp_path / "slots" / "w" / "m") as mine:
            assert mine and not await world.keeper.unused([("w", "m")], [], 0.0)
        assert await world.keeper.unused([("w", "m")], [], 0.0)

    run(tmp_path, monkeypatch, test)
