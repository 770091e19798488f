"""Compares the generated configuration with golden files. To update them: JIGSAW_GOLDEN=write pytest THIS_FILE."""

import os
from pathlib import Path

import pytest

from jigsaw_triton.gpus.gateway import Edge, EdgeLimits, EdgeTls, GatewayPorts
from jigsaw_triton.servers.edge.config import LUA, files, links
from jigsaw_triton.servers.edge.keys import ApiKey
from jigsaw_triton.servers.haproxy.config import CONFIG, Place

GOLDEN = Path(__file__).parent / "golden"
PORTS = GatewayPorts(8000, 8001, 8002, "0.0.0.0")
PLACE = Place(Path("/run/edge"))
TLS = EdgeTls("/etc/ssl/edge.pem", "/etc/ssl/edge.key", "/etc/ssl/clients.pem")
KEYS = (ApiKey("alice", "a1" * 32), ApiKey("bob", "b2" * 32))
LIMITS = EdgeLimits(body_mib=8, connections=100, client_connections=5, client_rps=20, queue_s=3)


@pytest.mark.parametrize(
    ("name", "edge", "keys"),
    [
        ("plain", Edge(), None),
        ("logged", Edge(access_log="all"), None),
        ("guarded", Edge(tls=TLS, api_keys="/etc/keys", limits=LIMITS, access_log="none"), KEYS),
    ],
)
def test_the_configuration_equals_the_golden_file(name: str, edge: Edge, keys: tuple[ApiKey, ...] | None) -> None:
    found = files(edge, PORTS, PLACE, keys)
    text = found[CONFIG].replace(str(LUA), "/package/edge.lua")
    golden = GOLDEN / f"{name}.cfg"
    if os.environ.get("JIGSAW_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()
    named = {word.rpartition("/")[2] for word in text.split() if word.startswith("/run/edge/")}
    made = {*found, *links(edge), "admin.sock"}
    assert {name for name in named if not name.startswith(("live.", "hold."))} <= made


def test_keys_are_written_as_digests() -> None:
    assert files(Edge(), PORTS, PLACE, KEYS)["keys.map"] == f"{'a1' * 32} alice\n{'b2' * 32} bob\n"
    assert "keys.map" not in files(Edge(), PORTS, PLACE, None)


def test_private_keys_are_linked_and_not_copied() -> None:
    assert links(Edge(tls=TLS)) == {"tls.pem": TLS.cert, "tls.pem.key": TLS.key, "client_ca.pem": TLS.client_ca}
    assert links(Edge(tls=EdgeTls("/c", "/k"))) == {"tls.pem": "/c", "tls.pem.key": "/k"}
    assert links(Edge()) == {}


def test_connections_are_limited_by_the_files_that_may_be_open() -> None:
    text = files(Edge(), PORTS, Place(Path("/run/edge"), files=4096), None)[CONFIG]
    assert "    maxconn 480\n" in text
    assert "    maxconn 1920\n" in text


def test_errors_have_a_retry_after_header_if_a_retry_may_succeed() -> None:
    found = files(Edge(), PORTS, PLACE, None)
    assert found["http.503"].startswith("HTTP/1.1 503 Service Unavailable\r\n")
    assert "\r\nRetry-After: 1\r\n" in found["http.503"]
    assert found["grpc.503"].startswith("HTTP/1.1 200 OK\r\n")
    assert "\r\ngrpc-status: 14\r\n" in found["grpc.503"]
    assert "Retry-After" not in found["http.413"]
