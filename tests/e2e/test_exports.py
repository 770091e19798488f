"""The commands of an exported systemd unit, run as systemd runs them."""

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import jigsaw_triton as jt
from tests.e2e.app import write_application
from tests.e2e.clients import Crowd
from tests.e2e.system import System
from tests.waiting import WAIT_LIMIT_S

pytestmark = pytest.mark.e2e


class Service:
    """A service of systemd.

    Args:
        unit: Text of the unit.
        system: Deployment that the unit is for; its state folder stands for the one that systemd makes.
    """

    def __init__(self, unit: str, system: System) -> None:
        self._unit = unit.replace("%S/jigsaw-triton", str(system.state))
        names = ("JIGSAW_HTTP", "JIGSAW_GRPC", "JIGSAW_METRICS")
        # What /etc/jigsaw-triton.env would contain.
        ports = dict(zip(names, system.ports[1::2], strict=True))
        self._environment = {**os.environ, **ports, "JIGSAW_STATE": str(system.state)}
        self.main: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.main = subprocess.Popen(self._words("ExecStart"), env=self._environment)
        self._run("ExecStartPost")

    def reload(self) -> None:
        self._run("ExecReload")

    def stop(self) -> None:
        assert self.main is not None
        self._run("ExecStop", MAINPID=str(self.main.pid))
        assert self.main.wait(timeout=WAIT_LIMIT_S) == 0

    def die(self) -> None:
        """Kills the main process, after which systemd runs ExecStop without MAINPID and signals no other process."""
        assert self.main is not None
        self.main.kill()
        self.main.wait()
        self._run("ExecStop")

    def _words(self, key: str) -> list[str]:
        (line,) = (line for line in self._unit.splitlines() if line.startswith(f"{key}="))
        return [word.replace("$$", "$") for word in shlex.split(line.partition("=")[2])]

    def _run(self, key: str, **more: str) -> None:
        ran = subprocess.run(
            self._words(key), env={**self._environment, **more}, timeout=WAIT_LIMIT_S, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr


@pytest.fixture
def app(tmp_path: Path) -> Path:
    return write_application(tmp_path / "app", accuracy=0.95)


@pytest.fixture
def service(system: System, app: Path) -> Iterator[Service]:
    (unit,) = jt.export_systemd(app, gpus="2xcpu", demand=60).values()
    service = Service(unit, system)
    yield service
    if service.main is not None:
        service.main.kill()
        service.main.wait()


def test_no_request_is_lost_when_the_service_dies_restarts_and_reloads(
    system: System, app: Path, service: Service
) -> None:
    service.start()
    first = system.status()
    with Crowd(system) as crowd:
        crowd.wait_answers(30)
        service.die()
        crowd.wait_answers(30)
        # systemd starts the service again. The controller of the dead one still lives.
        service.start()
        assert service.main is not None
        assert system.supervisor_pid() == service.main.pid
        assert system.status()["gateway"]["pid"] == first["gateway"]["pid"]
        crowd.wait_answers(30)
        # For a new release, a user runs `systemctl kill --kill-whom=main`, and systemd starts the service again.
        service.main.send_signal(signal.SIGTERM)
        assert service.main.wait(timeout=WAIT_LIMIT_S) == 0
        service.start()
        assert system.status()["gateway"]["pid"] == first["gateway"]["pid"]
        write_application(app, accuracy=0.5)
        service.reload()
        crowd.wait_answers(30)
    crowd.assert_none_failed()
    assert system.status()["generation"] > first["generation"]
    service.stop()
    system.wait_gone()
    assert system.orphans() == []
