"""Checks of the input of exports, and their results for whole applications."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import jigsaw_triton as jt
from jigsaw_triton.errors import JigsawError, SpecError
from jigsaw_triton.export import systemd
from jigsaw_triton.export.marker import MARK
from tests.front.fronts import FRONT

IMAGE = "registry.example/jigsaw:1"
Change = Callable[..., Path]


@pytest.fixture
def cluster(tmp_path: Path) -> Change:
    """Writes a cluster.yaml with two nodes."""

    def write(nodes: tuple[str, ...] = ("a", "b"), **spec: Any) -> Path:
        path = tmp_path / "cluster.yaml"
        entries = [{"name": node, "gpus": [{"model": "A30-24GB", "count": 2}]} for node in nodes]
        document = {"apiVersion": "jigsaw-triton/v1", "kind": "Cluster", "spec": {"nodes": entries, **spec}}
        path.write_text(yaml.safe_dump(document))
        return path

    return write


def mistakes(caught: pytest.ExceptionInfo[SpecError]) -> str:
    return "\n".join(map(str, caught.value.diagnostics))


def manifests(files: dict[str, str]) -> list[dict[str, Any]]:
    return [made for text in files.values() for made in yaml.safe_load_all(text)]


def test_a_unit_names_absolute_paths_and_the_driver(app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(app.parent)
    (text,) = jt.export_systemd("app", gpus="2xA30-24GB", demand=3).values()
    (line,) = re.findall("^ExecReload=(.*)", text, re.MULTILINE)
    assert f" deploy {app} --gpus 2xA30-24GB --driver nvml --demand hello=3 " in line


@pytest.mark.parametrize(("home", "value"), [("home", "read-only"), ("opt", "yes")])
def test_the_service_sees_the_home_that_its_python_is_in(
    app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str, value: str
) -> None:
    monkeypatch.setattr(systemd, "_HOMES", (str(tmp_path / "home"),))
    python = tmp_path / home / "python3"
    python.parent.mkdir()
    python.touch()
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "python").symlink_to(python)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    (text,) = jt.export_systemd(app, gpus="2xcpu").values()
    assert f"ProtectHome={value}\n" in text
    assert f"ExecStart={tmp_path}/venv/python -m " in text


@pytest.mark.parametrize(("given", "driver"), [({"gpus": "2xcpu"}, "emulated"), ({"gpus": "2xA30-24GB"}, "nvml")])
def test_the_driver_is_that_of_the_gpus_and_not_of_this_machine(app: Path, given: Any, driver: str) -> None:
    (text,) = jt.export_systemd(app, **given).values()
    assert f"--driver {driver} " in text
    (text,) = jt.export_systemd(app, gpus="2xA30-24GB", driver="emulated").values()
    assert "--driver emulated " in text


def test_a_driver_in_the_cluster_stays(app: Path, cluster: Change) -> None:
    (text,) = jt.export_systemd(app, cluster=cluster(driver="emulated")).values()
    assert "--driver emulated " in text


@pytest.fixture
def agents(cluster: Change, tmp_path: Path) -> Path:
    """A cluster.yaml of one node with an agent."""
    folder = tmp_path / "certificates"
    folder.mkdir()
    for name in ("cert.pem", "key.pem", "ca.pem"):
        (folder / name).touch()
    path = cluster(("a",), engine="agents", certificates="certificates")
    document = yaml.safe_load(path.read_text())
    document["spec"]["nodes"][0]["agent"] = "10.0.0.1:7440"
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_unit_of_a_controller_of_agents_needs_no_gpu(
    app: Path, agents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "_HOMES", (str(tmp_path / "certificates"),))
    (text,) = jt.export_systemd(app, cluster=agents, program="/opt/bin/jigsaw-triton").values()
    assert "ExecStartPre" not in text and "--driver nvml" in text
    assert "ProtectHome=read-only" in text


def test_a_compose_file_cannot_have_agents(app: Path, agents: Path) -> None:
    with pytest.raises(SpecError) as caught:
        jt.export_compose(app, cluster=agents, image=IMAGE)
    assert "the container starts its workers itself, without agents" in mistakes(caught)


def test_every_file_begins_with_the_mark(app: Path, cluster: Change) -> None:
    found = [
        *jt.export_systemd(app, gpus="2xA30-24GB").values(),
        *jt.export_systemd_agent("a", certificates="c").values(),
        *jt.export_compose(app, gpus="2xA30-24GB", image=IMAGE).values(),
        *jt.export_kubernetes(app, cluster=cluster(), image=IMAGE).values(),
    ]
    assert len(found) > 6
    assert all(text.startswith(MARK + "\n") for text in found)


@pytest.mark.parametrize(
    ("export", "given", "message"),
    [
        (jt.export_systemd, {}, "no GPUs are given"),
        (jt.export_systemd, {"gpus": "2xA31"}, "there is no GPU model 'A31'"),
        (jt.export_systemd, {"gpus": "2xA30-24GB", "user": "a b"}, "'a b' is not the name of a user"),
        (jt.export_systemd, {"gpus": "2xA30-24GB", "demand": -1}, "-1 is not a number of requests a second"),
        (jt.export_systemd, {"gpus": "2xA30-24GB", "demand": {"x": 1}}, "there is no graph 'x'"),
        (jt.export_systemd, {"gpus": "2xA30-24GB", "program": "/o'pt/bin/x"}, "systemd runs no program whose path"),
        (jt.export_compose, {"gpus": "2xA30-24GB", "image": "-x"}, "'-x' is not the name of an image"),
        (jt.export_kubernetes, {"image": IMAGE, "namespace": "A"}, "the namespace 'A' is not a DNS label"),
        (jt.export_kubernetes, {"image": IMAGE, "storage": "lots"}, "'lots' is not a size"),
        (jt.export_kubernetes, {"image": IMAGE, "models": "a b"}, "the claim 'a b' is not a DNS name"),
        (jt.export_kubernetes, {"image": IMAGE, "runtime_class": "a b"}, "the RuntimeClass 'a b' is not a DNS name"),
        (jt.export_kubernetes, {"image": IMAGE, "gateway": "a/b/c"}, "the namespace 'a/b' is not a DNS label"),
        (jt.export_kubernetes, {"image": IMAGE, "gateway": "a/"}, "the Gateway '' is not a DNS name"),
        (jt.export_kubernetes, {"image": IMAGE, "hostnames": ["a.b"]}, "routes to a Gateway"),
        (jt.export_kubernetes, {"image": IMAGE, "gateway": "a", "hostnames": ["a b"]}, "host name 'a b' is not"),
    ],
)
def test_wrong_arguments_are_refused(app: Path, cluster: Change, export: Any, given: Any, message: str) -> None:
    given = given | ({"cluster": cluster()} if export is jt.export_kubernetes else {})
    with pytest.raises(SpecError) as caught:
        export(app, **given)
    assert message in mistakes(caught)
    assert all(diagnostic.hint for diagnostic in caught.value.diagnostics)


def test_all_mistakes_are_reported_at_once(app: Path, cluster: Change) -> None:
    (app / "graph.yaml").write_text((app / "graph.yaml").read_text().replace("latency_ms: 100", "latency_ms: -1"))
    with pytest.raises(SpecError) as caught:
        jt.export_kubernetes(app, cluster=cluster(("a", "a")), image="-x", namespace="X")
    found = mistakes(caught)
    assert "latency_ms" in found and "node 'a' is repeated" in found and "'-x'" in found and "'X'" in found


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (("Rack_1",), "the name of the node 'Rack_1' is not a DNS label"),
        (("x" * 60,), "is too long"),
        (("local",), "the node local would be the controller's own machine"),
    ],
)
def test_nodes_that_kubernetes_cannot_name_are_refused(
    app: Path, cluster: Change, nodes: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        jt.export_kubernetes(app, cluster=cluster(nodes), image=IMAGE)
    assert message in mistakes(caught)


def test_an_agent_needs_rights_only_for_mig() -> None:
    (real,) = jt.export_systemd_agent("a", certificates="/c").values()
    (emulated,) = jt.export_systemd_agent("a", certificates="/c", driver="emulated").values()
    command = " agent --name a --listen 0.0.0.0:7440 --certificates /c --state /var/lib/jigsaw-triton-agent\n"
    assert command in real and command in emulated
    assert "mig/config" in real and "mig/config" not in emulated


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"node": "a b"}, "'a b' is not the name of a node"),
        ({"listen": "7440"}, "'7440' is not an IP address with a port"),
        ({"certificates": "a\nb"}, "the path has control characters"),
    ],
)
def test_wrong_arguments_of_an_agent_are_refused(given: Any, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        jt.export_systemd_agent(**{"node": "a", "certificates": "/c", **given})
    assert message in mistakes(caught)


def test_the_unit_of_a_front_sees_the_files_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_HOMES", (str(tmp_path / "secret"),))
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "ca.pem").touch()
    (tmp_path / "front.yaml").write_text(FRONT)
    (text,) = jt.export_systemd_front(tmp_path / "front.yaml", program="/opt/bin/jigsaw-triton").values()
    assert f" front {tmp_path}/front.yaml --state /var/lib/jigsaw-triton-front\n" in text
    assert "ProtectHome=yes\n" in text and "AmbientCapabilities" not in text
    more = "  gateway_tls: {ca: secret/ca.pem, server_name: gateway.example}\n"
    (tmp_path / "front.yaml").write_text(FRONT.replace("http: 8000,", "http: 443,") + more)
    (text,) = jt.export_systemd_front(tmp_path, program="/opt/bin/jigsaw-triton").values()
    assert "ProtectHome=read-only\n" in text and "AmbientCapabilities=CAP_NET_BIND_SERVICE\n" in text


def test_mistakes_in_a_front_are_reported_with_those_of_the_unit(tmp_path: Path) -> None:
    (tmp_path / "front.yaml").write_text(FRONT.replace("cell2", "cell1"))
    with pytest.raises(SpecError) as caught:
        jt.export_systemd_front(tmp_path, user="a b")
    assert "'a b' is not the name of a user" in mistakes(caught) and "cell 'cell1' is repeated" in mistakes(caught)


def test_compose_is_for_one_machine(app: Path, cluster: Change) -> None:
    with pytest.raises(SpecError) as caught:
        jt.export_compose(app, cluster=cluster(), image=IMAGE)
    assert "Compose starts containers on one machine" in mistakes(caught)


@pytest.mark.parametrize("spec", [{"server": {"image": "x"}}, {"gateway": {"image": "x"}}])
def test_containers_in_containers_are_refused(app: Path, cluster: Change, spec: Any) -> None:
    for export, nodes in ((jt.export_compose, ("a",)), (jt.export_kubernetes, ("a", "b"))):
        with pytest.raises(SpecError) as caught:
            export(app, cluster=cluster(nodes, **spec), image=IMAGE)
        assert "would start a container in a container" in mistakes(caught)


def test_compose_publishes_on_the_address_of_the_cluster(app: Path, cluster: Change) -> None:
    (text,) = jt.export_compose(app, cluster=cluster(("a",), gateway={"address": "10.0.0.1"}), image=IMAGE).values()
    document = yaml.safe_load(text)
    assert {port["host_ip"] for port in document["services"]["jigsaw-triton"]["ports"]} == {"10.0.0.1"}
    inside = yaml.safe_load(document["configs"]["cluster"]["content"])
    assert inside["spec"]["gateway"]["address"] == "0.0.0.0"


def test_the_files_of_a_graph_are_in_its_config_map(app: Path, cluster: Change) -> None:
    made = manifests(jt.export_kubernetes(app, cluster=cluster(), image=IMAGE))
    (graph,) = [m for m in made if m["kind"] == "ConfigMap" and m["metadata"]["name"] == "graph-hello"]
    (deployment,) = [m for m in made if m["kind"] == "Deployment"]
    volumes = deployment["spec"]["template"]["spec"]["volumes"]
    (volume,) = [v for v in volumes if v["name"] == "graph-hello"]
    found = {item["path"]: graph["data"][item["key"]] for item in volume["configMap"]["items"]}
    expected = ("graph.yaml", "profiles.csv", "models/average.py")
    assert found == {path: (app / path).read_text() for path in expected}


def test_large_files_need_a_volume_claim(app: Path, cluster: Change) -> None:
    with (app / "models" / "average.py").open("a") as file:
        file.write("#" * 1_100_000)
    with pytest.raises(SpecError) as caught:
        jt.export_kubernetes(app, cluster=cluster(), image=IMAGE)
    assert "1.1 MB, and a ConfigMap holds 1 MB" in mistakes(caught)
    assert "models='CLAIM'" in mistakes(caught)
    made = manifests(jt.export_kubernetes(app, cluster=cluster(), image=IMAGE, models="apps"))
    assert [m["metadata"]["name"] for m in made if m["kind"] == "ConfigMap"] == ["cluster"]


def test_missing_model_files_are_named_unless_they_are_in_a_claim(app: Path, cluster: Change) -> None:
    (app / "models" / "average.py").unlink()
    with pytest.raises(SpecError) as caught:
        jt.export_kubernetes(app, cluster=cluster(), image=IMAGE)
    assert "models/average.py" in mistakes(caught)
    assert jt.export_kubernetes(app, cluster=cluster(), image=IMAGE, models="apps")


@pytest.mark.parametrize(
    ("edge", "probe"),
    [
        ("haproxy", "HTTP"),
        ({"kind": "haproxy", "tls": {"cert": "c", "key": "k"}}, "HTTPS"),
        ({"kind": "haproxy", "tls": {"cert": "c", "key": "k", "client_ca": "c"}}, None),
        ({"kind": "haproxy", "api_keys": "keys"}, None),
    ],
)
def test_secrets_of_the_edge_are_referred_to(
    app: Path, cluster: Change, tmp_path: Path, edge: Any, probe: str | None
) -> None:
    for name in ("c", "k", "keys"):
        (tmp_path / name).write_text("TOP-SECRET-" * 3)
    files = jt.export_kubernetes(app, cluster=cluster(edge=edge), image=IMAGE)
    assert "TOP-SECRET" not in "".join(files.values())
    (deployment,) = [m for m in manifests(files) if m["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    has_edge = any(volume["name"] == "edge" for volume in pod["volumes"])
    assert has_edge is (edge != "haproxy")
    ready = pod["containers"][0]["readinessProbe"]
    assert ready.get("httpGet", {}).get("scheme") == probe
    compose = jt.export_compose(app, cluster=cluster(("a",), edge=edge), image=IMAGE)
    assert "TOP-SECRET" not in "".join(compose.values())


def test_a_route_to_an_edge_with_tls_is_refused(app: Path, cluster: Change, tmp_path: Path) -> None:
    for name in ("c", "k"):
        (tmp_path / name).touch()
    edge = {"kind": "haproxy", "tls": {"cert": "c", "key": "k"}}
    with pytest.raises(SpecError) as caught:
        jt.export_kubernetes(app, cluster=cluster(edge=edge), image=IMAGE, gateway="public")
    assert "routes reach the edge without TLS" in mistakes(caught)


def test_two_graphs_with_one_label_are_refused(app: Path, named: Any, cluster: Change) -> None:
    with pytest.raises(SpecError) as caught:
        jt.export_kubernetes([named("Read_er"), named("read-er")], cluster=cluster(), image=IMAGE)
    assert "would have the same name read-er" in mistakes(caught)


def test_standard_input_is_refused(app: Path, cluster: Change) -> None:
    for graphs, place in (("-", cluster()), (app, "-")):
        with pytest.raises(JigsawError, match="standard input"):
            jt.export_kubernetes(graphs, cluster=place, image=IMAGE)
