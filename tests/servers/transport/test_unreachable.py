"""Calls from a gateway to nodes or workers that cannot be reached: what fails, how fast, and what is tried again."""

import asyncio
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.servers import names
from jigsaw_triton.servers.haproxy.config import CONFIG
from jigsaw_triton.servers.transport.config import Node
from tests.native import specs
from tests.native.broken import hang_up
from tests.native.conftest import column
from tests.servers.transport.world import Machine, eventually_reachable, get, world
from tests.waiting import WAIT_LIMIT_S, until

pytestmark = pytest.mark.slow

LARGE = ("INT64", (75_000,))
CONNECT_S = 1.0
"""Seconds that a call would wait for a connection to a node that does not answer."""


@pytest.mark.parametrize("way", ["node killed", "worker killed", "worker unknown", "nothing at the address"])
def test_a_call_that_cannot_reach_its_worker_goes_elsewhere_at_once(run_dir: Path, way: str) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a"), Machine(run_dir, "b")) as w:
            lost = await w.machines["a"].add("wa")
            await w.machines["b"].add("wb")
            await w.side.set_links([w.link("wa", "a"), w.link("wb", "b")])
            if way == "node killed":
                await w.machines["a"].side.stop()
            elif way == "worker killed":
                lost.kill()
            elif way == "worker unknown":
                await w.machines["a"].side.set_workers({})
            else:
                nowhere = Node("a", "127.0.0.1", 1)
                await w.side.set_nodes([nowhere, w.machines["b"].node])
            w.route("wa", "wb")
            front = w.front()
            took = []
            for n in range(20):
                began = time.monotonic()
                assert (await asyncio.to_thread(front.ask, {"X": column(n)}))["Y"].item() == 2 * n
                took.append(time.monotonic() - began)
            # Half of the calls go to the lost worker first. On a busy machine, a few calls may be slow anyway.
            assert sum(seconds > CONNECT_S for seconds in took) < 6
            assert any("worker wa failed" in line for line in w.engine.logs)
            status, text = await get(w.socket("wa"), method="POST", body=bytes(600))
            assert status == 503
            assert '{"error": ' in text

    asyncio.run(main())


@pytest.mark.parametrize("way", ["worker killed", "worker unknown"])
def test_a_large_call_that_cannot_reach_its_worker_was_not_executed(run_dir: Path, way: str) -> None:
    """A refusal before the whole call was read would reset the connection, and the status could be lost."""

    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a"), Machine(run_dir, "b")) as w:
            lost = await w.machines["a"].add("wa")
            await w.machines["b"].add("wb")
            await w.side.set_links([w.link("wa", "a"), w.link("wb", "b")])
            if way == "worker killed":
                lost.kill()
            else:
                await w.machines["a"].side.set_workers({})
            w.route("wa", "wb", batch=1, slots=2)
            made = specs.task(inputs={"X": ("inputs.X", LARGE)}, outputs={"Y": LARGE}, retry=False)
            front = w.engine.front(specs.spec([made], {"X": LARGE}, {"Y": ("t.Y", LARGE)}))
            array = np.ones((1, *LARGE[1]), np.int64)
            ends = time.monotonic() + 2
            while time.monotonic() < ends:
                for request in [front.send({"X": array}) for _ in range(6)]:
                    assert ((await asyncio.to_thread(request.wait))["Y"] == 2).all()
            assert w.engine.metric("jigsaw_batches_lost_total") > 1

    asyncio.run(main())


def test_a_node_that_does_not_answer_is_noticed(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a"), Machine(run_dir, "b")) as w:
            await eventually_reachable(w, "a", "b")
            pid = w.machines["a"].side.status()["pid"]
            os.kill(pid, signal.SIGSTOP)
            try:
                await eventually_reachable(w, "b")
                assert await w.side.health() == {"a": "does not answer", "b": ""}
                took = []
                for _ in range(8):
                    began = time.monotonic()
                    assert (await get(w.side.agent_socket("a")))[0] == 503
                    took.append(time.monotonic() - began)
                assert min(took) < CONNECT_S, "no call waits for a node that is known to be away"
            finally:
                os.kill(pid, signal.SIGCONT)
            await eventually_reachable(w, "a", "b")

    asyncio.run(main())


def test_a_node_whose_host_gets_another_address_is_called_there(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()
    known = frozenset({"127.0.0.99"})

    def resolve(host: str) -> frozenset[str]:
        assert host == "localhost"
        looked.set()
        return known

    monkeypatch.setattr(names, "LOOK_S", 0.1)
    monkeypatch.setattr(names, "resolve", resolve)
    machine = Machine(run_dir, "a")
    machine.node = replace(machine.node, host="localhost")

    async def main() -> None:
        nonlocal known
        async with world(run_dir, machine) as w:
            config = w.side._side.place.folder / CONFIG
            assert f"server a localhost:{machine.node.port} " in config.read_text()
            assert await asyncio.to_thread(looked.wait, WAIT_LIMIT_S)
            known = frozenset({"127.0.0.1"})
            await until(lambda: f"server a 127.0.0.1:{machine.node.port} " in config.read_text())
            await eventually_reachable(w, "a")

    asyncio.run(main())


def test_a_call_that_may_have_been_executed_is_not_reported_as_not_executed(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a")) as w:
            worker = await w.machines["a"].add("w", hang_up)
            await w.side.set_links([w.link("w", "a")])
            w.route("w")
            assert (await asyncio.to_thread(w.front().ask, {"X": column(1)})).blame == "worker"
            assert len(worker.calls) == 1, "with `retry: never`, it is not repeated"

    asyncio.run(main())
