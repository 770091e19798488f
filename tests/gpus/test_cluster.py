from dataclasses import replace
from pathlib import Path

import pytest

from jigsaw_triton.errors import SpecError
from jigsaw_triton.gpus.catalog import CATALOG
from jigsaw_triton.gpus.cluster import build_cluster
from jigsaw_triton.gpus.gateway import (
    Edge,
    EdgeLimits,
    EdgeTls,
    GatewayLimits,
    GatewayPorts,
    Otlp,
    ServerImage,
    StandbyGateway,
)
from jigsaw_triton.gpus.model import Agents, Cluster, Placement, RayCluster, Survive
from jigsaw_triton.spec.load import load_cluster, parse_gpus
from tests.fakes.documents import CLUSTER, edited, line_of


def built(text: str, folder: Path) -> Cluster:
    (folder / "cluster.yaml").write_text(text)
    return build_cluster(load_cluster(folder), CATALOG)


def test_gpus_are_numbered_by_node_and_sorted(tmp_path: Path) -> None:
    cluster = built(CLUSTER, tmp_path)
    assert [(str(gpu.id), gpu.board.name) for gpu in cluster.gpus] == [
        ("a/0", "H100-80GB"),
        ("a/1", "A100-80GB"),
        ("a/2", "A100-80GB"),
        ("b/0", "A100-80GB"),
        ("b/1", "A100-80GB"),
    ]
    assert cluster.gateway == GatewayPorts(9000, 9001, 9002, "127.0.0.1")
    assert cluster.agents is None


def test_the_document_sets_the_export_of_traces(tmp_path: Path) -> None:
    assert built(CLUSTER, tmp_path).otlp is None
    gateway = "gateway: {otlp: {endpoint: 'http://collector:4318/'}, http: 9000"
    otlp = built(edited(CLUSTER, ("gateway: {http: 9000", gateway)), tmp_path).otlp
    assert otlp == Otlp("http://collector:4318/", 0.01)
    assert otlp.url == "http://collector:4318/v1/traces"


@pytest.mark.parametrize("endpoint", ["grpc://collector", "grpcs://[::1]:4317/", "http://collector:4317/v1/traces"])
def test_an_address_with_its_protocol_is_left_as_it_is(tmp_path: Path, endpoint: str) -> None:
    gateway = f"gateway: {{otlp: {{endpoint: '{endpoint}'}}, http: 9000"
    otlp = built(edited(CLUSTER, ("gateway: {http: 9000", gateway)), tmp_path).otlp
    assert otlp is not None
    assert otlp.url == endpoint.rstrip("/")


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("localhost:4318", "'localhost:4318' is not an http, https, grpc or grpcs address"),
        ("ftp://localhost:4317", "is not an http, https, grpc or grpcs address"),
        ("grpc://localhost/v1/traces", "'grpc://localhost/v1/traces' has a path"),
        ("http://collector:4317", r"port 4317 is that of OTLP over gRPC(?s:.)*write grpc://collector:4317 for gRPC"),
        ("https://[::1]:4317/", r"port 4317 is that of OTLP over gRPC(?s:.)*write grpcs://\[::1\]:4317 for gRPC"),
        ("http://", "is not an http, https, grpc or grpcs address"),
        ("http://host:99999", "is not an http, https, grpc or grpcs address"),
        ("http://host/?key=1", "is not an http, https, grpc or grpcs address"),
        ("http://a b", "is not an http, https, grpc or grpcs address"),
        ("http://user:word@host", "the address of the receiver contains credentials"),
    ],
)
def test_an_endpoint_that_cannot_be_used_is_refused(tmp_path: Path, endpoint: str, message: str) -> None:
    gateway = f"gateway: {{otlp: {{endpoint: '{endpoint}'}}, http: 9000"
    with pytest.raises(SpecError, match=message):
        built(edited(CLUSTER, ("gateway: {http: 9000", gateway)), tmp_path)


def test_a_document_without_a_driver_gets_the_given_driver() -> None:
    loaded = parse_gpus("A100-80GB")
    assert build_cluster(loaded, CATALOG).driver == "emulated"
    assert build_cluster(loaded, CATALOG, driver="nvml").driver == "nvml"


def test_the_document_sets_driver_image_and_processes(tmp_path: Path) -> None:
    assert built(edited(CLUSTER, ("engine: local", "driver: nvml")), tmp_path).driver == "nvml"
    assert built(CLUSTER, tmp_path).image is None
    imaged = edited(CLUSTER, ("engine: local", "server: {image: 'nvcr.io/x/y:24.10-py3', runtime: podman}"))
    assert built(imaged, tmp_path).image == ServerImage("nvcr.io/x/y:24.10-py3", "podman")
    assert built(CLUSTER, tmp_path).processes == "streams"
    assert built(edited(CLUSTER, ("engine: local", "processes: mps")), tmp_path).processes == "mps"


AGENTS = """\
apiVersion: jigsaw-triton/v1
kind: Cluster
spec:
  engine: agents
  certificates: certs
  nodes:
    - {name: a, agent: "10.0.0.1:7440", gpus: [{model: A100-80GB}]}
    - {name: b, agent: "[fd00::1]:7440", gpus: [{model: A100-80GB}]}
"""


def certificates(folder: Path) -> Path:
    (folder / "certs").mkdir()
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (folder / "certs" / name).touch()
    return folder / "certs"


def test_the_document_names_agents(tmp_path: Path) -> None:
    folder = certificates(tmp_path)
    cluster = built(AGENTS, tmp_path)
    assert cluster.agents == Agents((("a", "10.0.0.1:7440"), ("b", "[fd00::1]:7440")), str(folder))
    assert cluster.driver == "nvml"
    assert built(AGENTS.replace("A100-80GB", "cpu"), tmp_path).driver == "emulated"
    assert (
        built(edited(AGENTS, ("engine: agents", "engine: agents\n  driver: emulated")), tmp_path).driver == "emulated"
    )


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        ((', agent: "[fd00::1]:7440"', ""), "name: b", "node 'b' has no agent"),
        (("[fd00::1]:7440", "10.0.0.1:7440"), "name: b", "two nodes have the agent 10.0.0.1:7440"),
        (("[fd00::1]:7440", "[fd00::1]:74400"), "name: b", "there is no port 74400"),
        (("name: b", "name: local"), "name: local", "'local' is the controller's own machine"),
        (
            ("name: b", "name: controller"),
            "name: controller",
            "'controller' is the name in the controller's certificate, whose owner may command all agents",
        ),
        (("engine: agents", "ray: {}\n  engine: agents"), "ray:", "this belongs to the engine `ray`"),
        (("engine: agents", "engine: local"), "certificates", "this belongs to the engines `agents` and `ray`"),
        (("  certificates: certs\n", ""), "spec", "the engine `agents` needs `certificates`"),
        (("certs", "elsewhere"), "certificates", "the folder 'elsewhere' has no cert.pem, key.pem, ca.pem"),
    ],
)
def test_mistakes_about_agents_are_reported_with_their_line(
    tmp_path: Path, change: tuple[str, str], line: str, message: str
) -> None:
    certificates(tmp_path)
    text = AGENTS.replace(*change)
    with pytest.raises(SpecError) as caught:
        built(text, tmp_path)
    assert (message, line_of(text, line)) in {(d.message, d.line) for d in caught.value.diagnostics}


RAY = """\
apiVersion: jigsaw-triton/v1
kind: Cluster
spec:
  engine: ray
  nodes:
    - {name: a, gpus: [{model: A100-80GB}]}
    - {name: b, agent: "gpu-b:7441", gpus: [{model: A100-80GB}]}
"""


def test_the_document_leaves_addresses_and_certificates_to_ray(tmp_path: Path) -> None:
    cluster = built(RAY, tmp_path)
    assert cluster.agents is not None
    assert cluster.agents == Agents((("a", ""), ("b", "gpu-b:7441")), "", RayCluster())
    assert (cluster.agents.engine, cluster.driver, cluster.gateway_node) == ("ray", "nvml", "local")
    folder = certificates(tmp_path)
    settings = "engine: ray\n  certificates: certs\n  ray: {address: 'ray://h:1', port: 7000, state: /s}"
    assert built(edited(RAY, ("engine: ray", settings)), tmp_path).agents == replace(
        cluster.agents, certificates=str(folder), ray=RayCluster("ray://h:1", 7000, "/s")
    )


@pytest.mark.parametrize("address", ["10.0.0.1", ":7440", "a b:7440", "10.0.0.1:0", "fd00::1:7440:", "x:70000000"])
def test_malformed_addresses_of_agents_are_refused(tmp_path: Path, address: str) -> None:
    certificates(tmp_path)
    with pytest.raises(SpecError, match="agent"):
        built(edited(AGENTS, ("10.0.0.1:7440", address)), tmp_path)


def test_the_document_sets_the_edge(tmp_path: Path) -> None:
    def edge(text: str) -> Edge | None:
        return built(edited(CLUSTER, ("engine: local", f"edge: {text}")), tmp_path).edge

    assert built(CLUSTER, tmp_path).edge is None
    assert edge("none") is None
    assert edge("haproxy") == Edge()
    for name in ("edge.pem", "edge.key", "keys"):
        (tmp_path / name).touch()
    tls = f"{{cert: edge.pem, key: {tmp_path / 'edge.key'}}}"
    assert edge(f"{{kind: haproxy, tls: {tls}, api_keys: keys, limits: {{queue_s: 5}}, metrics: 9003}}") == Edge(
        tls=EdgeTls(str(tmp_path / "edge.pem"), str(tmp_path / "edge.key")),
        api_keys=str(tmp_path / "keys"),
        limits=EdgeLimits(queue_s=5),
        metrics=9003,
    )


@pytest.mark.parametrize(
    ("entry", "standby"),
    [
        ("b", StandbyGateway("b", "127.0.0.1")),
        ("{node: a, address: 10.0.0.1}", StandbyGateway("a", "10.0.0.1")),
    ],
)
def test_the_document_names_the_standby_gateway(tmp_path: Path, entry: str, standby: StandbyGateway) -> None:
    with_standby = edited(AGENTS, ("engine: agents", f"engine: agents\n  gateway: {{standby: {entry}}}"))
    certificates(tmp_path)
    assert built(with_standby, tmp_path).standby_gateway == standby


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("c", "the cluster has no node 'c'"),
        ("{node: a, address: somewhere}", "'somewhere' is not an IPv4 address"),
    ],
)
def test_mistakes_about_the_standby_gateway_are_refused(tmp_path: Path, entry: str, words: str) -> None:
    with_standby = edited(AGENTS, ("engine: agents", f"engine: agents\n  gateway: {{standby: {entry}}}"))
    certificates(tmp_path)
    with pytest.raises(SpecError, match=words):
        built(with_standby, tmp_path)


def test_a_standby_gateway_needs_agents(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="a standby gateway needs the engine `agents`"):
        built(edited(CLUSTER, ("http: 9000", "http: 9000, standby: a")), tmp_path)


def test_the_document_sets_the_image_and_memory_of_the_gateway(tmp_path: Path) -> None:
    cluster = built(edited(CLUSTER, ("http: 9000", "http: 9000, image: 'x/y:25.08', memory_mib: 1024")), tmp_path)
    assert (cluster.gateway_image, cluster.gateway_memory_mib) == (ServerImage("x/y:25.08"), 1024)


def test_the_document_says_what_a_gateway_carries(tmp_path: Path) -> None:
    cluster = built(edited(CLUSTER, ("http: 9000", "http: 9000, processors: 8, workers: 40")), tmp_path)
    assert (cluster.gateway_limits.processors, cluster.gateway_limits.workers) == (8, 40)
    assert built(CLUSTER, tmp_path).gateway_limits == GatewayLimits()


@pytest.mark.parametrize(
    ("edit", "place", "words"),
    [
        (("H100-80GB", "H100-81GB"), "H100", "there is no GPU model 'H100-81GB'; did you mean 'H100-80GB'?"),
        (("H100-80GB", "zzz"), "zzz", "there is no GPU model 'zzz'; known models: "),
        (("- name: a", "- name: b"), "- name: b\n      gpus:\n", "node 'b' is repeated; the first is on line 6"),
        (("grpc: 9001", "grpc: 9000"), "gateway", "not distinct: http 9000, grpc 9000, metrics 9002"),
        (("http: 9000", "address: somewhere"), "gateway", "'somewhere' is not an IPv4 address; write 127.0.0.1"),
        (("engine: local", "edge: nginx"), "edge", "spec.edge.kind is 'nginx'; it must be haproxy"),
        (("engine: local", "edge: {kind: haproxy, metrics: 9002}"), "edge", "port 9002 is already used by the gateway"),
        (("engine: local", "edge: {kind: haproxy, api_keys: none.txt}"), "edge", "there is no file 'none.txt'"),
        (
            ("engine: local", "edge: {kind: haproxy, limits: {queue: 1}}"),
            "edge",
            "unknown key 'queue' in spec.edge.limits; did you mean 'queue_s'?",
        ),
        (
            ("[{model: A100-80GB, count: 2}]", "[{model: A100-80GB, count: 16384}]"),
            "nodes",
            "the cluster has 16387 GPUs; at most 16384 are supported",
        ),
    ],
)
def test_a_mistake_is_reported_with_its_line(tmp_path: Path, edit: tuple[str, str], place: str, words: str) -> None:
    text = edited(CLUSTER, edit)
    line = 8 if "repeated" in words else line_of(text, place)
    with pytest.raises(SpecError) as caught:
        built(text, tmp_path)
    (problem,) = caught.value.diagnostics
    assert str(problem).startswith(f"{tmp_path}/cluster.yaml:{line}: ")
    assert words in str(problem)


def test_the_document_sets_labels_of_nodes_and_the_loss_to_survive(tmp_path: Path) -> None:
    racks = (
        ("count: 2}]\n", "count: 2}]\n      topology: {rack: r1}\n"),
        ("- name: a", "- name: a\n      topology: {rack: r2}"),
    )
    cluster = built(edited(CLUSTER, *racks, ("engine: local", "survive: {loss_of: rack, share: 0.7}")), tmp_path)
    assert cluster.topology == {"a": {"rack": "r2"}, "b": {"rack": "r1"}}
    assert cluster.survive == Survive("rack", 0.7)
    assert built(edited(CLUSTER, ("engine: local", "survive: node")), tmp_path).survive == Survive("node", 0.5)
    assert built(CLUSTER, tmp_path).survive is None


@pytest.mark.parametrize(
    ("edits", "line", "words"),
    [
        (
            [("engine: local", "survive: rack")],
            8,
            "node 'a' has no label 'rack', whose loss plans must survive; add `top",
        ),
        ([("engine: local", "survive: {loss_of: node, share: 0}")], 4, "spec.survive.share"),
        ([("engine: local", "survive: {loss_of: node, share: 1.5}")], 4, "spec.survive.share"),
        ([("engine: local", "survive: 3")], 4, "spec.survive"),
        (
            [("- name: a", "- {name: c, topology: {node: x}, gpus: [{model: A100-80GB}]}\n    - name: a")],
            8,
            "'node' is no",
        ),
    ],
)
def test_a_mistake_in_the_loss_to_survive_is_reported_with_its_line(
    tmp_path: Path, edits: list[tuple[str, str]], line: int, words: str
) -> None:
    text = edited(CLUSTER, *edits)
    if "survive: rack" in text:
        text = edited(text, ("count: 2}]\n", "count: 2}]\n      topology: {rack: r1}\n"))
        line += 1
    with pytest.raises(SpecError) as caught:
        built(text, tmp_path)
    (problem,) = caught.value.diagnostics
    assert str(problem).startswith(f"{tmp_path}/cluster.yaml:{line}: ")
    assert words in str(problem)


def test_the_gateway_is_on_the_node_local_or_else_on_the_first(tmp_path: Path) -> None:
    assert built(CLUSTER, tmp_path).gateway_node == "b"
    assert built(edited(CLUSTER, ("- name: a", "- name: local")), tmp_path).gateway_node == "local"


PRICED = edited(
    CLUSTER,
    ("[{model: A100-80GB, count: 2}]", "[{model: A100-80GB, count: 2, cost: 2.5}]"),
    ("{model: H100-80GB}", "{model: H100-80GB, cost: 4}"),
    ("- {model: A100-80GB, count: 2}", "- {model: A100-80GB, cost: 2.5, count: 2}"),
)
"""The cluster with a cost of each GPU."""


def test_the_document_sets_the_cost_of_gpus(tmp_path: Path) -> None:
    assert [gpu.cost for gpu in built(PRICED, tmp_path).gpus] == [4.0, 2.5, 2.5, 2.5, 2.5]
    assert {gpu.cost for gpu in built(CLUSTER, tmp_path).gpus} == {None}


@pytest.mark.parametrize(
    ("edit", "place", "words"),
    [
        (
            (", cost: 4}", "}"),
            "H100",
            "have no cost, but others have one on line 7; give the cost per hour of",
        ),
        (
            ("cost: 2.5, count", "cost: 3, count"),
            "cost: 3",
            "A100-80GB cost 3 here, but 2.5 on line 7; give all GPUs of a",
        ),
        (("cost: 4", "cost: 0"), "H100", "cost"),
        (("cost: 4", "cost: -1"), "H100", "cost"),
        (("cost: 4", "cost: cheap"), "H100", "cost"),
    ],
)
def test_a_mistake_in_a_cost_is_reported_with_its_line(
    tmp_path: Path, edit: tuple[str, str], place: str, words: str
) -> None:
    text = edited(PRICED, edit)
    with pytest.raises(SpecError) as caught:
        built(text, tmp_path)
    (problem,) = caught.value.diagnostics
    assert str(problem).startswith(f"{tmp_path}/cluster.yaml:{line_of(text, place)}: ")
    assert words in str(problem)


def test_the_document_lists_instances_of_others(tmp_path: Path) -> None:
    foreign = "foreign: [{slice: 3g, start: 4}, {slice: 1g+me, start: 0}]"
    cluster = built(edited(CLUSTER, ("[{model: A100-80GB, count: 2}]", f"[{{model: A100-80GB, {foreign}}}]")), tmp_path)
    assert [gpu.foreign for gpu in cluster.gpus[-1:]] == [(Placement(0, "1g+me"), Placement(4, "3g"))]
    assert all(gpu.foreign == () for gpu in cluster.gpus[:-1])


def test_impossible_instances_of_others_are_reported_with_their_line(tmp_path: Path) -> None:
    wrong = (
        "{model: H100-80GB, foreign: [{slice: 2g, start: 2},\n          {slice: 3g, start: 0}, {slice: 5g, start: 0}]}"
    )
    text = edited(CLUSTER, ("{model: H100-80GB}", wrong))
    with pytest.raises(SpecError) as caught:
        built(text, tmp_path)
    line = line_of(text, "5g")
    assert [str(problem).split("cluster.yaml:")[1].split(";")[0] for problem in caught.value.diagnostics] == [
        f"{line}: this instance cannot be there: 3g@0 overlaps 2g@2",
        f"{line}: this instance cannot be there: H100-80GB has no slice 5g (it has 1g, 1gx2, 2g, 3g, 4g, 7g)",
    ]


def test_structural_and_semantic_errors_are_reported_together(tmp_path: Path) -> None:
    text = edited(CLUSTER, ("engine: local", "engine: rayy"), ("H100-80GB", "H100-81GB"), ("http: 9000", "http: 9001"))
    with pytest.raises(SpecError) as caught:
        built(text, tmp_path)
    assert len(caught.value.diagnostics) == 3


def test_an_unknown_model_on_the_command_line_is_refused() -> None:
    with pytest.raises(
        SpecError, match=r"^--gpus: there is no GPU model 'A100'; did you mean 'A100-40GB' or 'A100-80GB'"
    ):
        build_cluster(parse_gpus("4xA100"), CATALOG)
