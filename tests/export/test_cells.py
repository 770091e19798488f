from dataclasses import replace

import pytest
import yaml

from jigsaw_triton.errors import InputError
from jigsaw_triton.export.cells import CellContent, GatewayCertificates, cell_files
from jigsaw_triton.spec.cells import CellDocument, FrontDocument
from jigsaw_triton.spec.cluster_schema import ClusterDocument

CLUSTER = {
    "apiVersion": "jigsaw-triton/v1",
    "kind": "Cluster",
    "spec": {
        "engine": "agents",
        "certificates": "certificates/controller",
        "gateway": {"http": 8000, "grpc": 8001, "metrics": 8002, "address": "0.0.0.0", "processors": 32},
        "nodes": [
            {"name": name, "agent": f"{name}:7440", "gpus": [{"model": "A100-80GB", "count": 8}]} for name in "abc"
        ],
    },
}
EDGE = {
    "kind": "haproxy",
    "tls": {"cert": "edge.pem", "key": "edge.key"},
    "api_keys": "keys.txt",
    "limits": {"body_mib": 8, "queue_s": 3},
    "metrics": 9000,
}
FILES = {
    "certificates/controller/cert.pem": "/srv/certificates/controller/cert.pem",
    "edge.pem": "/srv/edge.pem",
    "edge.key": "/srv/edge.key",
    "keys.txt": "/srv/keys.txt",
}


def cell(name: str = "cell1", nodes: tuple[str, ...] = ("a",), **more: str) -> CellContent:
    return CellContent(name, nodes, {"traffic": "/apps/traffic"}, {"traffic": 60}, {"traffic": 0.5}, "{}\n", **more)


CELLS = (cell(), cell("cell2", ("b", "c")))


def files(*cells: CellContent, **spec: object) -> dict[str, dict[str, object]]:
    document = ClusterDocument.model_validate({**CLUSTER, "spec": {**CLUSTER["spec"], **spec}})  # type: ignore[dict-item]
    return {name: yaml.safe_load(text) for name, text in cell_files(document, FILES, cells or CELLS).items()}


def test_a_cell_has_its_nodes_its_demand_and_its_plan() -> None:
    found = files()
    assert set(found) == {
        "front.yaml",
        *(f"cells/{name}/{file}" for name in ("cell1", "cell2") for file in ("cell.yaml", "cluster.yaml", "plan.json")),
    }
    clusters = [ClusterDocument.model_validate(found[f"cells/cell{n}/cluster.yaml"]).spec for n in (1, 2)]
    assert [[node.name for node in cluster.nodes] for cluster in clusters] == [["a"], ["b", "c"]]
    assert clusters[0].certificates == "/srv/certificates/controller"
    assert clusters[0].gateway.processors == 32
    made = CellDocument.model_validate(found["cells/cell2/cell.yaml"]).spec
    assert (made.graphs, made.demand) == ({"traffic": "/apps/traffic"}, {"traffic": 60})


def test_clients_connect_to_the_front_and_gateways_on_its_machine_have_other_ports() -> None:
    found = files()
    front = FrontDocument.model_validate(found["front.yaml"]).spec
    assert (front.listen.address, front.listen.http, front.listen.metrics) == ("0.0.0.0", 8000, 8002)
    assert [(one.http, one.grpc, one.metrics) for one in front.cells] == [
        ("127.0.0.1:8010", "127.0.0.1:8011", "127.0.0.1:8012"),
        ("127.0.0.1:8020", "127.0.0.1:8021", "127.0.0.1:8022"),
    ]
    gateway = ClusterDocument.model_validate(found["cells/cell2/cluster.yaml"]).spec.gateway
    assert (gateway.address, gateway.http, gateway.metrics) == ("127.0.0.1", 8020, 8022)


def test_gateways_on_machines_of_their_own_keep_the_ports() -> None:
    found = files(cell(host="10.0.0.1", standby="10.0.0.3"), cell("cell2", ("b",), host="gateway-b.example"))
    front = FrontDocument.model_validate(found["front.yaml"]).spec
    assert [one.http for one in front.cells] == ["10.0.0.1:8000", "gateway-b.example:8000"]
    assert front.cells[0].standby is not None and front.cells[0].standby.grpc == "10.0.0.3:8001"
    addresses = [
        ClusterDocument.model_validate(found[f"cells/{one.name}/cluster.yaml"]).spec.gateway.address
        for one in front.cells
    ]
    assert addresses == ["10.0.0.1", "0.0.0.0"]


def test_a_standby_gateway_belongs_to_the_cell_of_its_node() -> None:
    gateway = {"address": "0.0.0.0", "standby": "a"}
    found = files(cell(host="10.0.0.1"), cell("cell2", ("b", "c"), host="10.0.0.2"), gateway=gateway)
    first, second = (
        ClusterDocument.model_validate(found[f"cells/{name}/cluster.yaml"]).spec.gateway for name in ("cell1", "cell2")
    )
    assert first.standby is not None and (first.standby.node, first.standby.address) == ("a", "0.0.0.0")
    assert second.standby is None


def test_the_front_has_the_edge_in_place_of_the_cells() -> None:
    found = files(edge=EDGE)
    front = FrontDocument.model_validate(found["front.yaml"]).spec
    assert front.tls is not None and (front.tls.cert, front.tls.key) == ("/srv/edge.pem", "/srv/edge.key")
    assert (front.api_keys, front.limits.body_mib, front.listen.metrics) == ("/srv/keys.txt", 8, 9000)
    assert ClusterDocument.model_validate(found["cells/cell1/cluster.yaml"]).spec.edge is None


def test_front_and_gateways_verify_each_other() -> None:
    made = GatewayCertificates("/c/cert.pem", "/c/key.pem", "/c/ca.pem", "gateway.node.jigsaw-triton")
    spec = {**CLUSTER["spec"], "edge": {**EDGE, "limits": {"body_mib": 8, "client_rps": 5}}}  # type: ignore[dict-item]
    document = ClusterDocument.model_validate({**CLUSTER, "spec": spec})
    found = {name: yaml.safe_load(text) for name, text in cell_files(document, FILES, CELLS, made).items()}
    front = FrontDocument.model_validate(found["front.yaml"]).spec
    assert front.gateway_tls is not None
    assert (front.gateway_tls.ca, front.gateway_tls.server_name) == ("/c/ca.pem", "gateway.node.jigsaw-triton")
    assert (front.gateway_tls.cert, front.gateway_tls.key) == ("/c/cert.pem", "/c/key.pem")
    edges = [
        ClusterDocument.model_validate(found[f"cells/{name}/cluster.yaml"]).spec.edge for name in ("cell1", "cell2")
    ]
    assert all(edge is not None and edge.tls is not None and edge.tls.client_ca == "/c/ca.pem" for edge in edges)
    # Requests are limited by client where clients connect. The ports of the edges do not meet those of gateways.
    assert [(edge.limits.body_mib, edge.limits.client_rps) for edge in edges if edge is not None] == [(8, None)] * 2
    ports = [int(text.rpartition(":")[2]) for one in front.cells for text in (one.http, one.grpc, str(one.metrics))]
    assert len({*ports, *(edge.metrics for edge in edges if edge is not None)}) == 8


def test_ports_that_are_far_apart_never_meet() -> None:
    gateway = {"http": 8000, "grpc": 8010, "metrics": 8030}
    front = FrontDocument.model_validate(files(gateway=gateway)["front.yaml"]).spec
    ports = [address for one in front.cells for address in (one.http, one.grpc, one.metrics)]
    assert len(set(ports)) == 6


def test_too_few_ports_are_an_error() -> None:
    with pytest.raises(InputError, match="the gateway of cell cell2 would have port 65551"):
        files(gateway={"http": 65_500, "grpc": 65_511, "metrics": 65_501})


def test_the_edge_of_a_gateway_on_a_machine_of_its_own_needs_a_port() -> None:
    made = GatewayCertificates("/c/cert.pem", "/c/key.pem", "/c/ca.pem", "gateway.node.jigsaw-triton")
    document = ClusterDocument.model_validate(
        {**CLUSTER, "spec": {**CLUSTER["spec"], "gateway": {"metrics": 65_535}}}  # type: ignore[dict-item]
    )
    with pytest.raises(InputError, match="would have port 65536"):
        cell_files(document, FILES, [replace(CELLS[0], host="10.0.0.1")], made)
