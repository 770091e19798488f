"""The nodes of a cluster: which of them are asked when a plan is made, and when a controller adopts workers."""

import asyncio
import shutil
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from jigsaw_triton.controller.core import events as e
from jigsaw_triton.controller.fleet import agent_calls, remote_nodes, succession
from jigsaw_triton.controller.fleet.agent_calls import AwayError
from jigsaw_triton.controller.persistence.epoch import EPOCH_FACT, number_of
from jigsaw_triton.controller.persistence.reader import JournalReader
from jigsaw_triton.gpus.gateway import ServerImage
from tests.controller.fleet.nodes import BOTH, ONLY_B, A, B, World, run
from tests.fakes.node import NODE, model, worker
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("one_try")


@pytest.mark.slow
def test_what_an_agent_said_of_its_clock_long_ago_is_not_compared_with_the_present(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.serve_on(A)
        monkeypatch.setattr(remote_nodes, "time", SimpleNamespace(time=lambda: time.time() + 3600))
        await nodes.serve_on(A)

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
def test_a_node_that_never_answered_is_not_asked_once_it_has_left_the_cluster(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.serve_on(A)
        with pytest.raises(AwayError):
            await nodes.serve_on(BOTH)
        await nodes.serve_on(A)
        assert [gpu.id.node for gpu in (await nodes.survey(A)).gpus] == [NODE]
        assert await nodes.lost_gpus() == frozenset()

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
def test_plans_are_made_although_a_node_was_lost_when_its_workers_were_to_be_adopted(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_calls, "_CALL_S", 0.5)

    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.adopt(BOTH, {})
        await nodes.serve_on(BOTH)
        assert [gpu.id.node for gpu in (await nodes.survey(BOTH)).gpus] == [NODE]
        assert await nodes.lost_gpus() == {B.id}

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
def test_workers_on_a_node_that_has_left_the_cluster_are_adopted_and_can_be_ended(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = worker("a-0-1g-0", model("m"))

    async def test(world: World) -> None:
        first = world.controller()
        await first.serve_on(A)
        await world.bring_up(first, one)
        with suppress(AwayError):
            await first.serve_on(ONLY_B)
        await first.stop()
        second = world.controller()
        await second.adopt(ONLY_B, {one.name: one})
        assert world.side.links == {one.name}
        node = second.of(one.name, None)
        assert node is not None
        await node.retire(one.name)
        assert world.machine.node.workers == {}

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
def test_the_transport_of_the_next_controller_begins_with_the_links_of_the_one_before(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = worker("a-0-1g-0", model("m"))

    async def test(world: World) -> None:
        first = world.controller()
        await first.serve_on(A)
        assert world.side.first == {}
        node = await world.bring_up(first, one)
        incarnation = node.running[one.name].incarnation
        second = world.controller()
        await second.adopt(A, {one.name: one})
        assert world.side.first == {one.name: incarnation}
        assert world.side.links == {one.name}

    run(run_dir, monkeypatch, test)


def test_a_new_node_that_does_not_answer_is_named_with_the_reason_that_the_transport_knows(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(({}, {NODE: "", "b": ""}, {NODE: "", "b": "shows a certificate of another node"}))

    async def health() -> dict[str, str]:
        return next(answers)

    async def test(world: World) -> None:
        monkeypatch.setattr(world.side, "health", health, raising=False)
        with pytest.raises(AwayError, match=r"127\.0\.0\.1:2 shows a certificate of another node") as caught:
            await world.controller().serve_on(BOTH)
        assert caught.value.where == "node b" and "jigsaw-triton agent" in caught.value.hint

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
def test_a_deployment_waits_for_an_agent_that_is_being_started(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_nodes, "START_S", 60.0)

    async def test(world: World) -> None:
        await world.machine.stop()
        deploying = asyncio.create_task(world.controller().serve_on(A))
        await until(lambda: e.Noticed("node", "waiting for the agent of node a") in world.events)
        await world.machine.start()
        await deploying

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
def test_a_controller_with_an_old_copy_of_the_journal_begins_a_later_epoch_than_the_agents_know(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(succession, "COMMANDED_S", 0.2)
    copy = run_dir / "copy.sqlite"

    async def test(world: World) -> None:
        first = world.controller()
        await first.serve_on(A)
        await first.stop()
        world.close_journals()
        shutil.copy(run_dir / "controller.sqlite", copy)
        for _ in range(3):
            later = world.controller()
            await later.serve_on(A)
            await later.stop()
            world.close_journals()
        shutil.copy(copy, run_dir / "controller.sqlite")
        with closing(sqlite3.connect(copy)) as file:
            ((old,),) = file.execute("SELECT value FROM facts WHERE name = 'epoch'").fetchall()
        recovered = world.controller()
        await recovered.serve_on(A)
        assert await recovered.lost_gpus() == frozenset()
        assert number_of(old) + 3 < world.journal.epoch == number_of(world.side.epoch)
        with closing(JournalReader(run_dir / "controller.sqlite")) as reader:
            assert number_of(reader.fact(EPOCH_FACT)) == world.journal.epoch

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
def test_the_tritonserver_of_workers_in_containers_is_that_of_their_image(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(world: World) -> None:
        nodes = world.controller()
        await nodes.serve_on(replace(A, image=ServerImage("triton:25.08")))
        assert nodes.version == "25.08" and nodes.backends == {"onnxruntime"}
        assert world.events == []

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
def test_a_plan_waits_for_a_first_node_that_is_back_if_all_are_lost(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_nodes, "START_S", 60.0)
    monkeypatch.setattr(remote_nodes, "_FIRST_S", 0.0)

    async def test(world: World) -> None:
        await world.machine.stop()
        nodes = world.controller()
        await nodes.adopt(A, {})
        assert await nodes.lost_gpus() == {gpu.id for gpu in A.gpus}
        surveying = asyncio.create_task(nodes.survey(A))
        await world.machine.start()
        assert [gpu.id for gpu in (await surveying).gpus] == [gpu.id for gpu in A.gpus]

    run(run_dir, monkeypatch, test)


@pytest.mark.slow
def test_a_change_of_the_epoch_that_fails_is_completed_later(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []

    async def test(world: World) -> None:
        nodes = world.controller()

        async def fail_once() -> None:
            tries.append(nodes.epoch)
            if len(tries) == 1:
                raise OSError("the disk is full")

        await nodes.serve_on(A)
        nodes.on_surpass = fail_once
        with pytest.raises(OSError, match="the disk is full"):
            await nodes.surpass(world.journal.epoch + 5)
        for _ in range(2):
            await nodes.renew_epoch()
        assert tries == 2 * [nodes.epoch] and world.side.epoch == nodes.epoch

    run(run_dir, monkeypatch, test)
