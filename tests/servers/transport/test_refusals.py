"""Calls between nodes that are refused, and settings that are reported before the start."""

import asyncio
import json
import socket
from datetime import datetime
from pathlib import Path

import pytest

from jigsaw_triton.errors import InputError, ServerError
from jigsaw_triton.servers.certificates.authority import create_authority, issue
from jigsaw_triton.servers.certificates.credentials import CONTROLLER, credentials_in, info, read_certificates
from jigsaw_triton.servers.transport.config import Link, Node
from jigsaw_triton.servers.transport.gateway_side import GatewaySide
from tests.native.conftest import column
from tests.servers.transport.world import Machine, close, eventually_reachable, get, make_credentials, world
from tests.waiting import WAIT_LIMIT_S, until

pytestmark = pytest.mark.slow


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
            async with asyncio.timeout(WAIT_LIMIT_S):
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
                async with asyncio.timeout(WAIT_LIMIT_S):
                    # The HAProxy process from before the reload may still accept a call.
                    while (await get(socket, "/"))[0] != expected:  # noqa: ASYNC110 - another process ends
                        await asyncio.sleep(0.05)

            await becomes("1.a", 200)
            await machine.side.set_workers(workers, fence="2.b")
            refused, accepted = ("1.a", "2.a", ""), ("2.b", "3.c", "10.d")
            for bad, good in zip(refused, accepted, strict=True):
                await becomes(bad, 503)
                await becomes(good, 200)
            await becomes("1.a", 503)
            # Fences do not hold for calls to the agent, which itself decides which controller it obeys.
            assert (await get(side.agent_socket("a"), "/node"))[0] == 200
            await machine.side.set_workers(workers)
            await becomes("1.a", 200)
            server.close()
            await server.wait_closed()
            await side.stop()

    asyncio.run(main())
