"""Compares the generated configuration with a golden file. To update it: JIGSAW_GOLDEN=write pytest THIS_FILE."""

import os
from pathlib import Path

from jigsaw_triton.front.config import files, state_of
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
5 http.traffic 4 cell2.last 10.0.0.7 2 0 1 1 9 15 3 4 6 0 0 0 gateway.example 8000 - 0 0 - - 0
"""


def test_states_of_servers_at_their_addresses_are_kept(tmp_path: Path) -> None:
    made = front(tmp_path, FRONT.replace('http: "10.0.0.3:8000"', "http: gateway.example:8000"))
    begin, cell1, grpc, standby, last = (
        "".join(STATES.splitlines(keepends=True)[first:end]) for first, end in ((0, 2), (2, 3), (3, 4), (4, 5), (5, 6))
    )
    assert state_of(made, STATES) == begin + cell1 + grpc + last
    assert state_of(front(tmp_path), STATES) == begin + cell1 + grpc + standby
    moved = front(tmp_path, FRONT.replace("10.0.0.1:8000", "10.0.0.1:9000"))
    assert state_of(moved, STATES) == begin + grpc + standby
