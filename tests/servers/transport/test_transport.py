"""Calls from a gateway to other nodes: routing, changes under load, and what fails how fast."""

import asyncio
import json
import os
import shutil
import signal
import socket
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from jigsaw_triton.errors import InputError, ServerError
from jigsaw_triton.servers import names
from jigsaw_triton.servers.certificates.authority import create_authority, issue
from jigsaw_triton.servers.certificates.credentials import CONTROLLER, credentials_in, info, read_certificates
from jigsaw_triton.servers.haproxy.config import CONFIG
from jigsaw_triton.servers.os_process import OsProcess, start_time
from jigsaw_triton.servers.transport.config import Link, Node
from jigsaw_triton.servers.transport.gateway_side import GatewaySide
from jigsaw_triton.servers.transport.node_side import NodeSide
from tests.native import specs
from tests.native.broken import hang_up
from tests.native.conftest import column
from tests.servers.transport.world import (
    PATIENCE_S,
    Load,
    Machine,
    close,
    eventually_reachable,
    get,
    make_credentials,
    until,
    world,
)

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


def test_each_incarnation_has_a_socket_with_an_inode_of_its_own(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a")) as w:
            for name in "xy":
                await w.machines["a"].add(name)
            await w.side.set_links([w.link("x", "a"), w.link("y", "a")])
            first = {name: w.socket(name).stat() for name in "xy"}
            await w.side.set_links([w.link("x", "a", "2"), w.link("y", "a")])
            second = {name: w.socket(name).stat() for name in "xy"}
            assert second["x"].st_ino != first["x"].st_ino
            # The backend compares the time of the last change, too.
            assert (second["y"].st_ino, second["y"].st_ctime_ns) == (first["y"].st_ino, first["y"].st_ctime_ns)
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
            assert f'"inode":{w.socket("w").stat().st_ino}' in report
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
            for side in sides:
                os.kill(side.status()["pid"], signal.SIGKILL)
                assert (await asyncio.to_thread(front.ask, {"X": column(5)}))["Y"].item() == 10
                assert side.status()["restarts"] == 1

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
                assert (found.st_ino, found.st_ctime_ns) == (identity.st_ino, identity.st_ctime_ns)
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
            began = time.monotonic()
            for n in range(20):
                assert (await asyncio.to_thread(front.ask, {"X": column(n)}))["Y"].item() == 2 * n
            assert time.monotonic() - began < 5
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
                began = time.monotonic()
                assert (await get(w.side.agent_socket("a")))[0] == 503
                assert time.monotonic() - began < 1, "no call waits for a node that is known to be away"
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
            assert await asyncio.to_thread(looked.wait, PATIENCE_S)
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


@pytest.mark.parametrize("foreign", ["node", "gateway"])
def test_certificates_of_another_authority_are_refused(run_dir: Path, foreign: str) -> None:
    async def main() -> None:
        theirs = make_credentials(run_dir, "a" if foreign == "node" else CONTROLLER, authority="other")
        machine = Machine(run_dir, "a", theirs if foreign == "node" else None)
        async with world(run_dir, machine, credentials=theirs if foreign == "gateway" else None) as w:
            worker = await machine.add("w")
            await w.side.set_links([w.link("w", "a")])
            await eventually_reachable(w)
            assert "a certificate of another node or authority" in (await w.side.health())["a"]
            assert (await get(w.socket("w")))[0] == 503
            assert (await get(w.side.agent_socket("a")))[0] == 503
            assert not worker.calls

    asyncio.run(main())


def test_only_the_controller_may_command_an_agent(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a"), credentials=make_credentials(run_dir, "b")) as w:
            await eventually_reachable(w, "a")
            status, text = await get(w.side.agent_socket("a"))
            assert status == 403
            error = json.loads(text)["error"]
            assert error["message"] == "only a certificate with the common name controller may command agents"
            assert error["code"] == 2 and "certificates issue controller" in error["hint"]

    asyncio.run(main())


@pytest.mark.parametrize(("wrong", "reason"), [("certificate", "certificate of another node"), ("name", "is another")])
def test_a_node_that_is_another_one_is_refused(run_dir: Path, wrong: str, reason: str) -> None:
    async def main() -> None:
        if wrong == "certificate":
            machine = Machine(run_dir, "a")
            machine.node = Node("b", "127.0.0.1", machine.node.port)
        else:
            machine = Machine(run_dir, "b")
            machine.node = Node("a", "127.0.0.1", machine.node.port, "b.node.jigsaw-triton")
        async with world(run_dir, machine) as w:
            await eventually_reachable(w)
            assert reason in (await w.side.health())[machine.node.name]
            assert (await get(w.side.agent_socket(machine.node.name)))[0] == 503

    asyncio.run(main())


def test_a_caller_without_a_certificate_is_refused(run_dir: Path) -> None:
    async def main() -> None:
        async with Machine(run_dir, "a") as machine:
            reader, writer = await asyncio.open_connection("127.0.0.1", machine.node.port)
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\njigsaw-node: a\r\n\r\n")
            async with asyncio.timeout(PATIENCE_S):
                assert b"got" not in await reader.read()
            await close(writer)

    asyncio.run(main())


def test_a_port_that_is_taken_is_reported_before_the_start(run_dir: Path) -> None:
    async def main() -> None:
        machine = Machine(run_dir, "a")
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", machine.node.port))
            taken.listen()
            with pytest.raises(InputError, match=f"port {machine.node.port} is already in use"):
                await machine.side.start()
        assert not (machine.folder / "t").exists()
        await machine.side.start()
        await machine.side.stop()

    asyncio.run(main())


def test_wrong_credentials_are_reported_before_the_start(run_dir: Path) -> None:
    async def main() -> None:
        machine = Machine(run_dir, "a", make_credentials(run_dir, "b"))
        with pytest.raises(InputError, match="the certificate is that of node b"):
            await machine.side.start()
        machine.credentials.cert.unlink()
        with pytest.raises(InputError, match="cannot be read"):
            await machine.side.start()
        assert machine.side.status()["state"] == "absent"
        assert not (machine.folder / "t").exists()

    asyncio.run(main())


@pytest.mark.parametrize(("days", "reminded"), [(20, True), (40, False)])
def test_an_event_reminds_of_a_certificate_that_expires_soon(run_dir: Path, days: int, reminded: bool) -> None:
    async def main() -> None:
        create_authority(run_dir / "ca", "test")
        files = credentials_in(issue(run_dir / "ca", "a", days=days).path.parent)
        async with Machine(run_dir, "a", files) as machine:
            expires = datetime.fromisoformat(machine.side.status()["certificates_expire"])
            assert expires == info(read_certificates(files.cert)[0]).expires
            await asyncio.sleep(0)
            found = [text for kind, text in machine.events if kind == "certificate"]
            assert len(found) == reminded
            assert all(f"{expires:%Y-%m-%d}" in text and str(files.cert) in text for text in found)

    asyncio.run(main())


def test_a_link_to_an_unknown_node_is_refused(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a")) as w:
            with pytest.raises(InputError, match="c: worker w is on an unknown node; nodes: a"):
                await w.side.set_links([w.link("w", "c")])
            await w.side.set_links([w.link("w", "a")])
            await w.side.set_nodes([])
            assert not w.socket("w").exists()

    asyncio.run(main())


def test_a_folder_that_cannot_be_written_is_reported_and_tried_again(run_dir: Path) -> None:
    async def main() -> None:
        async with world(run_dir, Machine(run_dir, "a")) as w:
            await w.machines["a"].add("w")
            blocked = w.socket("w").parent
            blocked.rename(w.folder / "away")
            with pytest.raises(ServerError, match="the folder cannot be written: No such file or directory"):
                await w.side.set_links([w.link("w", "a")])
            (w.folder / "away").rename(blocked)
            await until(w.socket("w").exists)
            w.route("w")
            assert (await asyncio.to_thread(w.front().ask, {"X": column(2)}))["Y"].item() == 4

    asyncio.run(main())


def test_workers_refuse_the_gateway_of_a_replaced_controller(run_dir: Path) -> None:
    async def main() -> None:
        async with Machine(run_dir, "a") as machine:
            workers = {"w": machine.folder / "workers" / "w.sock"}
            server = await asyncio.start_unix_server(machine.answer, workers["w"])
            await machine.side.set_workers(workers)
            credentials, socket = make_credentials(run_dir, CONTROLLER), run_dir / "w.sock"
            side = GatewaySide(credentials, folder=run_dir / "t", log=run_dir / "log", report=lambda *_: None)
            await side.start([machine.node], [Link("w", "a", "1", socket)])

            async def becomes(epoch: str, expected: int) -> None:
                await side.set_epoch(epoch)
                async with asyncio.timeout(PATIENCE_S):
                    # The process before the reload may still accept a call.
                    while (await get(socket, "/"))[0] != expected:  # noqa: ASYNC110 - another process ends
                        await asyncio.sleep(0.05)

            await becomes("1.a", 200)
            await machine.side.set_workers(workers, fence="2.b")
            refused, accepted = ("1.a", "2.a", ""), ("2.b", "3.c", "10.d")
            for bad, good in zip(refused, accepted, strict=True):
                await becomes(bad, 503)
                await becomes(good, 200)
            await becomes("1.a", 503)
            # The agent decides by itself whom it obeys.
            assert (await get(side.agent_socket("a"), "/node"))[0] == 200
            await machine.side.set_workers(workers)
            await becomes("1.a", 200)
            server.close()
            await server.wait_closed()
            await side.stop()

    asyncio.run(main())
