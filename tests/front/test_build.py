from pathlib import Path

import pytest

from jigsaw_triton.errors import SpecError
from jigsaw_triton.front.model import GatewayAddress
from jigsaw_triton.gpus.gateway import EdgeLimits, GatewayPorts
from tests.front.fronts import FRONT, front


def test_a_front_has_the_shares_of_each_graph(tmp_path: Path) -> None:
    found = front(tmp_path)
    assert found.ports == GatewayPorts(8000, 8001, 8002, "0.0.0.0")
    assert found.graphs == ("faces", "traffic")
    assert [dict(cell.shares) for cell in found.cells] == [{"traffic": 0.75, "faces": 1.0}, {"traffic": 0.25}]
    assert found.cells[0].gateway == GatewayAddress("10.0.0.1:8000", "10.0.0.1:8001", "10.0.0.1:8002")
    assert found.cells[1].standby == GatewayAddress("10.0.0.3:8000", "10.0.0.3:8001")
    assert [cell.name for cell in found.complete_cells] == ["cell1"]


def test_a_weight_of_zero_takes_a_cell_out(tmp_path: Path) -> None:
    found = front(tmp_path, FRONT.replace("{traffic: 1}", "{traffic: 0, faces: 1}"))
    assert [cell.name for cell in found.cells_of("traffic")] == ["cell1"]
    assert [cell.name for cell in found.cells_of("faces")] == ["cell1", "cell2"]


def test_settings_towards_clients_are_those_of_an_edge(tmp_path: Path) -> None:
    for name in ("front.pem", "front.key", "keys.txt"):
        (tmp_path / name).touch()
    more = "  tls: {cert: front.pem, key: front.key}\n  api_keys: keys.txt\n  limits: {body_mib: 8}\n"
    edge = front(tmp_path, FRONT + more).edge
    assert edge.tls is not None and edge.tls.cert == str(tmp_path / "front.pem")
    assert edge.api_keys == str(tmp_path / "keys.txt")
    assert edge.limits == EdgeLimits(body_mib=8, queue_s=0)


def test_gateways_may_be_reached_with_tls(tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    more = "  gateway_tls: {ca: ca.pem, server_name: gateway.example, cert: cert.pem, key: key.pem}\n"
    found = front(tmp_path, FRONT + more).gateway_tls
    assert found is not None and found.name_of("10.0.0.1") == "gateway.example"
    assert (found.ca, found.cert, found.key) == tuple(
        str(tmp_path / name) for name in ("ca.pem", "cert.pem", "key.pem")
    )
    named = FRONT.replace("10.0.0.", "gateway")
    by_host = front(tmp_path, named + "  gateway_tls: {ca: ca.pem}\n").gateway_tls
    assert by_host is not None and by_host.name_of("gateway1") == "gateway1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("name: cell2", "name: cell1"), "front.yaml:11: cell 'cell1' is repeated; the first is on line 6"),
        (("10.0.0.2:8000", "10.0.0.2"), "is '10.0.0.2', not a host and a port; write, for example, http: "),
        (("10.0.0.2:8000", "10.0.0.2:70000"), "front.yaml:12: '10.0.0.2:70000' has no valid port"),
        (("10.0.0.2:8001", "10.0.0.1:8001"), "two servers have the address 10.0.0.1:8001; the other is on line 8"),
        (("10.0.0.3:8000", "10.0.0.2:8000"), "two servers have the address 10.0.0.2:8000"),
        (("faces: 1", "faces: 0"), "all weights of the graph faces are 0"),
        (("weights: {traffic: 1}", "weights: {}"), "weights must not be empty"),
        (("weights: {traffic: 1}", "weights: {traffic: -1}"), "it must be at least 0"),
        (("grpc: 8001, metrics", "grpc: 8000, metrics"), "the front's ports are not distinct"),
        (("address: 0.0.0.0", "address: everywhere"), "'everywhere' is not an IPv4 address"),
        (("standby: {", "standby: {port: 1, "), "unknown key 'port'"),
        (("kind: Front", "kind: Cluster"), "it must be Front"),
        (("spec:\n", "spec:\n  api_keys: keys.txt\n"), "there is no file 'keys.txt'"),
        (("spec:\n", "spec:\n  gateway_tls: {ca: none.pem}\n"), "front.yaml:4: there is no file 'none.pem'"),
        (("spec:\n", "spec:\n  gateway_tls: {ca: a, cert: b}\n"), "cert and key belong together"),
        (
            ("spec:\n", "spec:\n  gateway_tls: {ca: a}\n"),
            "front.yaml:8: the certificate at 10.0.0.1:8000 cannot be verified, because HAProxy compares names alone; "
            "write the name in the certificate as gateway_tls.server_name",
        ),
    ],
)
def test_a_mistake_names_its_line_and_a_remedy(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    assert change[0] in FRONT
    with pytest.raises(SpecError) as error:
        front(tmp_path, FRONT.replace(*change))
    assert message in str(error.value)
