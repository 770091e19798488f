"""Agents that Ray starts, with another process in place of the one that talks to Ray."""

import asyncio
import os
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet import ray_engine
from jigsaw_triton.controller.fleet.ray_engine import RayEngine
from jigsaw_triton.errors import InputError, MissingDependencyError, ServerError
from jigsaw_triton.gpus.model import Agents, RayCluster
from jigsaw_triton.servers.certificates.authority import create_authority, issue, issued

NODES = Agents((("a", ""), ("b", "10.0.0.2:7441")), "", RayCluster("auto", 7440, "/state"))

PROCESS = """\
import sys
from jigsaw_triton.child_process import connected
from jigsaw_triton.errors import InputError
from jigsaw_triton.servers.engines.placement import Placed

connection = connected(int(sys.argv[3]))
while True:
    name, *arguments = connection.recv()
    if sys.argv[1] == "dies":
        sys.exit(3)
    if sys.argv[1] == "hangs":
        continue
    if sys.argv[1] == "refuses":
        connection.send(InputError("no", where=sys.argv[2]))
    elif name == "remove":
        connection.send(None)
    else:
        connection.send(Placed({spec.node: f"{spec.address or spec.port}" for spec in arguments[0]}, {}))
"""


@pytest.fixture(autouse=True)
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "stand_in_for_ray_process.py").write_text(PROCESS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "modules"), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setattr(ray_engine, "_MODULE", "stand_in_for_ray_process")


def engine(folder: Path, address: str = "auto") -> RayEngine:
    return RayEngine(RayCluster(address), "0123", folder / "certificates")


def test_certificates_are_made_once(tmp_path: Path) -> None:
    async def test() -> None:
        first = engine(tmp_path)
        assert await first.certificates(NODES) == tmp_path / "certificates" / "controller"
        placed = await first.place(NODES)
        assert placed.addresses == {"a": "7440", "b": "10.0.0.2:7441"}

    asyncio.run(test())
    before = issued(tmp_path / "certificates")
    assert [one.path.parent.name for one in before] == ["certificates", "a", "b", "controller"]
    asyncio.run(test())
    assert issued(tmp_path / "certificates") == before


def test_given_certificates_lie_beside_those_of_the_controller(tmp_path: Path) -> None:
    create_authority(tmp_path / "given", "test")
    for name in ("controller", "a"):
        issue(tmp_path / "given", name)
    given = Agents(NODES.addresses, str(tmp_path / "given" / "controller"), NODES.ray)
    one = engine(tmp_path)
    assert asyncio.run(one.certificates(given)) == tmp_path / "given" / "controller"
    with pytest.raises(InputError, match=r"given/b/cert\.pem: the certificate cannot be read"):
        asyncio.run(one.place(given))
    issue(tmp_path / "given", "b")
    assert asyncio.run(one.place(given, {"b"})).addresses == {"b": "10.0.0.2:7441"}


def test_nodes_with_new_certificates_are_outdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = engine(tmp_path)
    asyncio.run(one.place(NODES))
    issue(tmp_path / "certificates", "b")
    assert asyncio.run(one.outdated()) == set()
    monkeypatch.setattr(ray_engine, "_CERTIFICATES_S", 0.0)
    assert asyncio.run(one.outdated()) == {"b"}
    asyncio.run(one.place(NODES, {"b"}))
    assert asyncio.run(one.outdated()) == set()


def test_what_the_process_refuses_is_an_error_here(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="jigsaw-triton-0123: no"):
        asyncio.run(engine(tmp_path, "refuses").place(NODES))


def test_a_process_that_dies_or_hangs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match="Ray at dies: the connection has ended"):
        asyncio.run(engine(tmp_path, "dies").place(NODES))
    monkeypatch.setattr(ray_engine, "_REMOVE_S", 0.1)
    (error,) = asyncio.run(engine(tmp_path, "hangs").remove())
    assert str(error).startswith("Ray at hangs: the cluster has not answered within 0.1 s; see if `ray status` answers")


def test_an_error_during_the_removal_is_returned(tmp_path: Path) -> None:
    assert asyncio.run(engine(tmp_path).remove()) == ()
    (error,) = asyncio.run(engine(tmp_path, "refuses").remove())
    assert error.message == "no"


def test_a_call_that_is_cancelled_has_ended(tmp_path: Path) -> None:
    async def test() -> None:
        one = engine(tmp_path, "hangs")
        calling = asyncio.create_task(one.remove())
        while one._child is None:  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(0.01)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        assert not one._child.alive

    asyncio.run(test())


def test_without_ray_the_error_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "modules" / "ray.py").write_text("raise ImportError\n")
    monkeypatch.setattr(ray_engine, "_MODULE", "jigsaw_triton.servers.engines.ray_process")
    with pytest.raises(MissingDependencyError, match=r"pip install 'jigsaw-triton\[ray\]'"):
        asyncio.run(engine(tmp_path).place(NODES))
