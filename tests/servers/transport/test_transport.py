"""Calls from a gateway to other nodes: routing, and changes under load."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.servers.certificates.credentials import CONTROLLER
from jigsaw_triton.servers.os_process import OsProcess, start_time
from jigsaw_triton.servers.transport.gateway_side import GatewaySide
from jigsaw_triton.servers.transport.node_side import NodeSide
from tests.native import specs
from tests.native.conftest import column
from tests.servers.transport.world import (
    Load,
    Machine,
    get,
    make_credentials,
    world,
)
from tests.waiting import until

pytestmark = pytest.mark.slow

LARGE = ("INT64", (75_000,))


def test_calls_reach_the_worker_and_the_agent_that_they_name(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a"), Machine(run_dir, "b")) as w:
            for node in "ab":
                await w.machines[node].add(f"w{node}", lambda call, node=node: {"Y": call.inputs["X"] + ord(node)})  # type: ignore[misc]
            await w.side.set_links([w.link("wa", "a"), w.link("wb", "b")])
            w.route("wa", "wb")
            front = w.front()
            found = {(await asyncio.to_thread(front.ask, {"X": column(0)}))["Y"].item() for _ in range(40)}
            assert found == {ord("a"), ord("b")}
            for node in "ab":
                status, text = await get(w.side.agent_socket(node), "/v1/servers?x=1", ["jigsaw-worker: wa"])
                assert status == 200
                assert text.startswith(f"{node} got GET /v1/servers?x=1 HTTP/1.1")
                assert "jigsaw-worker" not in text, "a caller of an agent cannot reach a worker"
            assert (await get(w.socket("wb"), "/", ["jigsaw-worker: wa"]))[0] != 200
            assert len(w.machines["a"].workers["wa"].calls) + len(w.machines["b"].workers["wb"].calls) == 40

    asyncio.run(main())


def test_large_tensors_pass_whole(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a")) as w:
            worker = await w.machines["a"].add("w")
            await w.side.set_links([w.link("w", "a")])
            w.route("w", batch=8, slots=4)
            made = specs.task(inputs={"X": ("inputs.X", LARGE)}, outputs={"Y": LARGE})
            front = w.engine.front(specs.spec([made], {"X": LARGE}, {"Y": ("t.Y", LARGE)}))
            arrays = [n + np.arange(8 * LARGE[1][0]).reshape(8, -1) for n in range(10)]
            requests = [front.send({"X": array}) for array in arrays]
            for request, array in zip(requests, arrays, strict=True):
                assert ((await asyncio.to_thread(request.wait))["Y"] == 2 * array).all()
            assert not worker.region_requests
            assert worker.connections < len(worker.calls), "connections are used again"

    asyncio.run(main())


def test_each_incarnation_has_a_socket_with_a_time_of_its_own(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a")) as w:
            for name in "xy":
                await w.machines["a"].add(name)
            await w.side.set_links([w.link("x", "a"), w.link("y", "a")])
            first = {name: w.socket(name).stat() for name in "xy"}
            await w.side.set_links([w.link("x", "a", "2"), w.link("y", "a")])
            second = {name: w.socket(name).stat() for name in "xy"}
            assert second["x"].st_mtime_ns != first["x"].st_mtime_ns
            assert (second["y"].st_ino, second["y"].st_mtime_ns) == (first["y"].st_ino, first["y"].st_mtime_ns)
            w.route("x")
            front = w.front()
            assert (await asyncio.to_thread(front.ask, {"X": column(3)}))["Y"].item() == 6
            await w.side.set_links([w.link("y", "a")])
            assert not w.socket("x").exists()
            assert [path.name for path in w.socket("y").parent.iterdir()] == ["y.sock"]
            folders = [w.folder / "t", w.folder / "t" / "links", w.machines["a"].folder / "t"]
            assert {folder.stat().st_mode & 0o777 for folder in folders} == {0o700}
            assert len(list(folders[1].iterdir())) == 1
        assert not w.socket("y").exists()
        assert not (w.folder / "t").exists()

    asyncio.run(main())


def test_a_condemned_worker_is_used_again_in_its_next_incarnation(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a")) as w:
            worker = await w.machines["a"].add("w")
            await w.side.set_links([w.link("w", "a")])
            w.route("w", deadline_ms={"1": 200})
            front = w.front()
            assert (await asyncio.to_thread(front.ask, {"X": column(1)}))["Y"].item() == 2
            worker.answering.clear()
            assert (await asyncio.to_thread(front.ask, {"X": column(1)})).blame == "worker"
            report = (w.folder / "condemned" / "w.json").read_text()
            assert f'"identity":{w.socket("w").stat().st_mtime_ns}' in report
            waiting = front.send({"X": column(4)})
            worker.answering.set()
            await asyncio.sleep(0.3)
            assert not waiting.ended(), "the incarnation that hung is never used again"
            await w.side.set_links([w.link("w", "a", "2")])
            assert (await asyncio.to_thread(waiting.wait))["Y"].item() == 8

    asyncio.run(main())


def test_changes_of_the_links_and_of_the_workers_lose_no_call(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a"), Machine(run_dir, "b")) as w:
            for node in "ab":
                await w.machines[node].add(f"w{node}")
                await w.machines[node].add(f"other-{node}")
            stays = [w.link("wa", "a"), w.link("wb", "b")]
            await w.side.set_links(stays)
            w.route("wa", "wb", slots=4)
            async with Load(w.front()) as load:
                for turn in range(6):
                    await w.side.set_links([*stays, w.link("other-a", "a", f"{turn}")])
                    await load.grows()
                    machine = w.machines["ab"[turn % 2]]
                    await machine.add(f"new-{turn}")
                    await load.grows()
            assert load.failures == []
            assert [text for kind, text in w.events if kind == "error"] == []

    asyncio.run(main())


def test_changes_within_a_moment_are_one_reload(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a")) as w:
            pids = {w.side.status()["pid"]}

            async def change(count: int) -> None:
                await w.side.set_links([w.link(f"w{n}", "a") for n in range(count)])
                pids.add(w.side.status()["pid"])

            await asyncio.gather(*(change(count) for count in range(1, 9)))
            assert len(pids) == 2
            assert len(list(w.socket("w").parent.iterdir())) == 8

    asyncio.run(main())


def test_new_certificates_lose_no_call(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a")) as w:
            await w.machines["a"].add("w")
            await w.side.set_links([w.link("w", "a")])
            w.route("w", slots=8)
            sides: tuple[GatewaySide | NodeSide, ...] = (w.side, w.machines["a"].side)
            async with Load(w.front()) as load:
                before = {side.status()["pid"] for side in sides}
                for node in (CONTROLLER, "a"):
                    make_credentials(run_dir, node)
                await until(lambda: not {side.status()["pid"] for side in sides} & before)
                await load.grows(200)
            assert load.failures == []
            for events in (w.events, w.machines["a"].events):
                assert [kind for kind, _ in events if kind == "error"] == []
                assert "has reloaded its changed files" in events[-1][1]

    asyncio.run(main())


def test_files_that_do_not_work_are_refused_while_the_old_ones_serve(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a")) as w:
            pid = w.side.status()["pid"]
            w.credentials.key.write_bytes(make_credentials(run_dir, "other").key.read_bytes())
            await until(lambda: bool(w.events))
            assert w.side.status()["pid"] == pid
            assert "keeps its previous files" in w.events[0][1]
            assert f"{w.credentials.key}: the private key is not that of the certificate" in w.events[0][1]
            assert (await get(w.side.agent_socket("a")))[0] == 200

    asyncio.run(main())


def test_a_dead_haproxy_is_started_again(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a")) as w:
            await w.machines["a"].add("w")
            await w.side.set_links([w.link("w", "a")])
            w.route("w")
            # A call that was on its way when HAProxy died may have been executed, and is repeated once.
            front = w.engine.front(specs.spec())
            sides: tuple[GatewaySide | NodeSide, ...] = (w.side, w.machines["a"].side)
            first = w.socket("w").stat()
            for side in sides:
                os.kill(side.status()["pid"], signal.SIGKILL)
                assert (await asyncio.to_thread(front.ask, {"X": column(5)}))["Y"].item() == 10
                assert side.status()["restarts"] == 1
            # The socket is a new one, but the worker's process is the same.
            second = w.socket("w").stat()
            assert second.st_ino != first.st_ino and second.st_mtime_ns == first.st_mtime_ns

    asyncio.run(main())


def test_the_next_controller_takes_over_without_losing_a_call(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a")) as w:
            await w.machines["a"].add("w")
            links = [w.link("w", "a")]
            await w.side.set_links(links)
            w.route("w", slots=4)
            identity = w.socket("w").stat()
            async with Load(w.front()) as load:
                pid = w.side.status()["pid"]
                started = start_time(pid)
                assert started is not None
                w.controller_dies()
                following = w.new_side()
                await following.start(w.nodes, links, found=OsProcess.find(pid, started))
                await load.grows(200)
                assert following.status()["pid"] != pid
                found = w.socket("w").stat()
                assert (found.st_ino, found.st_mtime_ns) == (identity.st_ino, identity.st_mtime_ns)
            await following.stop()
            assert load.failures == []

    asyncio.run(main())


def test_the_next_controller_starts_anew_if_the_sockets_are_gone(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a")) as w:
            await w.machines["a"].add("w")
            links = [w.link("w", "a")]
            await w.side.set_links(links)
            w.route("w")
            pid = w.side.status()["pid"]
            started = start_time(pid)
            assert started is not None
            w.controller_dies()
            shutil.rmtree(w.side.agent_socket("a").parent)
            following = w.new_side()
            await following.start(w.nodes, links, found=OsProcess.find(pid, started))
            assert OsProcess.find(pid, started) is None
            assert (await asyncio.to_thread(w.front().ask, {"X": column(5)}))["Y"].item() == 10
            await following.stop()

    asyncio.run(main())
