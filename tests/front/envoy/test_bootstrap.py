"""The configuration of an Envoy, and a real Envoy over stand-ins of gateways."""

import http.client
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
import tritonclient.grpc
import yaml
from tritonclient.utils import InferenceServerException

import jigsaw_triton as jt
from jigsaw_triton.errors import SpecError
from jigsaw_triton.front.envoy.bootstrap import bootstrap, left_out
from tests.e2e.system import free_ports
from tests.front.envoy.process import EnvoyProcess
from tests.front.fronts import FRONT, front
from tests.front.grpc_gateway import GrpcGateway, tensors
from tests.front.world import FrontProcess, Gateway, nearly
from tests.waiting import WAIT_LIMIT_S


def cluster(found: dict[str, Any], name: str) -> dict[str, Any]:
    (made,) = [one for one in found["static_resources"]["clusters"] if one["name"] == name]
    return dict(made)


def endpoints(found: dict[str, Any], name: str) -> list[list[tuple[str, int, int]]]:
    """Returns host, port and weight of each endpoint, by priority."""
    return [
        [
            (*one["endpoint"]["address"]["socket_address"].values(), one["load_balancing_weight"])
            for one in level["lb_endpoints"]
        ]
        for level in cluster(found, name)["load_assignment"]["endpoints"]
    ]


def test_each_graph_has_a_cluster_for_each_protocol_with_weights_and_standby_gateways(tmp_path: Path) -> None:
    found = bootstrap(front(tmp_path))
    assert endpoints(found, "http.traffic") == [
        [("10.0.0.1", 8000, 256), ("10.0.0.2", 8000, 85)],
        [("10.0.0.3", 8000, 85)],
    ]
    assert endpoints(found, "grpc.faces") == [[("10.0.0.1", 8001, 256)]]
    assert endpoints(found, "http") == [[("10.0.0.1", 8000, 1)]]
    assert cluster(found, "grpc.traffic")["health_checks"][0]["http_health_check"]["path"] == "/v2/models/traffic/ready"
    assert cluster(found, "http.traffic.statistics")["lb_policy"] == "MAGLEV"


def test_every_route_leads_to_a_cluster(tmp_path: Path) -> None:
    found = bootstrap(front(tmp_path))["static_resources"]
    managers = [each["typed_config"] for one in found["listeners"] for each in one["filter_chains"][0]["filters"]]
    routes = [
        route["route"]["cluster"]
        for manager in managers
        if "route_config" in manager
        for route in manager["route_config"]["virtual_hosts"][0]["routes"]
    ]
    assert set(routes) == {one["name"] for one in found["clusters"]}


def test_what_envoy_cannot_do_is_refused_or_reported(tmp_path: Path) -> None:
    assert list(left_out(front(tmp_path, FRONT.replace("      standby", "      # standby")))) == []
    (tmp_path / "keys.txt").touch()
    more = "  api_keys: keys.txt\n  limits: {client_rps: 5}\n"
    different = FRONT.replace("grpc: 10.0.0.2:8001", "grpc: 10.0.0.9:8001")
    with pytest.raises(SpecError) as caught:
        (tmp_path / "front.yaml").write_text(different + more)
        jt.export_envoy(tmp_path)
    keys, hosts = map(str, caught.value.diagnostics)
    assert "Envoy would accept requests without API keys" in keys
    assert "a gateway of cell cell2 has different hosts for http and grpc" in hosts
    assert list(left_out(front(tmp_path, FRONT + more))) == [
        "Envoy does not enforce limits.client_rps",
        "Envoy sends requests to standby gateways only while a graph has no other gateway",
    ]


class World:
    """Two cells, a standby gateway of the second one, and the front.yaml over them.

    Args:
        folder: Folder of the file.
    """

    def __init__(self, folder: Path) -> None:
        ports = free_ports(9)
        names = ("cell1", "cell2", "standby")
        self.cell1, self.cell2, self.standby = (Gateway(name, port) for name, port in zip(names, ports, strict=False))
        over_grpc = [GrpcGateway(name, f"127.0.0.1:{port}") for name, port in zip(names, ports[3:], strict=False)]
        self.gateways: tuple[Gateway | GrpcGateway, ...] = (self.cell1, self.cell2, self.standby, *over_grpc)
        self.front = FrontProcess(folder, ports[6:])
        at = [{"http": f"127.0.0.1:{ports[n]}", "grpc": f"127.0.0.1:{ports[n + 3]}"} for n in range(3)]
        self.front.write(
            [
                {"name": "cell1", **at[0], "weights": {"traffic": 3, "faces": 1}},
                {"name": "cell2", **at[1], "weights": {"traffic": 1}, "standby": at[2]},
            ],
            limits={"body_mib": 1},
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("envoy"))
    made.cell1.ready = {"traffic", "faces"}
    for gateway in made.gateways:
        gateway.start()
    try:
        yield made
    finally:
        for gateway in made.gateways:
            gateway.stop()


@pytest.fixture(scope="module")
def envoy(world: World) -> Iterator[EnvoyProcess]:
    with EnvoyProcess(world.front) as process:
        yield process


@pytest.mark.slow
def test_an_envoy_balances_requests_of_one_connection_by_weights(world: World, envoy: EnvoyProcess) -> None:
    envoy.wait(lambda: nearly(world.front.ask(40), cell1=30, cell2=10))
    envoy.wait(lambda: nearly(envoy.grpc_answers(40), cell1=30, cell2=10))
    envoy.wait(lambda: world.front.ask(4, model="faces") == envoy.grpc_answers(4, model="faces") == Counter(cell1=4))
    envoy.wait(lambda: list(world.front.ask(model="unknown")) == ["404 cell1 has no unknown"])


@pytest.mark.slow
def test_statistics_are_those_of_one_cell_behind_an_envoy(world: World, envoy: EnvoyProcess) -> None:
    envoy.wait(lambda: nearly(world.front.ask(40), cell1=30, cell2=10))
    envoy.wait(lambda: len(world.front.ask(20, call="stats")) == 1)
    envoy.wait(lambda: len(envoy.grpc_answers(20, call="statistics")) == 1)


@pytest.mark.slow
def test_an_envoy_sends_nothing_to_a_cell_that_is_not_ready_or_cannot_be_reached(
    world: World, envoy: EnvoyProcess
) -> None:
    world.cell1.ready.discard("traffic")
    envoy.wait(lambda: world.front.ask(10) == envoy.grpc_answers(10) == Counter(cell2=10))
    world.cell2.stop()
    envoy.wait(lambda: world.front.ask(10) == envoy.grpc_answers(10) == Counter(standby=10))
    world.standby.ready.clear()
    envoy.wait(lambda: list(world.front.ask()) == ['503 {"error":"no healthy upstream"}\n'])
    world.cell1.ready.add("traffic")
    world.standby.ready.add("traffic")
    world.cell2.start()
    envoy.wait(lambda: nearly(world.front.ask(40), cell1=30, cell2=10))


@pytest.mark.slow
def test_an_envoy_refuses_what_a_front_refuses(world: World, envoy: EnvoyProcess) -> None:
    envoy.wait(lambda: bool(world.front.ask()))

    def post(headers: dict[str, str], body: bytes | Iterator[bytes] = b"{}") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", world.front.http, timeout=WAIT_LIMIT_S)
        with closing(connection):
            connection.request("POST", "/v2/models/traffic/infer", body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())["error"]

    assert post({}, iter([b"{}"])) == (411, "the request needs a Content-Length")
    assert post({"Content-Length": str(2**20 + 1)}) == (413, "the body of a request may have at most 1 MiB")
    assert post({"Content-Encoding": "gzip"}) == (415, "compressed requests are not accepted")
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{world.front.grpc}") as client:
        with pytest.raises(InferenceServerException, match="compressed messages are not accepted"):
            client.infer("traffic", tensors(4), client_timeout=WAIT_LIMIT_S, compression_algorithm="gzip")
        with pytest.raises(InferenceServerException, match="Payload Too Large"):
            client.infer("traffic", tensors(2**18), client_timeout=WAIT_LIMIT_S)
        envoy.wait(lambda: bool(client.infer("traffic", tensors(120_000), client_timeout=WAIT_LIMIT_S)))
    envoy.wait(lambda: nearly(envoy.grpc_answers(40), cell1=30, cell2=10))


@pytest.mark.slow
def test_an_envoy_shows_its_metrics_but_not_its_administration(world: World, envoy: EnvoyProcess) -> None:
    envoy.wait(lambda: bool(world.front.ask()))
    with urlopen(f"http://127.0.0.1:{world.front.metrics}/metrics", timeout=WAIT_LIMIT_S) as answer:
        assert "envoy_cluster_upstream_rq_total" in answer.read().decode()
    assert yaml.safe_load((world.front.file.with_name("envoy.yaml")).read_text())["admin"]["address"].keys() == {"pipe"}
