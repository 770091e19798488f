"""Processes that are killed under load."""

import os
import signal
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from jigsaw_triton.servers.process import python_stubs
from tests.e2e.app import POISON, POISONABLE, dying, gated, write_application
from tests.e2e.clients import PROTOCOLS, Client, Crowd, expected
from tests.e2e.system import System

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_application(tmp_path_factory.mktemp("app"), square=POISONABLE)


@pytest.fixture(scope="module")
def served(shared: System, app: Path) -> System:
    shared.deploy(app, "--gpus", "2xcpu", "--demand", 60)
    return shared


@pytest.mark.parametrize("task", ["square", "total"], ids=["one of several", "the only one"])
def test_a_killed_worker_is_restarted_and_loses_no_request(served: System, task: str) -> None:
    before = served.worker_of(task)
    last = served.last_event()
    with Crowd(served) as crowd:
        os.kill(before["pid"], signal.SIGKILL)
        last = served.wait_event(f"worker {before['name']} ended unexpectedly (signal 9)", after=last)
        served.wait_event(f"{before['name']} serves again", after=last)
        crowd.wait_answers(30)
    crowd.assert_none_failed()
    after = next(w for w in served.status()["workers"] if w["name"] == before["name"])
    assert after["state"] == "ready"
    assert after["pid"] != before["pid"]
    assert after["uuid"] == before["uuid"]
    assert after["models"] == before["models"]
    assert after["restarts"] == before["restarts"] + 1


def test_only_its_owner_can_open_shared_memory(served: System) -> None:
    with Client(served, "http") as client:
        assert client.squares([2]) == expected([2])
    regions = served.regions()
    assert regions
    assert [path.name for path in regions if path.stat().st_mode & 0o077] == []


def stub_of(server: int, model: str) -> int:
    """Returns a process of a model."""
    return next(pid for pid, stub in python_stubs({server}).items() if stub.model.startswith(model))


def test_a_worker_whose_model_process_died_is_restarted(served: System) -> None:
    before = served.worker_of("total")
    last = served.last_event()
    with Crowd(served) as crowd:
        os.kill(stub_of(before["pid"], "words.total."), signal.SIGSEGV)
        killed = "killed, because a process of its model words.total."
        last = served.wait_event(f"worker {before['name']} ended unexpectedly ({killed}", after=last)
        assert any("ended with signal 11); restarting it" in event for event in served.events())
        served.wait_event(f"{before['name']} serves again", after=last)
        crowd.wait_answers(30)
    assert served.worker_of("total")["pid"] != before["pid"]


def test_a_gateway_whose_pipeline_process_died_is_restarted(system: System, tmp_path: Path) -> None:
    system.deploy(write_application(tmp_path / "app", target="bls"), "--gpus", "2xcpu", "--demand", 5)
    pid = system.status()["gateway"]["pid"]
    last = system.last_event()
    with Crowd(system) as crowd:
        os.kill(stub_of(pid, "words.pipeline."), signal.SIGKILL)
        last = system.wait_event("the gateway ended unexpectedly", after=last)
        system.wait_event("gateway serves again", after=last)
        crowd.wait_answers(30)
        after = len(crowd.failures)
        crowd.wait_answers(60)
    assert len(crowd.failures) == after


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_that_kills_its_workers_fails_with_the_reason(served: System, protocol: str) -> None:
    last = served.last_event()
    with Client(served, protocol) as client:
        with pytest.raises(InferenceServerException, match=r"task square: worker .* failed: .*; before that, worker "):
            client.squares([1, POISON])
        assert client.squares([1, 2]) == expected([1, 2])
    for _ in range(2):
        last = served.wait_event("serves again", after=last)
    assert served.run("status", "--wait", "ready").code == 0


def test_a_killed_gateway_is_restarted_and_its_clients_fail_at_once(served: System) -> None:
    before = served.status()["gateway"]
    pid = before["pid"]
    last = served.last_event()
    with Crowd(served) as crowd:
        os.kill(pid, signal.SIGKILL)
        last = served.wait_event("the gateway ended unexpectedly (signal 9)", after=last)
        served.wait_event("gateway serves again", after=last)
        crowd.wait_answers(30)
    # The gateway may be back before a client notices. Requests in flight must fail at once, not time out.
    assert not any("timed out" in failure.lower() or "deadline" in failure.lower() for failure in crowd.failures)
    gateway = served.status()["gateway"]
    assert gateway["state"] == "ready"
    assert gateway["restarts"] == before["restarts"] + 1


def test_a_worker_that_dies_during_an_update_is_restarted_and_the_update_continues(
    served: System, app: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    write_application(app, square=gated(gate))
    before = served.worker_of("total")
    last = served.last_event()
    with Crowd(served) as crowd:
        update = served.start("deploy", app, "--gpus", "2xcpu", "--demand", 60, *served.ports, "--detach")
        last = served.wait_event("transition:", after=last)
        os.kill(before["pid"], signal.SIGKILL)
        last = served.wait_event(f"{before['name']} serves again", after=last)
        gate.touch()
        _, err = update.communicate(timeout=60)
        assert update.returncode == 0, err
        crowd.wait_answers(30)
    crowd.assert_none_failed()
    assert served.worker_of("total")["pid"] != before["pid"]


def test_an_update_outlives_a_worker_that_dies_while_it_loads(served: System, app: Path, tmp_path: Path) -> None:
    once = tmp_path / "once"
    once.touch()
    write_application(app, square=dying(once))
    last = served.last_event()
    with Crowd(served) as crowd:
        served.deploy(app, "--gpus", "2xcpu", "--demand", 60)
        crowd.wait_answers(30)
    crowd.assert_none_failed()
    assert not once.exists()
    assert any("ended unexpectedly (signal 9)" in text for text in served.events(after=last))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "hangs"])
def test_an_update_outlives_the_gateway(served: System, app: Path, tmp_path: Path, number: signal.Signals) -> None:
    gate = tmp_path / "gate"
    write_application(app, square=gated(gate))
    last = served.last_event()
    update = served.start("deploy", app, "--gpus", "2xcpu", "--demand", 60, *served.ports, "--detach")
    last = served.wait_event("transition:", after=last)
    os.kill(served.status()["gateway"]["pid"], number)
    gate.touch()
    served.wait_event("gateway serves again", after=last)
    _, err = update.communicate(timeout=90)
    assert update.returncode == 0, err
    with Client(served, "grpc") as client:
        assert client.squares([4, 5]) == expected([4, 5])
