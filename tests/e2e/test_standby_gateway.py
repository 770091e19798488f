"""A standby gateway on another machine follows changes under load, and serves without the gateway's machine."""

import os
import platform
import shutil
import signal
from pathlib import Path

import pytest

from jigsaw_triton.controller.persistence.paths import deployment_paths
from jigsaw_triton.servers.haproxy.config import CONFIG
from tests.e2e.app import SQUARE, write_application
from tests.e2e.clients import Crowd
from tests.e2e.commands import Result
from tests.e2e.nodes import STANDBY_ADDRESS, Machine, Machines
from tests.e2e.system import System
from tests.e2e.two_machines import machines as machines
from tests.e2e.two_machines import system as system
from tests.waiting import eventually

pytestmark = pytest.mark.e2e

NODE = "b"
"""Node of the standby gateway."""


def deployment(system: System, machines: Machines, folder: Path, *, standby: str) -> tuple[object, ...]:
    """Returns the command that deploys an application."""
    cluster = machines.cluster(system, standby=standby)
    return ("deploy", write_application(folder / "app"), "--cluster", cluster, "--demand", 60, "--detach")


def deploy(system: System, machines: Machines, folder: Path, *, standby: str = NODE) -> None:
    result = system.run(*deployment(system, machines, folder, standby=standby))
    assert result.code == 0, result.out + result.err


def assert_replaced(result: Result) -> None:
    """Checks that a command failed because a controller on another machine has replaced the one here."""
    assert result.code == 4, result.out + result.err
    assert f"the controller on {platform.node()} has replaced this one since" in result.err


def wait_in_sync(system: System) -> None:
    """Waits until the standby serves what the gateway serves."""

    def in_sync() -> bool:
        standby = system.status()["standby_gateway"]
        return bool(standby["state"] == "ready" and standby["in_line"])

    eventually(in_sync)


def tritonservers(machine: Machine) -> dict[str, int]:
    """Returns the workers and the gateway of a machine: name -> id of the process. Proxies are replaced by reloads."""
    return {name: pid for name, pid in machine.servers().items() if name != "gateway-transport"}


def are_alike(system: System, machine: Machine) -> bool:
    """Returns True if the gateway and its standby have the same routes."""
    folders = (system.run_dir / "routes", deployment_paths(machine.state).run / "routes")
    try:
        first, second = ({path.name: path.read_bytes() for path in folder.glob("*.json")} for folder in folders)
    except FileNotFoundError:
        # A route was removed between listing and reading it.
        return False
    return first == second


def test_the_standby_serves_during_changes_and_goes_on_without_the_machine_of_the_gateway(
    system: System, machines: Machines, tmp_path: Path
) -> None:
    deploy(system, machines, tmp_path)
    wait_in_sync(system)
    machine = machines.by_name[NODE]
    with Crowd(system, address=STANDBY_ADDRESS) as crowd:
        # Workers leave the node that has them, and the next generation loads its models elsewhere.
        (node,) = {worker["node"] for worker in system.status()["workers"]}
        result = system.run("node", "drain", node)
        assert result.code == 0, result.err
        crowd.wait_answers(20)
        wait_in_sync(system)
        eventually(lambda: are_alike(system, machine))
        pid = machine.servers()["gateway"]
        machine.end_agent()
        crowd.wait_answers(20)
        machine.start()
        machine.wait_listening()
        wait_in_sync(system)
        assert machine.servers()["gateway"] == pid
        system.kill_all()
        crowd.wait_answers(30)
    crowd.assert_none_failed()


def test_a_controller_elsewhere_takes_over_and_fences_the_gateway_left_behind(
    system: System, machines: Machines, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    deploy(system, machines, tmp_path)
    wait_in_sync(system)
    before = {name: tritonservers(machine) for name, machine in machines.by_name.items()}
    copy = tmp_path_factory.mktemp("elsewhere") / "state"
    system.kill_all()
    shutil.move(system.state, copy)
    shutil.rmtree(system.run_dir)
    successor = System(copy)
    successor.http, successor.grpc, successor.metrics = system.http, system.grpc, system.metrics
    try:
        with Crowd(system, address=STANDBY_ADDRESS) as crowd:
            deploy(successor, machines, tmp_path)
            wait_in_sync(successor)
            crowd.wait_answers(20)
            assert {name: tritonservers(machine) for name, machine in machines.by_name.items()} == before

            def fenced(machine: Machine) -> bool:
                return "of_epoch" in (deployment_paths(machine.state).run / "node" / CONFIG).read_text()

            eventually(lambda: all(fenced(machine) for machine in machines.by_name.values()))
            crowd.wait_answers(20)
        crowd.assert_none_failed()
        with Crowd(successor) as crowd:
            crowd.wait_answers(10)
        crowd.assert_none_failed()
    finally:
        successor.end()


def test_a_controller_that_takes_over_replaces_one_that_was_cut_off(
    system: System, machines: Machines, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    deploy(system, machines, tmp_path)
    wait_in_sync(system)
    eventually(lambda: not system.status()["degraded"])
    workers = {worker["name"] for worker in system.status()["workers"]}
    machine = machines.by_name[NODE]
    system.freeze()
    # The other machine need not have the files of the application.
    shutil.rmtree(tmp_path / "app")
    successor = System(tmp_path_factory.mktemp("elsewhere") / "state")
    successor.http, successor.grpc, successor.metrics = system.http, system.grpc, system.metrics
    try:
        result = successor.run("takeover", "--agent", machine.state)
        assert result.code == 0, result.err
        result = successor.run("status", "--wait", "ready", "--timeout", "100")
        assert result.code == 0, result.out + result.err
        assert SQUARE in {path.read_text() for path in (successor.state / "contents").iterdir()}
        with Crowd(successor, address=STANDBY_ADDRESS) as crowd:
            crowd.wait_answers(20)
            # If the replaced controller left its gateway running, that would count as ready and fail each request.
            system.thaw()
            system.wait_gone()
            assert_replaced(system.run("status"))
            # The systemd unit of the machine gives this command when it boots.
            again = system.run(*deployment(system, machines, tmp_path, standby=NODE))
            assert_replaced(again)
            system.wait_gone()
            crowd.wait_answers(20)
        crowd.assert_none_failed()
        result = system.run("down")
        assert result.code == 0 and "the deployment goes on there" in result.err
        assert {worker["name"] for worker in successor.status()["workers"]} == workers
        assert "gateway" not in machine.servers()
        again = successor.run("takeover", "--agent", machine.state)
        assert again.code == 4 and "there is a deployment in this folder already" in again.err
    finally:
        successor.end()


def test_a_standby_that_dies_is_started_again_and_one_that_is_not_wanted_ends(
    system: System, machines: Machines, tmp_path: Path
) -> None:
    deploy(system, machines, tmp_path)
    wait_in_sync(system)
    machine = machines.by_name[NODE]
    last = system.last_event()
    pid = machine.servers()["gateway"]
    os.kill(pid, signal.SIGKILL)
    system.wait_event("the standby gateway on node b serves again", after=last)
    wait_in_sync(system)
    assert machine.servers()["gateway"] != pid
    with Crowd(system, address=STANDBY_ADDRESS) as crowd:
        crowd.wait_answers(10)
    crowd.assert_none_failed()
    # The machine is lost and comes back with nothing.
    last = system.last_event()
    machine.kill()
    system.wait_event(f"error: node {NODE} is lost", after=last)
    assert system.status()["standby_gateway"]["state"] == "lost"
    machine.start()
    system.wait_event(f"node {NODE} is back", after=last)
    wait_in_sync(system)
    with Crowd(system, address=STANDBY_ADDRESS) as crowd:
        crowd.wait_answers(10)
    crowd.assert_none_failed()
    deploy(system, machines, tmp_path, standby="")
    assert system.status()["standby_gateway"] is None
    eventually(lambda: "gateway" not in machine.servers())
