"""Fences: which nodes get one after a controller has come from another machine, and when."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from jigsaw_triton.controller.fleet import fencing
from jigsaw_triton.controller.fleet.fencing import Fencing
from jigsaw_triton.controller.fleet.succession import fences_in
from jigsaw_triton.controller.persistence.epoch import EPOCH_FACT, number_of
from jigsaw_triton.controller.persistence.journal import Journal
from jigsaw_triton.controller.persistence.paths import Paths
from jigsaw_triton.errors import ServerError
from tests.waiting import until


class Node:
    """A node that has a fence or none.

    Args:
        name: Name of the node.
        fence: Its fence.
    """

    def __init__(self, name: str, fence: str = "") -> None:
        self.name, self.fence, self.away, self.fails = name, fence, False, False
        self.described: dict[str, str] | None = {"fence": fence}
        self.calls = self

    async def post(self, path: str, body: dict[str, str]) -> None:
        assert path == "/fence" and body["machine"]
        if self.fails:
            raise ServerError("the agent does not answer")
        self.fence = body["fence"]

    async def describe(self) -> dict[str, str]:
        return {"fence": self.fence}


@dataclass
class World:
    """A controller, its nodes and its standby gateway."""

    journal: Journal
    folder: Path
    nodes: list[Node] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    renewals: int = 0

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    @property
    def epoch(self) -> str:
        return self.journal.fact(EPOCH_FACT)

    async def surpass(self, number: int) -> None:
        self.journal.surpass(number)

    async def renew_epoch(self) -> None:
        self.renewals += 1

    def renew(self) -> None:
        self.log.append(f"renew {[node.fence for node in self.nodes]}")

    async def wait_followed(self, _: float) -> None:
        self.log.append("wait followed")

    @property
    def fences(self) -> set[str]:
        return {node.fence for node in self.nodes}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A controller on its machine, with two nodes."""
    monkeypatch.setattr(fencing, "_LOOK_S", 0.005)
    journal = Journal(tmp_path / "journal.sqlite")
    yield World(journal, tmp_path, [Node("a"), Node("b")])
    journal.close()


def run(world: World, test: Callable[[], Any]) -> None:
    """Runs a test while a controller looks after the fences."""

    async def main() -> None:
        paths = Paths(world.folder, world.folder)
        found = Fencing(paths, world.journal, cast(Any, world), cast(Any, world))
        found.begin()
        try:
            await test()
        finally:
            await found.stop()

    asyncio.run(main())


def test_the_next_controller_on_a_machine_sets_no_fence(world: World) -> None:
    async def test() -> None:
        await until(lambda: bool(world.journal.fact("machine")) and world.renewals > 1)

    for _ in range(2):
        run(world, test)
    assert world.fences == {""} and fences_in(world.journal) == () and world.log == []


def test_a_controller_from_another_machine_fences_all_nodes_once_the_standby_has_its_epoch(world: World) -> None:
    world.journal.keep_fact("machine", "elsewhere")
    before = number_of(world.epoch)

    async def test() -> None:
        await until(lambda: world.fences == {world.epoch})

    run(world, test)
    assert fences_in(world.journal) == (world.epoch,)
    # The controller that was left behind cannot reach this epoch, however often it is restarted.
    assert number_of(world.epoch) > before + 100_000
    assert world.log == ["renew ['', '']", "wait followed"]
    run(world, test)
    assert fences_in(world.journal) == (world.epoch,) and len(world.log) == 2


def test_a_node_that_is_away_or_was_installed_again_gets_the_fence_when_it_is_in_sync(world: World) -> None:
    world.journal.keep_fact("machine", "elsewhere")
    a, b = world.nodes
    b.away, a.fails = True, True

    async def test() -> None:
        await until(lambda: bool(fences_in(world.journal)))
        a.fails, b.away = False, False
        await until(lambda: world.fences == {world.epoch})
        # The next agent of node b has another journal.
        b.fence, b.described = "", {"fence": ""}
        await until(lambda: b.fence == world.epoch)

    run(world, test)
    assert fences_in(world.journal) == (world.epoch,)


def test_a_controller_that_has_taken_its_nodes_back_fences_the_one_that_had_replaced_it(world: World) -> None:
    for node in world.nodes:
        node.fence, node.described = "7.b", {"fence": "7.b"}

    async def test() -> None:
        await until(lambda: world.fences == {world.epoch})

    run(world, test)
    assert fences_in(world.journal) == (world.epoch,)


def test_a_node_that_does_not_answer_delays_no_other(world: World) -> None:
    world.journal.keep_fact("machine", "elsewhere")
    a, b = world.nodes
    a.fails = True

    async def test() -> None:
        await until(lambda: bool(b.fence))
        assert a.fence == ""
        a.fails = False
        await until(lambda: world.fences == {world.epoch})

    run(world, test)


def test_a_fence_that_fails_at_first_is_set_by_a_controller_that_has_taken_its_nodes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for node in world.nodes:
        node.fence, node.described = "7.b", {"fence": "7.b"}
    surpass, calls = world.surpass, [0]

    async def fail_once(number: int) -> None:
        calls[0] += 1
        if calls[0] == 1:
            raise ServerError("HAProxy does not accept the change")
        await surpass(number)

    monkeypatch.setattr(world, "surpass", fail_once)

    async def test() -> None:
        await until(lambda: world.fences == {world.epoch})

    run(world, test)
