"""Compares both configurations with golden files. To update them: JIGSAW_GOLDEN=write pytest THIS_FILE."""

import os
from pathlib import Path

from jigsaw_triton.servers.certificates.credentials import Credentials
from jigsaw_triton.servers.haproxy.config import CONFIG, Place
from jigsaw_triton.servers.transport.config import LUA, Link, Node, credential_links, gateway_files, node_files

GOLDEN = Path(__file__).parent / "golden"
PLACE = Place(Path("/run/t"))
CREDENTIALS = Credentials(Path("/etc/cert.pem"), Path("/etc/key.pem"), Path("/etc/ca.pem"))
NODES = (Node("b", "fd00::2", 9000), Node("a", "gpu-a.example", 9000, "gpu-a.example"))


def link(worker: str, node: str, incarnation: str = "1") -> Link:
    return Link(worker, node, incarnation, Path(f"/run/workers/{worker}.sock"))


def same_as_golden(name: str, files: dict[str, str]) -> None:
    text, golden = files[CONFIG].replace(str(LUA), "/package/node.lua"), GOLDEN / f"{name}.cfg"
    if os.environ.get("JIGSAW_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()
    read = {word for word in text.split() if word.startswith("/run/t/") and "sock" not in word}
    assert read == {f"/run/t/{file}" for file in (*files, *credential_links(CREDENTIALS))} - {
        f"/run/t/{CONFIG}",
        "/run/t/node.pem.key",
    }


def test_the_configuration_of_a_node_equals_the_golden_file() -> None:
    workers = {"b-0-1g-0": Path("/run/workers/b-0-1g-0.sock"), "steps": Path("/run/workers/steps.sock")}
    same_as_golden("node", node_files("b", "::", 9000, workers, Path("/run/agent.sock"), PLACE))


def test_the_configuration_of_a_gateway_equals_the_golden_file() -> None:
    links = (link("b-0-1g-1", "b"), link("b-0-1g-0", "b", "7"))
    same_as_golden("gateway", gateway_files(NODES, links, PLACE))


def test_the_order_of_nodes_and_links_is_no_change() -> None:
    links = [link(f"w{n}", "a") for n in range(5)]
    assert gateway_files(NODES, links, PLACE) == gateway_files(NODES[::-1], links[::-1], PLACE)


def test_an_incarnation_has_a_path_of_its_own() -> None:
    paths = {one.bound(PLACE) for one in (link("w", "a"), link("w", "a", "2"), link("w", "b"), link("v", "a"))}
    assert len(paths) == 4
    assert all(len(path.name) == 16 for path in paths)
