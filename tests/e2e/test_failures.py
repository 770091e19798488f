"""Failures of a deployment: each has a clear message and the right exit code, and leaves nothing half done."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.app import BROKEN, DEADLY, gated, write_application
from tests.e2e.clients import Client, Crowd, expected
from tests.e2e.system import System

pytestmark = pytest.mark.e2e

GPUS = ("--gpus", "2xcpu", "--demand", "5")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_application(tmp_path_factory.mktemp("app"))


@pytest.fixture(scope="module")
def served(shared: System, app: Path) -> System:
    shared.deploy(app, *GPUS)
    return shared


@pytest.fixture
def unharmed(served: System, app: Path) -> Iterator[System]:
    """The deployment, which must continue to serve unchanged during the test, without losing a request."""
    before = _essence(served.status())
    with Crowd(served) as crowd:
        yield served
        crowd.wait_answers(20)
    crowd.assert_none_failed()
    assert served.run("status", "--wait", "ready").code == 0
    assert _essence(served.status()) == before


def _essence(status: dict[str, Any]) -> dict[str, Any]:
    """Returns the parts of a status that must not change."""
    workers = [(w["name"], w["pid"], w["uuid"], w["models"]) for w in status["workers"]]
    return {"generation": status["generation"], "gateway": status["gateway"], "workers": workers}


def instances(system: System) -> str:
    """Returns the MIG instances that exist, as the text of their state file."""
    return (system.state / "mig.json").read_text()


def interrupt(process: subprocess.Popen[str]) -> str:
    """Sends Ctrl-C as a terminal does, and waits for the end of the command. Returns its stderr."""
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    return err


# --- updates --------------------------------------------------------------------------------------------------------


def test_an_update_whose_model_does_not_load_is_rolled_back(unharmed: System, tmp_path: Path) -> None:
    existing = instances(unharmed)
    app = write_application(tmp_path / "app", square=BROKEN)
    result = unharmed.run("deploy", app, *GPUS, *unharmed.ports, "--detach")
    assert result.code == 1
    error = next(line for line in result.err.splitlines() if line.startswith("error:"))
    assert "words.square.slow" in error
    assert unharmed.worker_of("square")["name"] in error
    assert "no such weights" in error
    assert "the previous generation still serves" in result.err
    assert "last change failed" in unharmed.run("status").out
    assert instances(unharmed) == existing
    repositories = [path.name for path in (unharmed.state / "repositories").rglob("words.square.*")]
    loaded = unharmed.worker_of("square")["models"][0]["name"]
    assert loaded in repositories
    assert {name for name in repositories if name.startswith("words.square.slow")} == {loaded}


def test_an_update_that_cannot_be_planned_changes_nothing(unharmed: System, app: Path) -> None:
    result = unharmed.run("deploy", app, "--gpus", "2xcpu", "--demand", 100_000, *unharmed.ports, "--detach")
    assert result.code == 3
    assert "the demand exceeds the cluster" in result.err


def test_an_update_with_mistakes_in_the_graph_changes_nothing(unharmed: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app")
    graph = (app / "graph.yaml").read_text()
    (app / "graph.yaml").write_text(graph.replace("for_each: split.ROWS", "for_each: split.COLUMNS"))
    result = unharmed.run("deploy", app, *GPUS, *unharmed.ports, "--detach")
    assert result.code == 2
    assert "graph.yaml:" in result.err
    assert "COLUMNS" in result.err


def test_the_gateways_ports_cannot_change_while_it_serves(unharmed: System, app: Path) -> None:
    result = unharmed.run("deploy", app, *GPUS, "--http", unharmed.http + 1, "--detach")
    assert result.code == 2
    assert "ports cannot change while it serves" in result.err


def test_a_deploy_during_another_is_refused(served: System, app: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    other = write_application(tmp_path / "app", square=gated(gate))
    last = served.last_event()
    first = served.start("deploy", other, *GPUS, *served.ports, "--detach")
    served.wait_event("transition:", after=last)
    second = served.run("deploy", app, *GPUS, *served.ports, "--detach")
    gate.touch()
    _, err = first.communicate(timeout=60)
    assert second.code == 4
    assert "another deploy is under way" in second.err
    assert first.returncode == 0, err
    with Client(served, "http") as client:
        assert client.squares([6, 7]) == expected([6, 7])


def test_an_update_continues_after_ctrl_c(served: System, app: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    other = write_application(tmp_path / "app", square=gated(gate))
    last = served.last_event()
    update = served.start("deploy", other, *GPUS, *served.ports)
    last = served.wait_event("transition:", after=last)
    assert "interrupted; the controller goes on with the change" in interrupt(update)
    gate.touch()
    served.wait_event("ready: the new generation serves", after=last)
    assert served.run("status", "--wait", "ready").code == 0


# --- a first deployment ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("square", "reason"), [(BROKEN, "no such weights"), (DEADLY, "does not answer")])
def test_a_first_deploy_whose_model_does_not_load_leaves_nothing(
    system: System, tmp_path: Path, square: str, reason: str
) -> None:
    app = write_application(tmp_path / "app", square=square)
    result = system.run("deploy", app, *GPUS, *system.ports, "--detach")
    assert result.code == 1
    error = next(line for line in result.err.splitlines() if line.startswith("error:"))
    assert reason in error
    assert "words.square.slow" in error
    assert "local-0-1g-" in error
    assert system.orphans() == []
    assert system.run("status").code == 4


def test_the_error_names_a_port_that_is_in_use(system: System, app: Path) -> None:
    with socket.create_server(("127.0.0.1", system.grpc)):
        result = system.run("deploy", app, *GPUS, *system.ports, "--detach")
    assert result.code == 2
    assert f"port {system.grpc} is already in use by process {os.getpid()}" in result.err
    assert not (system.state / "journal.sqlite").exists()
    again = system.deploy(app, *GPUS)
    assert again["state"] == "ready"


def test_commands_report_that_nothing_is_deployed(system: System, app: Path) -> None:
    for command in ("status", "down", "events", "logs"):
        result = system.run(command)
        assert result.code == 4, command
        assert "nothing is deployed here" in result.err
    assert system.run("status", "--wait", "ready", "--timeout", "0").code == 4
    assert system.run("status", "--wait", "stopped").code == 0
    assert not system.state.joinpath("logs").exists()


def test_ctrl_c_during_a_first_deploy_leaves_nothing(system: System, tmp_path: Path) -> None:
    app = write_application(tmp_path / "app", square=gated(tmp_path / "never"))
    deploy = system.start("deploy", app, *GPUS, *system.ports)
    system.wait_started()
    system.wait_event("transition:")
    interrupt(deploy)
    assert system.orphans() == []


def test_ctrl_c_in_a_foreground_deploy_takes_the_deployment_down(system: System, app: Path) -> None:
    deploy = system.start("deploy", app, *GPUS, *system.ports)
    system.wait_started()
    system.wait_event("ready: the new generation serves")
    with Crowd(system):
        err = interrupt(deploy)
    assert "all servers of the deployment have ended" in err
    assert system.orphans() == []
    assert system.run("down").code == 4
    assert system.run("status").code == 4
    assert "the new generation serves" in system.run("events").out


# --- the state folder -----------------------------------------------------------------------------------------------


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A separate file system of one megabyte."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    if os.getuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]).returncode != 0:
        pytest.skip("mounting a small file system needs root, and is not allowed everywhere")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("kind", ["full", "read-only"])
def test_the_error_names_a_state_folder_that_cannot_be_written(app: Path, mounted: Path, kind: str) -> None:
    if kind == "full":
        with pytest.raises(OSError, match="No space left"), (mounted / "ballast").open("wb", buffering=0) as ballast:
            while ballast.write(b"x" * 4096):
                pass
    else:
        subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    system = System(mounted / "state")
    result = system.run("deploy", app, *GPUS, *system.ports, "--detach")
    assert result.code == 2, result.err
    assert str(mounted / "state") in result.err
    assert "--state" in result.err
    assert "Traceback" not in result.err
    assert system.orphans() == []
