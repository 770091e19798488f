"""Machines with agents that come, go and die under load. Each is a group of processes with a port of its own."""

import os
import re
import resource
import shutil
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from jigsaw_triton.servers.installation import Installation
from jigsaw_triton.servers.members import members
from tests.e2e.app import SQUARE, write_application
from tests.e2e.clients import Crowd
from tests.e2e.nodes import Machine, Machines
from tests.e2e.system import System
from tests.e2e.two_machines import machines as machines
from tests.e2e.two_machines import system as system
from tests.fakes.otlp import Received, Receiver
from tests.waiting import eventually

pytestmark = pytest.mark.e2e


def deploy(system: System, machines: Machines, folder: Path, *options: object) -> Machine:
    """Deploys the application of the tests. Returns the machine that serves it; the other one is idle."""
    app = write_application(folder / "app")
    result = system.run("deploy", app, "--cluster", machines.cluster(system), "--demand", 60, "--detach", *options)
    assert result.code == 0, result.out + result.err
    return serving(system, machines)


def serving(system: System, machines: Machines) -> Machine:
    """Returns the machine that serves; the other one is idle."""
    (name,) = nodes_of(system)
    return machines.by_name[name]


@dataclass(frozen=True, slots=True)
class Lasting:
    """A deployment on two machines, which serves on one of them at the end of each test.

    Attributes:
        system: The deployment.
        machines: The machines.
        folder: Folder of the application.
        receiver: Receiver of its traces.
    """

    system: System
    machines: Machines
    folder: Path
    receiver: Receiver


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory, installation: Installation) -> Iterator[Lasting]:
    """The deployment of the tests that leave one behind."""
    machines = Machines(tmp_path_factory.mktemp("machines"), ("a", "b"))
    system = System(tmp_path_factory.mktemp("controller"))
    folder = tmp_path_factory.mktemp("app")
    machines.start()
    try:
        with Receiver() as receiver:
            try:
                deploy(system, machines, folder, "--otlp", receiver.endpoint, "--otlp-sample", "10%")
                yield Lasting(system, machines, folder, receiver)
            finally:
                system.end()
        assert [machine.servers() for machine in machines.by_name.values()] == [{}, {}]
    finally:
        machines.end()


def other_than(machine: Machine, machines: Machines) -> Machine:
    return next(one for one in machines.by_name.values() if one is not machine)


def identities(system: System, workers: Iterable[str]) -> dict[str, int]:
    """Returns the modification times of workers' sockets, by which the gateway recognises their processes."""
    return {name: (system.run_dir / "workers" / f"{name}.sock").stat().st_mtime_ns for name in workers}


def nodes_of(system: System) -> set[str]:
    return {worker["node"] for worker in system.status()["workers"]}


def test_a_machine_that_dies_is_replaced_and_serves_again_when_it_is_back(lasting: Lasting) -> None:
    system, machines = lasting.system, lasting.machines
    machine = serving(system, machines)
    last = system.last_event()
    with Crowd(system) as crowd:
        machine.kill()
        last = system.wait_event(f"error: node {machine.name} is lost", after=last)
        last = system.wait_event("ready: the new generation serves", after=last)
        crowd.wait_answers(30)
        assert nodes_of(system) == {other_than(machine, machines).name}
        states = {node["name"]: node["state"] for node in system.status()["nodes"]}
        assert states == {machine.name: "lost", other_than(machine, machines).name: "ready"}
        machine.start()
        system.wait_event(f"node {machine.name} is back", after=last)
        assert machine.servers() == {}
        crowd.wait_answers(30)
    crowd.assert_none_failed()


def test_an_agent_that_dies_leaves_its_workers_to_the_next_one(lasting: Lasting) -> None:
    system, machines = lasting.system, lasting.machines
    machine = serving(system, machines)
    before = machine.servers()
    with Crowd(system) as crowd:
        machine.end_agent()
        crowd.wait_answers(30)
        machine.start()
        # The next agent must be in charge before its worker dies.
        machine.wait_listening()
        crowd.wait_answers(30)
        assert machine.servers() == before
        name, pid = next(iter(before.items()))
        last = system.last_event()
        os.kill(pid, signal.SIGKILL)
        system.wait_event(f"{name} serves again", after=last)
        assert machine.servers()[name] != pid
    crowd.assert_none_failed()


def test_a_machine_that_is_cut_off_for_a_while_starts_nothing_twice(lasting: Lasting) -> None:
    system, machines = lasting.system, lasting.machines
    machine = serving(system, machines)
    last = system.last_event()
    with Crowd(system) as crowd:
        machine.freeze()
        last = system.wait_event(f"error: node {machine.name} is lost", after=last)
        last = system.wait_event("ready: the new generation serves", after=last)
        assert nodes_of(system) == {other_than(machine, machines).name}
        machine.thaw()
        system.wait_event(f"node {machine.name} is back", after=last)
        eventually(lambda: machine.servers() == {})
        crowd.wait_answers(30)
    # All workers were on this machine, so a request that one of them had begun to answer may be lost with it.
    assert len(crowd.failures) <= crowd.clients, crowd.failures


def test_the_next_controller_goes_on_with_the_machines(lasting: Lasting) -> None:
    system, machines = lasting.system, lasting.machines
    machine = serving(system, machines)
    before = machine.servers()
    known = identities(system, before)
    with Crowd(system) as crowd:
        last = system.last_event()
        os.kill(system.controller_pid(), signal.SIGKILL)
        crowd.wait_answers(30)
        system.wait_started()
        system.wait_event("adopted", after=last)
        crowd.wait_answers(30)
        assert machine.servers() == before
        # The backend would take another time of a socket for another process of the worker.
        assert identities(system, before) == known
        # The export of traces continues, with the spans of the worker on the other machine.
        receiver = lasting.receiver
        received = len(receiver.spans)
        receiver.wait(lambda spans: not executed_by(spans[received:]).isdisjoint(before), "a span of a remote worker")
    crowd.assert_none_failed()


def executed_by(spans: Iterable[Received]) -> set[str]:
    """Returns the servers whose models have spans."""
    return {str(span.resource["service.instance.id"]) for span in spans if span.name.startswith("execute ")}


def test_workers_outlive_the_machine_of_the_controller(lasting: Lasting) -> None:
    system, machines = lasting.system, lasting.machines
    machine = serving(system, machines)
    before = machine.servers()
    system.kill_controller()
    for pid in {member.pid for member in members(system.state)}:
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(system.run_dir)
    assert deploy(system, machines, lasting.folder) is machine
    assert machine.servers() == before
    with Crowd(system) as crowd:
        crowd.wait_answers(10)
    crowd.assert_none_failed()


@pytest.mark.parametrize("hangs", [False, True])
def test_down_ends_the_workers_of_machines_without_their_controller(
    system: System, machines: Machines, tmp_path: Path, hangs: bool
) -> None:
    machine = deploy(system, machines, tmp_path)
    if hangs:
        for pid in (system.status()["controller"]["supervisor"], system.controller_pid()):
            os.kill(pid, signal.SIGSTOP)
    else:
        system.kill_controller()
    result = system.run("down")
    assert result.code == 0, result.err
    assert machine.servers() == {}


def test_a_full_disk_of_a_machine_fails_the_change_and_leaves_nothing(lasting: Lasting, tmp_path: Path) -> None:
    system, machines = lasting.system, lasting.machines
    machine = serving(system, machines)
    before = machine.servers()
    for one in machines.by_name.values():
        one.limit_files(1_000_000)
    large = write_application(tmp_path / "app", square=f"{SQUARE}# {'x' * 4_000_000}\n")
    with Crowd(system) as crowd:
        result = system.run("deploy", large, "--cluster", machines.cluster(system), "--demand", 60, "--detach")
        assert result.code == 1, result.err
        assert re.search(r"node [ab], .+/contents: the files of models cannot be written", result.err)
        assert "free some space on this node" in result.err
        crowd.wait_answers(30)
        assert machine.servers() == before
        for one in machines.by_name.values():
            assert list((one.state / "contents").glob("*.part")) == []
    crowd.assert_none_failed()
    for one in machines.by_name.values():
        one.limit_files(resource.RLIM_INFINITY)


def test_a_machine_is_drained_without_a_lost_request(lasting: Lasting) -> None:
    """This is the last test of the lasting deployment, one of whose machines is out of use from here on."""
    system, machines = lasting.system, lasting.machines
    machine = serving(system, machines)
    other = other_than(machine, machines).name
    with Crowd(system) as crowd:
        result = system.run("node", "drain", machine.name)
        assert result.code == 0, result.err
        assert nodes_of(system) == {other} and machine.servers() == {}
        crowd.wait_answers(30)
    crowd.assert_none_failed()
    refused = system.run("node", "drain", "c")
    assert refused.code == 2 and "the cluster has no node 'c'" in refused.err
    last = system.run("node", "drain", other)
    assert last.code == 4 and f"node {other} still serves" in last.err
    assert nodes_of(system) == {other}


def test_a_stopped_agent_leaves_its_workers_to_down_and_nothing_else(
    system: System, machines: Machines, tmp_path: Path
) -> None:
    busy = deploy(system, machines, tmp_path)
    idle = other_than(busy, machines)
    refused = system.run("down", "--state", busy.state)
    assert refused.code == 4 and "an agent is running here" in refused.err and "stop it first" in refused.err
    assert busy.servers()
    for machine in (busy, idle):
        machine.end_agent(signal.SIGINT)
    assert idle.pids() == set()
    eventually(lambda: "agent away" in {node["state"] for node in system.status()["nodes"]})
    ended = system.run("down", "--state", busy.state)
    assert ended.code == 0, ended.err
    assert busy.pids() == set()


def test_a_machine_without_an_agent_is_named_before_anything_starts(
    system: System, machines: Machines, tmp_path: Path
) -> None:
    machines.by_name["b"].end_agent()
    app = write_application(tmp_path / "app")
    result = system.run("deploy", app, "--cluster", machines.cluster(system), "--demand", 60, "--detach")
    assert result.code == 1, result.err
    # Either error is right: the agent's proxy may or may not have started to answer in its place.
    assert re.search(r"node b: (the agent does not answer|127\.0\.0\.1:\d+ refuses the connection)", result.err)
    assert machines.by_name["a"].servers() == {}
