import json
from pathlib import Path

import pytest
import yaml

from jigsaw_triton.export.marker import MARK
from tests.cli.conftest import Run
from tests.front.fronts import FRONT

IMAGE = ("--image", "registry.example/jigsaw:1")
AGENT = ("export", "systemd", "--agent", "a", "--certificates", "/etc/certificates")


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    nodes = [{"name": name, "gpus": [{"model": "A30-24GB"}]} for name in ("a", "b")]
    path.write_text(yaml.safe_dump({"apiVersion": "jigsaw-triton/v1", "kind": "Cluster", "spec": {"nodes": nodes}}))
    return path


def test_a_unit_is_printed_or_written(run: Run, app: Path, tmp_path: Path) -> None:
    command = ("export", "systemd", app, "--gpus", "2xA30-24GB", "--demand", "3")
    printed = run(*command)
    assert printed.exit_code == 0
    assert printed.stdout.startswith(MARK)
    assert "[Service]" in printed.stdout
    for place, file in (("x.service", tmp_path / "x.service"), ("", tmp_path / "jigsaw-triton.service")):
        written = run(*command, "-O", tmp_path / place)
        assert written.stdout == ""
        assert f"wrote {file}" in written.stderr.replace("\n", "")
        assert file.read_text() == printed.stdout
    assert json.loads(run(*command, "-o", "json").stdout) == {"files": {"jigsaw-triton.service": printed.stdout}}


def test_the_unit_of_an_agent_needs_neither_graph_nor_gpus(run: Run) -> None:
    result = run(*AGENT, "--listen", "10.0.0.1:7440")
    assert result.exit_code == 0
    assert " agent --name a --listen 10.0.0.1:7440 --certificates /etc/certificates " in result.stdout


def test_a_front_has_a_unit_and_an_envoy_in_its_place(run: Run, tmp_path: Path) -> None:
    (tmp_path / "front.yaml").write_text(FRONT)
    unit = run("export", "systemd", "--front", tmp_path / "front.yaml", "-O", tmp_path)
    assert unit.exit_code == 0, unit.stderr
    assert f" front {tmp_path}/front.yaml " in (tmp_path / "jigsaw-triton-front.service").read_text()
    envoy = run("export", "envoy", tmp_path / "front.yaml")
    assert envoy.exit_code == 0
    assert "Envoy sends requests to standby gateways only while a graph has no other gateway" in envoy.stderr
    assert envoy.stdout.startswith(MARK)
    assert yaml.safe_load(envoy.stdout)["static_resources"].keys() == {"listeners", "clusters"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("export", "systemd"), "Missing argument 'GRAPH...'"),
        (("export", "systemd", "--agent", "a"), "An agent needs certificates"),
        ((*AGENT, "app"), "omit GRAPH"),
        ((*AGENT, "--front", "front.yaml"), "An agent and a front have a unit each"),
        (("export", "systemd", "app", "--front", "front.yaml"), "omit GRAPH"),
        (("export", "systemd", "--front", "front.yaml", "--listen", "10.0.0.1:80"), "Only an agent takes --listen:"),
        (
            ("export", "systemd", "app", "--listen", "10.0.0.1:80", "--certificates", "a"),
            "Only an agent takes --listen and --certificates:",
        ),
        (("export", "envoy", "nowhere.yaml"), "nowhere.yaml: there is no such file"),
        ((*AGENT, "--demand", "3"), "omit GRAPH"),
        ((*AGENT, "--gpus", "2xA30-24GB"), "omit GRAPH"),
        ((*AGENT, "--listen", "here"), "'here' is not an IP address with a port"),
        (("export", "compose", "app", "--gpus", "2xcpu"), "Missing option '--image'"),
        (("export", "kubernetes", "app", *IMAGE), "Missing option '--cluster'"),
        (("export", "systemd", "app", "--gpus", "2xcpu", "--demand", "many"), "'many' is not a number of requests"),
    ],
)
def test_wrong_input_exits_with_2(run: Run, app: Path, args: tuple[str, ...], message: str) -> None:
    result = run(*(str(app) if word == "app" else word for word in args))
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_a_compose_file_is_not_written_over_another(run: Run, app: Path, tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("services: {}\n")
    command = ("export", "compose", app, *IMAGE, "--gpus", "2xcpu", "-O", file)
    result = run(*command)
    assert result.exit_code == 2
    assert "did not write this file" in result.stderr
    assert file.read_text() == "services: {}\n"
    assert run(*command, "--overwrite").exit_code == 0
    assert yaml.safe_load(file.read_text())["services"].keys() == {"jigsaw-triton"}


def test_manifests_are_written_with_warnings_of_what_must_be_off(
    run: Run, app: Path, cluster: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "manifests"
    command = ("export", "kubernetes", app, *IMAGE, "--cluster", cluster, "-O", folder)
    result = run(*command, "--gateway", "infra/public", "--hostname", "models.example", "--service-monitor")
    assert result.exit_code == 0
    resources = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert {path.name for path in folder.iterdir()} == {*resources, "kustomization.yaml"}
    assert {"routes.yaml", "monitor.yaml"} < set(resources)
    assert "device plugin" in result.stderr and "MIG manager" in result.stderr and "DRA driver" in result.stderr
    emulated = run(*command, "--driver", "emulated", "-o", "json")
    assert "must be off" not in emulated.stderr
    assert json.loads(emulated.stdout)["files"].keys() == {path.name for path in folder.iterdir()}
    assert not (folder / "routes.yaml").exists()
