import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from jigsaw_triton.export.kubernetes.agents import OFF, RESTARTING
from jigsaw_triton.export.kubernetes.manifests import manifests
from tests.export.kubernetes.samples import EMULATED, PLAIN, of_kind, pods
from tests.waiting import eventually

AGENTS = ("agent-a", "agent-b")


@pytest.mark.parametrize("node", ["a", "b"])
def test_each_node_has_an_agent_with_its_own_name_and_certificates(node: str) -> None:
    pod = pods(PLAIN)[f"agent-{node}"]
    (container,) = pod["containers"]
    assert pod["nodeSelector"] == {"jigsaw-triton/node": node}
    arguments = container["args"]
    assert arguments[:2] == ["jigsaw-triton", "agent"]
    assert arguments[arguments.index("--name") + 1] == node
    secrets = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
    assert secrets == [f"agent-{node}"]


def test_an_agent_is_privileged_and_shares_nothing_else_with_its_host() -> None:
    for name in AGENTS:
        pod = pods(PLAIN)[name]
        (container,) = pod["containers"]
        assert container["securityContext"]["privileged"] is True
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
        assert [v["hostPath"]["path"] for v in pod["volumes"] if "hostPath" in v] == ["/var/lib/jigsaw-triton/serving"]
        variables = {entry["name"]: entry["value"] for entry in container["env"]}
        assert variables["NVIDIA_MIG_CONFIG_DEVICES"] == variables["NVIDIA_MIG_MONITOR_DEVICES"] == "all"
        # A device plugin would choose the GPUs otherwise.
        assert "nvidia.com/gpu" not in str(container["resources"])


def test_emulated_gpus_need_no_privilege() -> None:
    for name in AGENTS:
        pod = pods(EMULATED)[name]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert not [volume for volume in pod["volumes"] if "hostPath" in volume]
        assert "runtimeClassName" not in pod
    (namespace,) = of_kind(EMULATED, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_change_of_the_manifests_ends_no_server() -> None:
    for made in of_kind(PLAIN, "DaemonSet").values():
        assert made["spec"]["updateStrategy"] == {"type": "OnDelete"}
        (container,) = made["spec"]["template"]["spec"]["containers"]
        assert "livenessProbe" not in container


def test_the_file_says_what_must_be_off() -> None:
    text = manifests(PLAIN)["agents.yaml"]
    comment = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    for sentence in OFF:
        assert sentence in comment
    assert "destroys MIG instances that it does not know" in comment
    assert "privileged, for these reasons" in comment
    assert "privileged, for" not in manifests(EMULATED)["agents.yaml"]


def test_the_addresses_are_those_of_the_services() -> None:
    for name in AGENTS:
        (port,) = of_kind(PLAIN, "Service")[name]["spec"]["ports"]
        (container,) = pods(PLAIN)[name]["containers"]
        listen = container["args"][container["args"].index("--listen") + 1]
        assert listen == f"0.0.0.0:{port['port']}"
        assert container["ports"] == [{"name": port["targetPort"], "containerPort": port["port"]}]


@pytest.fixture
def agent(tmp_path: Path) -> list[str]:
    """Command line of a container whose agent counts its starts, starts a server, and dies on its first start."""
    program = tmp_path / "agent"
    program.write_text(
        f"""#!/bin/sh
echo $$ >> {tmp_path}/starts
test -e {tmp_path}/server || {{ sleep 300 & echo $! > {tmp_path}/server; exit 1; }}
trap 'echo "$1" > {tmp_path}/ended; exit 0' TERM
while :; do sleep 0.1; done
"""
    )
    program.chmod(0o755)
    (container,) = pods(PLAIN)["agent-a"]["containers"]
    command = [str(word) for word in container["command"]]
    assert command[2] == RESTARTING
    return [*command, str(program), "it's $1"]


def wait_for(path: Path, lines: int = 1) -> list[str]:
    def found() -> list[str]:
        written = path.read_text().splitlines() if path.exists() else []
        return written if len(written) >= lines else []

    return eventually(found)


@pytest.mark.slow
def test_an_agent_that_dies_is_started_again_and_its_servers_live(tmp_path: Path, agent: list[str]) -> None:
    with subprocess.Popen(agent) as container:
        try:
            wait_for(tmp_path / "starts", 2)
            (server,) = wait_for(tmp_path / "server")
            assert Path(f"/proc/{server}").exists()
            container.send_signal(signal.SIGTERM)
            assert container.wait(timeout=30) == 0
            assert wait_for(tmp_path / "ended") == ["it's $1"]
            assert len((tmp_path / "starts").read_text().splitlines()) == 2
        finally:
            container.kill()
            subprocess.run(["kill", *(tmp_path / "server").read_text().split()])


def test_the_script_is_readable_in_the_file() -> None:
    text = manifests(PLAIN)["agents.yaml"]
    assert '            "$@" & program=$!\n' in text
    assert next(iter(yaml.safe_load_all(text)))["spec"]["template"]["spec"]["containers"][0]["command"][2] == RESTARTING
