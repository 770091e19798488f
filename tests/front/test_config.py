"""Compares the generated configuration with a golden file. To update it: JIGSAW_GOLDEN=write pytest THIS_FILE."""

import os
from pathlib import Path

from jigsaw_triton.front.config import addresses_in, files, links, state_of
from jigsaw_triton.servers.edge.config import LUA
from jigsaw_triton.servers.haproxy.config import CONFIG, Place
from tests.front.fronts import FRONT, front

GOLDEN = Path(__file__).parent / "golden" / "front.cfg"
PLACE = Place(Path("/run/front"))


def test_the_configuration_equals_the_golden_file(tmp_path: Path) -> None:
    found = files(front(tmp_path), PLACE, None)
    text = found[CONFIG].replace(str(LUA), "/package/edge.lua")
    if os.environ.get("JIGSAW_GOLDEN") == "write":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()
    named = {word.rpartition("/")[2] for word in text.split() if word.startswith("/run/front/")}
    assert named - {"servers.state", "admin.sock"} <= found.keys()


def test_errors_name_the_cells(tmp_path: Path) -> None:
    found = files(front(tmp_path), PLACE, None)
    assert "no cell has this model ready" in found["http.503"] and "no cell has this model ready" in found["grpc.503"]


STATES = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight ...
5 http.traffic 1 cell1 10.0.0.1 2 0 256 256 9 15 3 4 6 0 0 0 - 8000 - 0 0 - - 0
6 grpc.traffic 1 cell1 10.0.0.1 2 0 256 256 9 15 3 4 6 0 0 0 - 8001 - 0 0 - - 0
5 http.traffic 3 cell2.standby 10.0.0.3 2 0 0 0 9 15 3 4 6 0 0 0 - 8000 - 0 0 - - 0
5 http.traffic 4 cell2.last 10.0.0.7 2 0 1 1 9 15 3 4 6 0 0 0 - 8000 - 0 0 - - 0
5 http.traffic 5 cell9 10.0.0.9 2 0 1 1 9 15 3 4 6 0 0 0 - 8000 - 0 0 - - 0
"""


def test_states_of_servers_at_their_addresses_are_kept(tmp_path: Path) -> None:
    named = front(tmp_path, FRONT.replace('http: "10.0.0.3:8000"', "http: gateway.example:8000"))
    begin, cell1, grpc, standby, last = (
        "".join(STATES.splitlines(keepends=True)[first:end]) for first, end in ((0, 2), (2, 3), (3, 4), (4, 5), (5, 6))
    )
    assert state_of(named, STATES, {"gateway.example": "10.0.0.7"}) == begin + cell1 + grpc + last
    assert state_of(named, STATES) == begin + cell1 + grpc
    assert state_of(front(tmp_path), STATES) == begin + cell1 + grpc + standby
    moved = front(tmp_path, FRONT.replace("10.0.0.1:8000", "10.0.0.1:9000"))
    assert state_of(moved, STATES) == begin + grpc + standby


def test_addresses_of_hosts_are_those_that_haproxy_has(tmp_path: Path) -> None:
    named = front(tmp_path, FRONT.replace('standby: {http: "10.0.0.3:8000"', "standby: {http: gateway.example:8000"))
    states = "".join(line for line in STATES.splitlines(keepends=True) if "standby" not in line)
    assert addresses_in(named, states) == {"10.0.0.1": "10.0.0.1", "gateway.example": "10.0.0.7"}
    assert addresses_in(named, "") == addresses_in(named, "not a state") == {}


def test_a_server_has_the_address_of_its_host(tmp_path: Path) -> None:
    made = front(tmp_path, FRONT.replace("10.0.0.2:8000", "gateway.example:8000"))
    for addresses, address in (({}, "gateway.example:8000"), ({"gateway.example": "::7"}, "[::7]:8000")):
        assert (
            f"\n    server cell2 {address} weight 85 tcp-ut 2000ms init-addr none check "
            in (files(made, PLACE, None, addresses)[CONFIG])
        )


def test_gateways_are_verified_over_both_protocols(tmp_path: Path) -> None:
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (tmp_path / name).touch()
    named = FRONT.replace("10.0.0.", "gateway")
    made = front(tmp_path, named + "  gateway_tls: {ca: ca.pem, cert: cert.pem, key: key.pem}\n")
    text = files(made, PLACE, None)[CONFIG]
    servers = [line for line in text.splitlines() if line.startswith("    server ")]
    assert len(servers) > 4
    for line in servers:
        host = line.split()[2].partition(":")[0]
        security = "ssl crt /run/front/front.pem ca-file /run/front/gateways.pem verify required"
        assert f" {security} verifyhost {host} sni str({host}) alpn " in line
    assert all(("alpn h2" in line) == (":8001" in line) for line in servers)
    assert links(made) == {
        "gateways.pem": str(tmp_path / "ca.pem"),
        "front.pem": str(tmp_path / "cert.pem"),
        "front.pem.key": str(tmp_path / "key.pem"),
    }
