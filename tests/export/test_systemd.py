import os
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.api.supervisor import REPLACED
from jigsaw_triton.export.commands import Agent, Deploy, Front, Gpus
from jigsaw_triton.export.systemd import Host, agent_unit, command, deployment_unit, front_unit, plain, runnable

ODD = 'a b %n $HOME ${x} "q" it\'s \\ ;#'
"""Name of a folder with characters that systemd, or a shell, treats specially."""

HOST = Host("/opt/jigsaw/bin/jigsaw-triton", "/opt/jigsaw/bin/python", "jigsaw")
DEPLOY = Deploy(("/srv/app",), Gpus(("--gpus", "4xA100-80GB"), "nvml"), {"hello": 2.5})
FRONT = Front("/srv/cells/front.yaml", "/var/lib/jigsaw-triton-front")
AGENT = Agent("a", "0.0.0.0:7440", "/etc/certificates", "/var/lib/jigsaw-triton-agent")


def settings(unit: str) -> dict[str, list[str]]:
    """Returns the values of each setting of a unit."""
    found: dict[str, list[str]] = {}
    for line in unit.splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def words(line: str) -> list[str]:
    """Splits a command line as systemd does, whose quoting is that of a shell but for % and $."""
    return [word.replace("%%", "%").replace("$$", "$") for word in shlex.split(line)]


@given(st.lists(st.text(st.characters(min_codepoint=0x20, exclude_categories=["Cs"])), min_size=1))
def test_every_argument_without_control_characters_reaches_the_program(arguments: list[str]) -> None:
    line = command(*arguments)
    assert words(line) == arguments
    assert "\n" not in line


@pytest.mark.parametrize(("text", "ok"), [("a b", True), ("ä%$", True), ("a\nExecStart=x", False), ("\t", False)])
def test_control_characters_are_found(text: str, ok: bool) -> None:
    assert plain(text) is ok


def test_a_deployment_is_started_updated_and_ended_by_its_supervisor() -> None:
    found = settings(deployment_unit(HOST, DEPLOY))
    deploy = [HOST.program, *DEPLOY.detached]
    assert words(found["ExecStart"][0]) == [HOST.python, "-m", "jigsaw_triton.api.supervisor", "%S/jigsaw-triton"]
    assert words(found["ExecStartPost"][0]) == deploy
    assert words(found["ExecReload"][0]) == deploy
    assert {"--detach", "--yes"} < set(deploy)
    assert deploy[deploy.index("--demand") + 1] == "hello=2.5"
    # The servers outlive the main process, and their sockets the service's restart.
    assert found["KillMode"] == ["process"]
    assert found["RuntimeDirectoryPreserve"] == ["restart"]
    # A controller on another machine may have replaced the one here.
    assert (found["Restart"], found["RestartPreventExitStatus"]) == (["always"], [str(REPLACED)])
    # Triton's Python backend needs /tmp, and a server that outlives a start needs the same one.
    assert "PrivateTmp" not in found and found["ReadWritePaths"] == ["/tmp"]


@pytest.mark.parametrize(("pid", "status"), [("17", 3), ("", 0)])
def test_stopping_takes_the_deployment_down_unless_its_supervisor_has_died(
    tmp_path: Path, pid: str, status: int
) -> None:
    program = tmp_path / ODD / "jigsaw-triton"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ntest "$1" = down && exit 3\n')
    program.chmod(0o755)
    (line,) = settings(deployment_unit(Host(str(program), "/bin/python", "jigsaw"), DEPLOY))["ExecStop"]
    ran = subprocess.run(words(line), env={"MAINPID": pid} if pid else {})
    assert ran.returncode == status


@pytest.mark.parametrize("unit", [deployment_unit(HOST, DEPLOY), agent_unit(HOST, AGENT, "nvml")])
def test_a_unit_for_mig_keeps_what_a_setuid_program_needs_and_has_no_other_right(unit: str) -> None:
    found = settings(unit)
    assert found["User"] == ["jigsaw"]
    assert "mig/config" in found["ExecStartPre"][0]
    assert not {"NoNewPrivileges", "CapabilityBoundingSet", "PrivateDevices"} & found.keys()
    assert "AmbientCapabilities" not in found
    assert found["ProtectSystem"] == ["strict"]


def test_a_unit_without_mig_gives_up_all_privileges() -> None:
    emulated = Deploy(("/srv/app",), Gpus(("--gpus", "2xcpu"), "emulated"))
    found = settings(deployment_unit(HOST, emulated))
    assert "ExecStartPre" not in found
    assert found["NoNewPrivileges"] == ["yes"]
    assert found["CapabilityBoundingSet"] == [""]


@pytest.mark.parametrize(
    ("host", "value"),
    [
        (HOST, "yes"),
        (Host("/home/ann/bin/jigsaw-triton", "/home/ann/bin/python", "ann"), "read-only"),
        (Host(HOST.program, HOST.python, "jigsaw", ("/root/app",)), "read-only"),
        (Host(HOST.program, HOST.python, "jigsaw", ("/homes/app",)), "yes"),
    ],
)
def test_homes_are_visible_only_if_something_is_there(host: Host, value: str) -> None:
    assert settings(deployment_unit(host, DEPLOY))["ProtectHome"] == [value]


def test_an_agent_ends_alone() -> None:
    found = settings(agent_unit(HOST, AGENT, "nvml"))
    assert words(found["ExecStart"][0]) == [HOST.program, *AGENT.arguments]
    assert "ExecStop" not in found
    assert found["KillMode"] == ["process"]
    # `systemctl stop` must not remove the sockets of the servers that go on.
    assert found["RuntimeDirectoryPreserve"] == ["yes"]


def test_a_controller_whose_workers_have_agents_needs_no_gpu_and_no_right() -> None:
    found = settings(deployment_unit(replace(HOST, workers=False), DEPLOY))
    assert "ExecStartPre" not in found
    assert found["NoNewPrivileges"] == ["yes"]
    assert "--driver nvml" in found["ExecStartPost"][0]


@pytest.mark.parametrize(("low_ports", "capabilities"), [(False, ""), (True, "CAP_NET_BIND_SERVICE")])
def test_a_front_may_listen_on_low_ports_and_do_nothing_else(low_ports: bool, capabilities: str) -> None:
    found = settings(front_unit(HOST, FRONT, low_ports=low_ports))
    assert words(found["ExecStart"][0]) == [HOST.program, *FRONT.arguments]
    # If the main process dies, HAProxy goes on.
    assert found["KillMode"] == ["process"] and "ExecStop" not in found
    assert found["CapabilityBoundingSet"] == [capabilities]
    assert found.get("AmbientCapabilities", [""]) == [capabilities]
    assert "ReadWritePaths" not in found and "nvidia" not in front_unit(HOST, FRONT, low_ports=low_ports)


@pytest.mark.parametrize("driver", ["nvml", "emulated"])
def test_systemd_accepts_the_units(tmp_path: Path, driver: Literal["nvml", "emulated"]) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    odd, folder = tmp_path / ODD, tmp_path / "a b %n ;#"
    folder.mkdir()
    for name in ("jigsaw-triton", "python"):
        # systemd finds these only if it reads the quoted paths as they were meant.
        (folder / name).write_text("#!/bin/sh\n")
        (folder / name).chmod(0o755)
    host = Host(str(folder / "jigsaw-triton"), str(folder / "python"), "root")
    units = {
        "jigsaw-triton.service": deployment_unit(host, Deploy((str(odd),), Gpus(("--gpus", "2xcpu"), driver))),
        "jigsaw-triton-front.service": front_unit(host, Front(str(odd), str(odd)), low_ports=driver == "nvml"),
        "jigsaw-triton-agent.service": agent_unit(host, Agent("a", "[::]:7440", str(odd), str(odd)), driver),
    }
    for name, text in units.items():
        (tmp_path / name).write_text(text)
        ran = subprocess.run(
            [analyze, "verify", "--man=no", "--recursive-errors=no", str(tmp_path / name)],
            env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
            capture_output=True,
            text=True,
        )
        assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize("character", ["'", '"', "\\", "$", "\n"])
def test_programs_that_systemd_does_not_run_are_found(character: str) -> None:
    assert runnable("/opt/a b %n ;#/python")
    assert not runnable(f"/opt/{character}/python")


def test_systemd_refuses_a_damaged_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "jigsaw-triton.service"
    unit.write_text(deployment_unit(HOST, DEPLOY).replace("KillMode=process", "KillMode=some"))
    assert subprocess.run([analyze, "verify", "--man=no", str(unit)], capture_output=True).stderr
