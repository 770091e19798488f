"""A node behind an agent: each operation once, whatever happens to the connection, and in line after an absence."""

import asyncio
import hashlib
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from jigsaw_triton.agent import node_agent
from jigsaw_triton.controller.fleet import agent_orders, following, remote_node, succession
from jigsaw_triton.controller.fleet.agent_calls import AgentCalls, AwayError
from jigsaw_triton.controller.fleet.remote_node import RemoteNode
from jigsaw_triton.controller.fleet.succession import ReplacedError, Succession
from jigsaw_triton.controller.fleet.wire import NodeEvent
from jigsaw_triton.errors import ServerError, StateError
from jigsaw_triton.runtime.trace import TraceFile
from tests.fakes import node as fakes
from tests.fakes.node import CLUSTER, GPU, NODE, FakeMachine, fake_machine, model, worker

W = "a-0-1g-0"
PATIENCE_S = 30.0
COMMANDED = {"deployment": "d", "commanded_s": 0.0}
"""Words of an agent that a controller commands."""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a node count as lost sooner."""
    for module in (remote_node, following):
        monkeypatch.setattr(module, "AWAY_S", 1.0)
        monkeypatch.setattr(module, "PULSE_S", 0.05)
    for module in (remote_node, following, agent_orders):
        monkeypatch.setattr(module, "RETRY_S", 0.02)
    monkeypatch.setattr(agent_orders, "_OUTCOME_S", 0.1)


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """Lets the kernel refuse to write files of more bytes than these, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Remote:
    """A controller's side of a machine."""

    machine: FakeMachine
    events: list[NodeEvent] = field(default_factory=list)
    linked: set[str] = field(default_factory=set)
    gave_way: list[str] = field(default_factory=list)
    reachable: bool = False

    def __post_init__(self) -> None:
        self.node = self.controller("1.a")

    def controller(self, epoch: str, deployment: str = "d", *fences: str) -> RemoteNode:
        """Returns the node as another controller sees it, which has set these fences."""
        own = [epoch]

        async def surpass(number: int) -> None:
            own.append(f"{number + 1}.{epoch}")

        def give_way(error: ReplacedError) -> None:
            self.gave_way.append(str(error))

        succession = Succession(deployment, lambda: own[-1], lambda: fences, surpass, give_way)
        calls = AgentCalls(NODE, self.machine.socket, deployment, succession.epoch)
        return RemoteNode(NODE, calls, digest, self.events.append, self._is_reachable, self._changed, succession)

    async def _is_reachable(self) -> bool:
        return self.reachable

    async def _changed(self) -> None:
        self.linked = set(self.node.running)

    def said(self, text: str) -> bool:
        return any(text in str(event) for event in self.events)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - most conditions have no event
            await asyncio.sleep(0.01)


def run(folder: Path, test: Callable[[Remote], Awaitable[None]]) -> None:
    """Runs a test with a machine that serves on its GPU."""

    @asynccontextmanager
    async def remote() -> AsyncIterator[Remote]:
        async with fake_machine(folder) as machine:
            found = Remote(machine)
            await found.node.serve_on(CLUSTER)
            try:
                yield found
            finally:
                await found.node.stop()

    async def main() -> None:
        async with remote() as found:
            await test(found)

    asyncio.run(main())


def test_a_worker_comes_with_its_files_and_goes(run_dir: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"many" * 100_000)

    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m", weights)))
        (found,) = remote.machine.node.workers[W].models
        files = {name: content.source.read_bytes() for name, content in found.folder.files.items()}  # type: ignore[union-attr]
        assert files == {"config.pbtxt": b"m", "1/model.onnx": weights.read_bytes()}
        assert W in remote.node.running and remote.node.process(W) is not None
        assert remote.machine.published[-1] == {W}
        await remote.node.load(W, [model("n")])
        assert [m.name for m in remote.node.workers[W].models] == ["m", "n"]
        await remote.node.unload(W, ["m"])
        assert [m.name for m in remote.node.workers[W].models] == ["n"]
        await remote.node.retire(W)
        assert remote.node.workers == {} and remote.machine.published[-1] == set()
        assert remote.machine.node.log == [
            "serve-on",
            f"bring up {W}",
            f"load {W} n",
            f"unload {W} m",
            f"retire {W}",
        ]

    run(run_dir, test)


def test_an_operation_is_carried_out_once_over_a_lost_connection(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.machine.node.gate.clear()
        starting = asyncio.create_task(remote.node.bring_up(worker(W, model("m"))))
        await until(lambda: f"bring up {W}" in remote.machine.node.begun)
        await remote.machine.cut()
        remote.machine.node.gate.set()
        await until(lambda: f"bring up {W}" in remote.machine.node.log)
        await remote.machine.reach()
        await starting
        assert remote.machine.node.log.count(f"bring up {W}") == 1

    run(run_dir, test)


def test_an_operation_that_the_agent_does_not_survive_has_failed(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.machine.node.gate.clear()
        starting = asyncio.create_task(remote.node.bring_up(worker(W, model("m"))))
        await until(lambda: f"bring up {W}" in remote.machine.node.begun)
        await remote.machine.stop()
        remote.machine.node.gate.set()
        await remote.machine.start()
        with pytest.raises(StateError, match="brought in line during this operation"):
            await starting

    run(run_dir, test)


def test_an_error_of_the_node_has_its_place_and_hint(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.machine.node.fails = "the model does not load"
        with pytest.raises(ServerError, match="the model does not load") as caught:
            await remote.node.bring_up(worker(W, model("m")))
        assert (caught.value.where, caught.value.hint) == ("node a, the node", "look")
        assert remote.node.workers == {}

    run(run_dir, test)


def test_a_cancelled_operation_ends_at_the_node(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.machine.node.gate.clear()
        starting = asyncio.create_task(remote.node.bring_up(worker(W, model("m"))))
        await until(lambda: f"bring up {W}" in remote.machine.node.begun)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        remote.machine.node.gate.set()
        await asyncio.sleep(0.05)
        assert f"bring up {W}" not in remote.machine.node.log

    run(run_dir, test)


def test_a_node_that_does_not_answer_is_lost_with_its_gpus_and_is_brought_in_line_when_back(run_dir: Path) -> None:
    other = "a-0-1g-1"

    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.node.bring_up(worker(other, model("m"), start=1))
        assert await remote.node.lost_gpus() == frozenset()
        await remote.machine.cut()
        await until(lambda: remote.node.away)
        assert remote.said("node a is lost") and remote.node.running == {}
        assert await remote.node.lost_gpus() == {GPU}
        assert (await remote.node.survey(CLUSTER)).gpus == ()
        with pytest.raises(AwayError):
            await remote.node.bring_up(worker("a-0-1g-2", model("m"), start=2))
        await remote.node.retire(other)
        await remote.node.unload(W, ["m"])
        remote.machine.node.log.clear()
        await remote.machine.reach()
        await until(lambda: not remote.node.away)
        assert remote.machine.node.log == ["serve-on", f"retire {other}", f"reconcile {W} "]
        assert remote.said("node a is back") and set(remote.node.running) == {W}
        assert await remote.node.lost_gpus() == frozenset()

    run(run_dir, test)


def test_a_node_whose_workers_can_be_called_is_not_lost_with_its_agent(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.reachable = True
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.stop()
        starting = asyncio.create_task(remote.node.load(W, [model("n")]))
        await asyncio.sleep(1.5)
        assert not remote.node.away and set(remote.node.running) == {W}
        await remote.machine.start()
        await starting
        assert f"load {W} n" in remote.machine.node.log
        remote.reachable = False
        await remote.machine.cut()
        await until(lambda: remote.node.away)

    run(run_dir, test)


def test_an_agent_that_is_away_is_told_from_a_node_that_is_lost(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.reachable = True
        await remote.machine.cut()
        await until(lambda: remote.node.headless)
        assert not remote.node.away
        await remote.machine.reach()
        await until(lambda: not remote.node.headless)
        assert remote.said("the agent of node a does not answer") and remote.said("agent of node a answers again")
        assert not remote.said("is lost")
        remote.reachable = False
        await remote.machine.cut()
        await until(lambda: remote.node.away)
        assert not remote.node.headless

    run(run_dir, test)


def test_an_agent_that_comes_back_with_another_release_is_known_by_it(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(remote: Remote) -> None:
        assert remote.node.described is not None and remote.node.described["tritonserver"] == "24.10"
        await remote.machine.stop()
        monkeypatch.setattr(
            fakes, "INSTALLATION", SimpleNamespace(version="25.08", backends=frozenset({"onnxruntime"}))
        )
        await remote.machine.start()
        await until(lambda: remote.said("node a now has"))
        assert remote.node.described["backends"] == ["onnxruntime"]
        assert remote.said("tritonserver 25.08; it had") and remote.said("tritonserver 24.10")

    run(run_dir, test)


def test_an_agent_leaves_the_workers_of_a_release_with_other_messages_alone(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.stop()
        with monkeypatch.context() as other:
            other.setattr(node_agent, "WIRE_VERSION", 2)
            with pytest.raises(StateError, match="messages of version 1 has started 1 workers here") as caught:
                await remote.machine.start()
            assert "jigsaw-triton down --state DIR" in caught.value.hint
            await remote.machine.stop()
        await remote.machine.start()
        assert f"adopt {W}" in remote.machine.node.log

    run(run_dir, test)


def test_an_agent_without_workers_goes_on_from_a_release_with_other_messages(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(remote: Remote) -> None:
        await remote.machine.stop()
        monkeypatch.setattr(node_agent, "WIRE_VERSION", 2)
        await remote.machine.start()

    run(run_dir, test)


def test_weights_that_workers_share_are_sent_once(run_dir: Path, tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"many" * 1_000_000)
    workers = [worker(f"a-0-1g-{start}", model("m", weights), start=start) for start in range(4)]

    async def test(remote: Remote) -> None:
        await asyncio.gather(*(remote.node.bring_up(one) for one in workers))
        assert set(remote.node.running) == {one.name for one in workers}
        # The weights and the configuration of the model.
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


def test_a_worker_that_ended_while_the_node_was_away_is_restarted(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.cut()
        await until(lambda: remote.node.away)
        remote.machine.node.die(W)
        await remote.machine.reach()
        await until(lambda: remote.said("WorkerExited"))
        await remote.node.restart(worker(W, model("m")), 0.0)
        assert W in remote.node.running

    run(run_dir, test)


def test_the_next_agent_knows_the_workers_of_the_one_before(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.stop()
        await remote.machine.start()
        assert f"adopt {W}" in remote.machine.node.log
        await until(lambda: f"reconcile {W} m" in remote.machine.node.log)
        assert not remote.said("WorkerExited")

    run(run_dir, test)


def test_a_worker_that_ended_while_no_agent_ran_is_restarted(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.stop()
        remote.machine.node.vanish(W)
        await remote.machine.start()
        await until(lambda: remote.said("WorkerExited"))
        await until(lambda: W not in remote.node.running)
        await remote.node.restart(worker(W, model("m")), 0.0)
        assert W in remote.node.running

    run(run_dir, test)


def test_the_next_controller_goes_on_and_ends_the_one_before(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        one = worker(W, model("m"))
        await remote.node.bring_up(one)
        await remote.node.bring_up(worker("a-0-1g-1", start=1))
        successor = remote.controller("2.a")
        try:
            await successor.adopt(CLUSTER, {W: one})
            assert set(successor.running) == {W} and set(remote.machine.node.workers) == {W}
            with pytest.raises(StateError, match=r"the controller's epoch, 1\.a, is over"):
                await remote.node.bring_up(worker("a-0-1g-2", start=2))
        finally:
            await successor.stop()

    run(run_dir, test)


def test_a_node_with_workers_of_another_deployment_refuses(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W))
        other = remote.controller("1.a", "another")
        try:
            with pytest.raises(StateError, match="serves another deployment with 1 workers"):
                await other.serve_on(CLUSTER)
            await remote.node.retire(W)
            await other.serve_on(CLUSTER)
        finally:
            await other.stop()

    run(run_dir, test)


def test_a_worker_is_not_started_twice(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        one = worker(W, model("m"))
        await remote.node.bring_up(one)
        await remote.node.bring_up(one)
        assert remote.machine.node.log.count(f"bring up {W}") == 1
        await remote.node.bring_up(replace(one, models=(model("n"),)))
        assert remote.machine.node.log[-2:] == [f"retire {W}", f"bring up {W}"]

    run(run_dir, test)


def test_records_of_traced_batches_come_from_the_node_once(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        assert await remote.node.run_records() == []
        records = TraceFile(remote.machine.traces / W / "m_0.jsonl")
        records.append(["one", "two"])
        assert await remote.node.run_records() == ["one", "two"]
        assert await remote.node.run_records() == []
        await remote.machine.cut()
        assert await remote.node.run_records() == []

    run(run_dir, test)


def test_lost_gpus_and_use_come_from_the_node(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W))
        remote.machine.node.lost = frozenset({GPU})
        assert await remote.node.lost_gpus() == {GPU}
        assert (await remote.node.survey(CLUSTER)).gpus == ()
        assert (await remote.node.use())[W].memory_mib == 10
        remote.machine.node.joules = {GPU: 12.5}
        assert await remote.node.energy() == {GPU: 12.5}

    run(run_dir, test)


def test_workers_that_start_together_can_all_be_called(run_dir: Path) -> None:
    names = [f"a-0-1g-{start}" for start in range(4)]

    async def test(remote: Remote) -> None:
        remote.machine.node.gate.clear()
        starting = [asyncio.create_task(remote.node.bring_up(worker(n, start=i))) for i, n in enumerate(names)]
        await until(lambda: len(remote.machine.published) == len(names))
        assert remote.machine.published[-1] == set(names)
        remote.machine.node.gate.set()
        await asyncio.gather(*starting)
        assert set(remote.node.running) == set(names)

    run(run_dir, test)


def test_workers_that_ran_through_an_absence_are_linked_again(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.cut()
        await until(lambda: remote.node.away and remote.linked == set())
        await remote.machine.reach()
        await until(lambda: remote.linked == {W})

    run(run_dir, test)


def test_what_an_earlier_controller_was_bringing_up_ends_when_the_next_one_adopts(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.machine.node.gate.clear()
        starting = asyncio.create_task(remote.node.bring_up(worker(W, model("m"))))
        await until(lambda: len(remote.machine.published) == 1)
        successor = remote.controller("2.a")
        adopting = asyncio.create_task(successor.adopt(CLUSTER, {}))
        try:
            with pytest.raises(StateError):
                await starting
            remote.machine.node.gate.set()
            await adopting
            assert f"bring up {W}" not in remote.machine.node.log and successor.running == {}
        finally:
            await successor.stop()

    run(run_dir, test)


def test_a_worker_that_is_retired_while_the_node_is_brought_in_line_ends(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        await remote.machine.cut()
        await until(lambda: remote.node.away)
        remote.machine.node.gate.clear()
        await remote.machine.reach()
        assert remote.machine.agent is not None
        line = remote.machine.agent.line
        await until(lambda: remote.machine.agent is not None and remote.machine.agent.line != line)
        await remote.node.retire(W)
        remote.machine.node.gate.set()
        await until(lambda: not remote.node.away)
        assert remote.machine.node.workers == {} and remote.node.running == {}

    run(run_dir, test)


def test_a_worker_that_was_to_end_as_the_agent_died_is_ended_by_the_next_one(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W, model("m")))
        remote.machine.node.gate.clear()
        retiring = asyncio.create_task(remote.node.retire(W))
        await until(lambda: f"retire {W}" in remote.machine.node.begun)
        await remote.machine.stop()
        remote.machine.node.gate.set()
        await remote.machine.start()
        await retiring
        await until(lambda: remote.machine.node.workers == {})
        assert remote.node.workers == {}

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


def test_an_agent_that_is_being_restarted_leaves_its_gpus_in_the_cluster(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.reachable = True
        await remote.machine.stop()
        surveying = asyncio.create_task(remote.node.survey(CLUSTER))
        await asyncio.sleep(0.1)
        await remote.machine.start()
        assert (await surveying).gpus == CLUSTER.gpus

    run(run_dir, test)


def test_a_node_that_cannot_be_adopted_is_lost_until_it_can(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        successor = remote.controller("2.a")
        remote.machine.node.fails = "the driver does not answer"
        try:
            await successor.adopt(CLUSTER, {})
            assert successor.away and remote.said("the driver does not answer")
            remote.machine.node.fails = ""
            await until(lambda: not successor.away)
        finally:
            await successor.stop()

    run(run_dir, test)


def test_a_node_that_refuses_to_be_brought_in_line_is_reported_and_lost(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(remote: Remote) -> None:
        monkeypatch.setattr(following, "HEADLESS_S", 0.5)
        remote.machine.node.fails = "the driver does not answer"
        remote.node._following.doubt()
        await until(lambda: remote.node.away)
        assert remote.said("node a cannot be brought in line: node a, the node: the driver does not answer")
        remote.machine.node.fails = ""
        await until(lambda: not remote.node.away)

    run(run_dir, test)


@pytest.mark.parametrize("epoch", ["1.b", "0.b"])
def test_of_two_controllers_with_copies_of_one_state_folder_the_one_that_runs_is_obeyed(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, epoch: str
) -> None:
    async def test(remote: Remote) -> None:
        assert remote.machine.agent is not None
        monkeypatch.setattr(succession, "COMMANDED_S", 0.1)
        # However slow this machine is, the other controller counts as running.
        monkeypatch.setattr(remote.machine.agent.commander, "to_json", lambda: {**COMMANDED, "epoch": "1.a"})
        copy = remote.controller(epoch)
        try:
            with pytest.raises(StateError, match=r"commands the node in epoch 1\.a"):
                await copy.serve_on(CLUSTER)
        finally:
            await copy.stop()
        await remote.node.bring_up(worker(W))

    run(run_dir, test)


def test_a_controller_with_an_old_copy_of_the_state_folder_follows_one_that_has_ended(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = worker(W, model("m"))

    async def test(remote: Remote) -> None:
        await remote.node.stop()
        last = remote.controller("7.a")
        await last.adopt(CLUSTER, {})
        await last.bring_up(one)
        await last.stop()
        monkeypatch.setattr(succession, "COMMANDED_S", 0.5)
        old = remote.controller("3.b")
        try:
            await old.adopt(CLUSTER, {W: one})
            assert not old.away and set(old.running) == {W}
            with pytest.raises(StateError, match=r"epoch, 7\.a, is over: another one has begun epoch 8\."):
                await last.bring_up(worker("a-0-1g-1", start=1))
        finally:
            await old.stop()
            await last.stop()

    run(run_dir, test)


def test_a_controller_goes_on_when_another_one_with_a_copy_of_its_state_folder_has_ended(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(remote: Remote) -> None:
        copy = remote.controller("7.b")
        await copy.adopt(CLUSTER, {})
        await until(lambda: remote.said("is over: another one has begun epoch 7.b"))
        await copy.stop()
        monkeypatch.setattr(succession, "COMMANDED_S", 0.5)
        await until(
            lambda: remote.machine.agent is not None and remote.machine.agent.commander.to_json()["epoch"] != "7.b"
        )
        await remote.node.bring_up(worker(W))
        assert remote.machine.agent is not None and remote.machine.agent.commander.to_json()["epoch"].startswith("8.")

    run(run_dir, test)


FENCE = {"fence": "7.b", "machine": "other"}


def test_a_controller_that_was_replaced_from_another_machine_gives_way(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        successor = remote.controller("7.b", "d", "7.b")
        try:
            await successor.adopt(CLUSTER, {})
            await successor.calls.post("/fence", FENCE)
            await until(lambda: bool(remote.gave_way))
            assert "node a: the controller on other has replaced this one since 20" in remote.gave_way[0]
            # The number of its epoch says nothing: each start while it is cut off begins another one.
            adopting, deploying = remote.controller("9.a"), remote.controller("10.a")
            with pytest.raises(ReplacedError, match="the controller on other has replaced this one"):
                await adopting.adopt(CLUSTER, {})
            with pytest.raises(ReplacedError):
                await deploying.serve_on(CLUSTER)
            await adopting.stop()
            await deploying.stop()
            assert remote.machine.agent is not None and remote.machine.agent.commander.to_json()["epoch"] == "7.b"
            await successor.bring_up(worker(W))
        finally:
            await successor.stop()

    run(run_dir, test)


def test_a_controller_that_was_replaced_goes_on_if_it_is_started_again_after_the_end_of_the_other(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(remote: Remote) -> None:
        assert remote.machine.agent is not None
        successor = remote.controller("7.b", "d", "7.b")
        await successor.adopt(CLUSTER, {})
        await successor.calls.post("/fence", FENCE)
        await successor.stop()
        # One that runs gives way all the same, because what it knows is outdated.
        monkeypatch.setattr(succession, "REPLACED_S", 0.1)
        await until(lambda: bool(remote.gave_way))
        monkeypatch.setattr(succession, "COMMANDED_S", 0.1)
        await until(
            lambda: remote.machine.agent is not None and remote.machine.agent.commander.to_json()["commanded_s"] > 0.1
        )
        again = remote.controller("2.a")
        try:
            await again.adopt(CLUSTER, {})
            assert not again.away and remote.machine.agent.commander.to_json()["epoch"].startswith("8.")
        finally:
            await again.stop()

    run(run_dir, test)


def test_a_controller_that_was_cut_off_and_started_again_commands_nothing_when_the_node_is_back(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        assert remote.machine.agent is not None
        await remote.node.stop()
        await remote.machine.cut()
        cut_off = remote.controller("9.a")
        await cut_off.adopt(CLUSTER, {})
        assert cut_off.away
        remote.machine.agent.admit("d", "7.b")
        await remote.machine.agent.set_fence("7.b", "other")
        await remote.machine.reach()
        await until(lambda: bool(remote.gave_way))
        assert remote.machine.agent.commander.to_json()["epoch"] == "7.b"
        await cut_off.stop()

    run(run_dir, test)


def test_the_fence_of_another_deployment_says_nothing(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.calls.post("/fence", {"fence": "1.a", "machine": "here"})
        await remote.node.stop()
        other = remote.controller("1.c", "another")
        try:
            await other.serve_on(CLUSTER)
            await other.bring_up(worker(W))
        finally:
            await other.stop()

    run(run_dir, test)


def test_a_condemned_worker_is_killed_once_its_agent_answers(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.reachable = True
        await remote.node.bring_up(worker(W))
        await remote.machine.cut()
        killing = asyncio.create_task(remote.node.kill(W, "it hangs"))
        await asyncio.sleep(0.6)
        assert not remote.node.away
        await remote.machine.reach()
        await killing
        assert remote.machine.node.log.count(f"kill {W}: it hangs") == 1

    run(run_dir, test)


def test_the_process_after_a_condemned_one_is_left_alone(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(remote: Remote) -> None:
        await remote.node.bring_up(worker(W))
        await remote.node.kill(W, "it hung", "another incarnation")
        # The order may arrive late, or once more after its agent was restarted.
        monkeypatch.setattr(node_agent, "start_time", lambda _: 7)
        await remote.node._orders.operate("kill", {"name": W, "cause": "late", "incarnation": "1.1"})
        assert not any(text.startswith("kill") for text in remote.machine.node.log)

    run(run_dir, test)


def test_a_node_on_which_another_deployment_starts_its_first_worker_refuses(run_dir: Path) -> None:
    async def test(remote: Remote) -> None:
        remote.machine.node.gate.clear()
        starting = asyncio.create_task(remote.node.bring_up(worker(W)))
        await until(lambda: len(remote.machine.published) == 1)
        other = remote.controller("1.a", "another")
        try:
            with pytest.raises(StateError, match="serves another deployment with 1 workers"):
                await other.serve_on(CLUSTER)
        finally:
            await other.stop()
        remote.machine.node.gate.set()
        await starting

    run(run_dir, test)
