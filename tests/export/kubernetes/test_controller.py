import base64
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.export.kubernetes.controller import DEPLOYING, config_maps, controller, keys
from jigsaw_triton.export.kubernetes.settings import Graph
from jigsaw_triton.spec.yaml_writer import dump_yaml
from tests.export.kubernetes.samples import EMULATED, FULL, PLAIN, of_kind, pods

PATHS = st.from_regex(r"[a-zA-Z0-9 äé$%'\"_.-]{1,12}(/[a-z$ ]{1,5})?", fullmatch=True)


def test_there_is_never_a_second_controller() -> None:
    (deployment,) = of_kind(PLAIN, "Deployment").values()
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    (claim,) = of_kind(PLAIN, "PersistentVolumeClaim").values()
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]


def test_the_supervisor_runs_and_a_hook_deploys() -> None:
    (container,) = pods(PLAIN)["controller"]["containers"]
    assert container["command"] == ["python3", "-m", "jigsaw_triton.api.supervisor", "/var/lib/jigsaw-triton"]
    hook = container["lifecycle"]["postStart"]["exec"]["command"][len(DEPLOYING) :]
    assert hook[:3] == ["jigsaw-triton", "deploy", "/srv/jigsaw-triton/hello-1/graph.yaml"]
    assert {"--detach", "--yes"} < set(hook)
    assert hook[hook.index("--demand") + 1] == "Hello_1=20"


@pytest.mark.parametrize(("deploy", "status", "code"), [(0, 4, 0), (3, 0, 0), (3, 4, 4)])
def test_a_container_starts_if_it_deploys_or_serves(tmp_path: Path, deploy: int, status: int, code: int) -> None:
    program = tmp_path / "jigsaw-triton"
    program.write_text(f'#!/bin/sh\n[ "$1" = status ] && exit {status}\necho "$2" >&2\nexit {deploy}\n')
    program.chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JIGSAW_STATE": str(tmp_path)}
    command = [*map(str, DEPLOYING), "jigsaw-triton", "deploy", "it's $1"]
    ran = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert ran.returncode == code
    assert ran.stderr == ("it's $1\n" if deploy else "")


def test_the_controller_has_no_privilege() -> None:
    for settings in (PLAIN, FULL, EMULATED):
        pod = pods(settings)["controller"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }


@pytest.mark.parametrize(
    ("probe", "expected"),
    [
        ("HTTP", {"httpGet": {"path": "/v2/health/ready", "port": "http", "scheme": "HTTP"}}),
        ("HTTPS", {"httpGet": {"path": "/v2/health/ready", "port": "http", "scheme": "HTTPS"}}),
        ("TCP", {"tcpSocket": {"port": "http"}}),
    ],
)
def test_the_gateway_gets_requests_once_it_is_ready(probe: str, expected: object) -> None:
    (container,) = pods(replace(PLAIN, probe=probe))["controller"]["containers"]  # type: ignore[arg-type]
    assert {key: value for key, value in container["readinessProbe"].items() if not key.endswith("Seconds")} == expected
    assert "livenessProbe" not in container


@pytest.mark.parametrize("settings", [PLAIN, FULL])
def test_every_write_of_the_container_goes_to_a_volume(settings: object) -> None:
    (container,) = pods(settings)["controller"]["containers"]  # type: ignore[arg-type]
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    assert {variables["JIGSAW_STATE"], variables["JIGSAW_CACHE"], variables["XDG_RUNTIME_DIR"], "/dev/shm"} < writable


def test_a_volume_claim_takes_the_place_of_the_graphs_files() -> None:
    assert list(of_kind(FULL, "ConfigMap")) == ["cluster"]
    claims = [v["persistentVolumeClaim"] for v in pods(FULL)["controller"]["volumes"] if v["name"] == "models"]
    assert claims == [{"claimName": "claim", "readOnly": True}]


@hypothesis.settings(max_examples=40)
@given(st.dictionaries(PATHS, st.binary(max_size=30) | st.text(max_size=30).map(str.encode), min_size=1, max_size=4))
def test_files_arrive_as_they_were(files: dict[str, bytes]) -> None:
    settings = replace(PLAIN, graphs={"g": Graph("g", "graph.yaml", files)})
    text = "---\n".join(dump_yaml(made) for made in config_maps(settings))
    found = {made["metadata"]["name"]: made for made in yaml.safe_load_all(text)}["graph-g"]
    have = {key: value.encode() for key, value in found.get("data", {}).items()}
    have |= {key: base64.b64decode(value) for key, value in found.get("binaryData", {}).items()}
    (deployment,) = [made for made in controller(settings) if made["kind"] == "Deployment"]
    (volume,) = [v for v in deployment["spec"]["template"]["spec"]["volumes"] if v["name"] == "graph-g"]
    assert {item["path"]: have[item["key"]] for item in volume["configMap"]["items"]} == files
    assert set(keys(settings.graphs["g"]).values()) == have.keys()


def test_the_graph_can_be_loaded_from_a_config_map(tmp_path: Path, app: Path) -> None:
    from jigsaw_triton.api.files import load_graph

    # Kubernetes mounts files as links to a folder that it replaces as a whole.
    mounted = tmp_path / "mounted"
    first = mounted / "..2026_01_01"
    first.mkdir(parents=True)
    (mounted / "..data").symlink_to(first.name)
    for path in ("graph.yaml", "profiles.csv", "models/average.py"):
        (first / path).parent.mkdir(exist_ok=True)
        (first / path).write_bytes((app / path).read_bytes())
    for name in ("graph.yaml", "profiles.csv", "models"):
        (mounted / name).symlink_to(Path("..data") / name)
    assert load_graph(mounted, require_files=True).name == "hello"
