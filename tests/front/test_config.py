"""Compares the generated configuration with a golden file. To update it: JIGSAW_GOLDEN=write pytest THIS_FILE."""

import os
from pathlib import Path

from jigsaw_triton.front.config import files
from jigsaw_triton.servers.edge.config import LUA
from jigsaw_triton.servers.haproxy.config import CONFIG, Place
from tests.front.fronts import front

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
