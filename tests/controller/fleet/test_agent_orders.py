"""Each operation on a node behind an agent is carried out once, whatever happens to the connection."""

import asyncio
import hashlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet.agent_calls import AgentCalls
from jigsaw_triton.errors import ServerError, StateError
from tests.fakes.node import NODE, model, worker
from tests.fakes.remote_node import Remote, W, run
from tests.waiting import until


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """Lets the kernel refuse to write files of more bytes than these, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def begun_bring_up(remote: Remote) -> asyncio.Task[None]:
    """Returns an operation that has begun at the node and waits for its gate there."""
    remote.machine.node.gate.clear()
    starting = asyncio.create_task(remote.node.bring_up(worker(W, model("m"))))
    await until(lambda: f"bring up {W}" in remote.machine.node.begun)
    return starting


def test_an_operation_is_carried_out_once_over_a_lost_connection(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        starting = await begun_bring_up(remote)
        await remote.machine.cut()
        remote.machine.node.gate.set()
        await until(lambda: f"bring up {W}" in remote.machine.node.log)
        await remote.machine.reach()
        await starting
        assert remote.machine.node.log.count(f"bring up {W}") == 1

    run(run_dir, test)


def test_an_operation_that_the_agent_does_not_survive_has_failed(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        starting = await begun_bring_up(remote)
        await remote.machine.stop()
        remote.machine.node.gate.set()
        await remote.machine.start()
        with pytest.raises(StateError, match="reconciled during this operation"):
            await starting

    run(run_dir, test)


def test_a_cancelled_operation_ends_at_the_node(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        starting = await begun_bring_up(remote)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        remote.machine.node.gate.set()
        await asyncio.sleep(0.05)
        assert f"bring up {W}" not in remote.machine.node.log

    run(run_dir, test)


def test_an_operation_that_is_cancelled_before_its_order_arrives_never_begins(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        assert remote.machine.agent is not None
        calls = AgentCalls(NODE, remote.machine.socket, "d", lambda: "1.a")
        try:
            await calls.call("DELETE", "/operations/x.1")
            order = {"kind": "retire", "body": {"name": W}, "line": remote.machine.agent.line}
            await calls.post("/operations/x.1", order)
            with pytest.raises(StateError, match="was cancelled"):
                await calls.get("/operations/x.1")
        finally:
            await calls.close()
        assert f"retire {W}" not in remote.machine.node.log

    run(run_dir, test)


def test_weights_that_workers_share_are_sent_once(run_dir: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"many" * 1_000_000)
    workers = [worker(f"a-0-1g-{start}", model("m", weights), start=start) for start in range(4)]

    async def test(remote: Remote) -> None:
        await asyncio.gather(*(remote.node.bring_up(one) for one in workers))
        assert set(remote.node.running) == {one.name for one in workers}
        # The two files are the weights and the configuration of the model.
        assert remote.machine.transfers == 2

    run(run_dir, test)


def test_a_full_disk_of_a_node_fails_the_operation_and_leaves_nothing(run_dir: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"many" * 1_000_000)
    contents = run_dir / "contents"

    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        before = {path.name for path in contents.iterdir()}
        with full_disk(1_000_000), pytest.raises(ServerError, match="files of models cannot be written") as caught:
            await remote.node.bring_up(worker("a-0-1g-1", model("n", weights), start=1))
        assert caught.value.where == f"node a, {contents}" and "free some space" in caught.value.hint
        # The small configuration of the model may have arrived.
        assert {path.name for path in contents.iterdir()} - before <= {hashlib.sha256(b"n").hexdigest()}
        assert set(remote.node.running) == {W}
        await remote.node.bring_up(worker("a-0-1g-1", model("n", weights), start=1))
        assert set(remote.node.running) == {W, "a-0-1g-1"}

    run(run_dir, test)
