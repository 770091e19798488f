import json
import shlex
from dataclasses import replace
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
import yaml

from jigsaw_triton.export.cluster_file import ClusterFile
from jigsaw_triton.export.compose import Container, compose_file

ODD = '/srv/a b $HOME ${x} : "q" \\ ;#'

CONTAINER = Container(
    image="registry.example/jigsaw:1",
    graphs={"hello": (ODD, "graph.yaml")},
    cluster=ClusterFile("kind: Cluster # costs $5\n"),
    edge_paths={},
    ports=(8000, 8001, 8002),
    address="127.0.0.1",
    driver="nvml",
    demand={"hello": 2.0},
)
EDGE = replace(CONTAINER, edge_paths={"cert.pem": ODD, "key.pem": "/etc/key.pem"}, driver="emulated")


def read(container: Container) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(compose_file(container))
    return document


def service(container: Container) -> dict[str, Any]:
    (found,) = read(container)["services"].values()
    assert isinstance(found, dict)
    return found


def interpolated(text: str) -> str:
    """Returns a text as Compose reads it: $$ is a dollar sign, and another one begins a variable."""
    assert "$" not in text.replace("$$", "")
    return text.replace("$$", "$")


def schema() -> Any:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed (extra dev)")
    folder = files("check_jsonschema") / "builtin_schemas" / "vendor"
    return json.loads((folder / "compose-spec.json").read_text())


@pytest.mark.parametrize("container", [CONTAINER, EDGE])
def test_the_compose_specification_accepts_the_file(container: Container) -> None:
    jsonschema.validate(read(container), schema())


def test_the_compose_specification_refuses_an_unknown_field() -> None:
    document = read(CONTAINER)
    document["services"]["jigsaw-triton"]["comand"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema())


def test_paths_arrive_as_they_are() -> None:
    (bind,) = [volume for volume in service(EDGE)["volumes"] if volume["type"] == "bind"]
    assert interpolated(bind["source"]) == ODD
    assert bind["read_only"] is True
    assert interpolated(read(EDGE)["secrets"]["cert.pem"]["file"]) == ODD
    assert interpolated(read(EDGE)["configs"]["cluster"]["content"]) == EDGE.cluster.text


def test_the_container_deploys_in_the_foreground() -> None:
    command = service(CONTAINER)["command"]
    assert command[:3] == ["jigsaw-triton", "deploy", "/srv/jigsaw-triton/hello/graph.yaml"]
    assert "--yes" in command and "--detach" not in command
    assert service(CONTAINER)["init"] is True
    assert service(CONTAINER)["stop_grace_period"] == "3m"


def test_the_comment_has_the_command_of_an_update() -> None:
    line = next(line for line in compose_file(CONTAINER).splitlines() if "compose exec" in line)
    words = shlex.split(line.removeprefix("#"))
    assert words[:4] == ["docker", "compose", "exec", "jigsaw-triton"]
    assert words[4:] == [*service(CONTAINER)["command"], "--detach"]


def test_only_mig_needs_privilege() -> None:
    real, emulated = service(CONTAINER), service(EDGE)
    assert real["privileged"] is True
    assert real["environment"]["NVIDIA_MIG_CONFIG_DEVICES"] == "all"
    (device,) = real["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"]) == ("nvidia", "all")
    assert "privileged" not in emulated and "deploy" not in emulated
    assert emulated["cap_drop"] == ["ALL"]
    assert not [name for name in emulated["environment"] if name.startswith("NVIDIA")]
    assert "is privileged" in compose_file(CONTAINER) and "is privileged" not in compose_file(EDGE)


def test_ports_are_published_where_the_cluster_says() -> None:
    ports = service(CONTAINER)["ports"]
    assert [(port["host_ip"], port["published"], port["target"]) for port in ports] == [
        ("127.0.0.1", str(number), number) for number in CONTAINER.ports
    ]


def test_secrets_are_files_of_the_host() -> None:
    assert service(EDGE)["secrets"] == list(EDGE.edge_paths)
    assert read(EDGE)["secrets"].keys() == EDGE.edge_paths.keys()
    assert "secrets" not in read(CONTAINER)
