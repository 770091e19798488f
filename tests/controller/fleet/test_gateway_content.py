"""The content of a gateway is sent whole, with digests in place of files."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from jigsaw_triton.compiler.bundle import Artifact, ModelFolder, RouteEntry, Worker
from jigsaw_triton.controller.core.actual import Actual
from jigsaw_triton.controller.fleet.gateway_content import (
    GatewayContent,
    RemoteWorker,
    content_digests,
    opened_content,
    sealed_content,
    standby_content,
)
from jigsaw_triton.gpus.gateway import Edge, EdgeLimits, EdgeTls, GatewayPorts, ServerImage, StandbyGateway
from jigsaw_triton.gpus.model import Agents
from tests.fakes.node import CLUSTER, NODE, model, worker

AGENTS = Agents(((NODE, "10.0.0.1:7440"),), "/certificates")
STANDBY = replace(CLUSTER, agents=AGENTS, standby_gateway=StandbyGateway(NODE, "127.0.0.2"))
STEPS = Worker("steps", (model("s"),))
ACTUAL = Actual(
    gateway=True,
    workers={"a-0-1g-0": worker("a-0-1g-0", model("m")), STEPS.name: STEPS},
    models={"g.t.g1": ModelFolder("g.t.g1", {"config.pbtxt": b"task"})},
    fronts={"g": ModelFolder("g", {"config.pbtxt": b"front"})},
    routes={"g.t.g1": (RouteEntry("a-0-1g-0", "m", 8, 1),), "g.u.g1": ()},
)
RUNNING = (RemoteWorker("a-0-1g-0", NODE, "1.2"),)


def content(actual: Actual = ACTUAL) -> GatewayContent | None:
    return standby_content(actual, ("g",), STANDBY, RUNNING, {NODE: "10.0.0.1:7440"}, "7.abc")


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def test_without_a_gateway_there_is_nothing_to_serve() -> None:
    assert content(replace(ACTUAL, gateway=False)) is None


def test_the_standby_serves_what_the_gateway_serves_at_its_own_address() -> None:
    found = content()
    assert found is not None
    assert [folder.name for folder in (*found.models, *found.fronts)] == ["g.t.g1", "g"]
    assert found.steps == (STEPS,)
    assert found.ports == replace(GatewayPorts(), address="127.0.0.2")
    assert list(found.routes) == ["g.t.g1", "g.u.g1"]
    assert '"epoch": 7' in found.routes["g.t.g1"] and '"model": "m"' in found.routes["g.t.g1"]


def test_a_content_arrives_as_it_was_sent(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("cert", "key", "ca", "keys")}
    for name, path in files.items():
        path.write_text(name)
    tls = EdgeTls(str(files["cert"]), str(files["key"]), str(files["ca"]))
    edge = Edge(tls=tls, api_keys=str(files["keys"]), limits=EdgeLimits(body_mib=7), metrics=9)
    before = content()
    assert before is not None
    before = replace(before, edge=edge, image=ServerImage("x/y:1"), memory_mib=700)
    made = sealed_content(before, digest, b"state")
    assert set(content_digests(made.json)) == set(made.contents)
    for name, data in made.contents.items():
        (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.read_bytes())
    after = opened_content(made.json, lambda name: tmp_path / name)
    (front,) = after.fronts
    (file,) = front.files.values()
    assert isinstance(file, Artifact) and file.source.read_bytes() == b"front"
    assert after.edge is not None and after.edge.tls is not None
    assert Path(after.edge.tls.key).read_text() == "key" and Path(str(after.edge.api_keys)).read_text() == "keys"
    first, second = (replace(one, models=(), fronts=(), steps=(), edge=None) for one in (before, after))
    assert first == second
    assert replace(after.edge, tls=None, api_keys=None) == replace(edge, tls=None, api_keys=None)
