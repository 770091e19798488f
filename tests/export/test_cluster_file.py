from typing import Any

import pytest
import yaml

from jigsaw_triton.export.cluster_file import cluster_file
from jigsaw_triton.spec.cluster_schema import ClusterDocument


def document(**spec: Any) -> ClusterDocument:
    nodes = [{"name": name, "gpus": [{"model": "A30", "count": 2}]} for name in ("a", "b")]
    return ClusterDocument.model_validate(
        {"apiVersion": "jigsaw-triton/v1", "kind": "Cluster", "spec": {"nodes": nodes, **spec}}
    )


def spec_of(text: str) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(text)["spec"]
    return spec


def test_settings_stay_and_the_gateway_listens_to_other_containers() -> None:
    given = document(processes="mps", gateway={"http": 9000, "address": "10.0.0.1"})
    made = cluster_file(given, driver="nvml", edge_folder="/edge")
    again = ClusterDocument.model_validate(yaml.safe_load(made.text))
    assert again.spec.nodes == given.spec.nodes
    assert again.spec.processes == "mps"
    assert again.spec.driver == "nvml"
    assert again.spec.gateway == given.spec.gateway.model_copy(update={"address": "0.0.0.0"})
    assert made.edge_files == {}


@pytest.mark.parametrize(
    ("edge", "files"),
    [
        ("haproxy", {}),
        ({"kind": "haproxy", "api_keys": "k.txt"}, {"api_keys": "k.txt"}),
        (
            {"kind": "haproxy", "tls": {"cert": "c.pem", "key": "/etc/k.pem", "client_ca": "clients.pem"}},
            {"cert.pem": "c.pem", "key.pem": "/etc/k.pem", "client_ca.pem": "clients.pem"},
        ),
    ],
)
def test_files_of_the_edge_are_named_and_not_contained(edge: Any, files: dict[str, str]) -> None:
    made = cluster_file(document(edge=edge), driver="nvml", edge_folder="/edge")
    assert made.edge_files == files
    written = spec_of(made.text)["edge"]
    assert written.pop("kind") == "haproxy"
    assert {*written.pop("tls", {}).values(), *written.values()} == {f"/edge/{name}" for name in files}


def test_each_node_has_the_address_of_its_agent() -> None:
    agents = {"a": "agent-a:7440", "b": "agent-b:7440"}
    made = cluster_file(document(), driver="nvml", edge_folder="/edge", agents=agents, certificates="/certificates")
    spec = spec_of(made.text)
    assert {node["name"]: node["agent"] for node in spec["nodes"]} == agents
    assert (spec["engine"], spec["certificates"]) == ("agents", "/certificates")
