"""GPUs that fall off the bus under load. Their MIG instances are emulated, the servers are real."""

import os
import signal
from pathlib import Path

import pytest

from jigsaw_triton.gpus.emulated import EmulatedMigDriver
from jigsaw_triton.gpus.model import GpuId
from tests.e2e.app import SQUARE, write_application
from tests.e2e.clients import Client, Crowd
from tests.e2e.system import System

pytestmark = pytest.mark.e2e


def test_workers_of_a_lost_gpu_move_to_the_others_although_the_files_of_their_models_were_edited(
    system: System, tmp_path: Path
) -> None:
    app = write_application(tmp_path / "app")
    before = system.deploy(app, "--gpus", "2xcpu", "--demand", 60)
    # The files are overwritten in place, so that links to them have the new content.
    write_application(app, square=SQUARE.replace("** 2", "** 3"))
    (app / "total.py").unlink()
    lost = GpuId("local", before["workers"][0]["gpu"])
    gpus = EmulatedMigDriver(system.state / "mig.json", ())
    last = system.last_event()
    with Crowd(system) as crowd:
        gpus.lose(lost)
        last = system.wait_event(f"error: GPU {lost} is lost, and with it", after=last)
        system.wait_event("switch the fronts to the new generation", after=last)
        crowd.wait_answers(30)
        # The change ends with the timeouts of the requests that workers on the lost GPU have begun.
        system.wait_event("ready: the new generation serves", after=last)
        status = system.status()
        assert {worker["gpu"] for worker in status["workers"]} == {1 - lost.index}
        assert status["serving"] and status["degraded"]
        assert f"GPU {lost} is lost" in status["reasons"]
        gpus.find(lost)
        last = system.wait_event(f"gpu: GPU {lost} is back", after=last)
        os.kill(system.controller_pid(), signal.SIGKILL)
        system.wait_started()
        last = system.wait_event("the controller was restarted and adopted", after=last)
        assert system.run("status", "--wait", "ready").code == 0
        back = system.run("rollback", before["generation"], "-o", "json")
        assert back.code == 0, back.err
        crowd.wait_answers(30)
    assert not [failure for failure in crowd.failures if "became" in failure]
    write_application(app, square=SQUARE.replace("** 2", "** 3"))
    system.deploy(app, "--gpus", "2xcpu")
    with Client(system, "grpc") as client:
        assert client.squares([2, 3]) == ([8, 27], 35)


def test_a_worker_whose_instance_disappears_gets_another(system: System, tmp_path: Path) -> None:
    before = system.deploy(write_application(tmp_path / "app"), "--gpus", "2xcpu", "--demand", 60)
    gpus = EmulatedMigDriver(system.state / "mig.json", (), holders_of=lambda _: ())
    worker = next(worker for worker in before["workers"] if worker["uuid"])
    last = system.last_event()
    with Crowd(system) as crowd:
        gpus.destroy(worker["uuid"])
        last = system.wait_event("killed, because its MIG instance no longer exists", after=last)
        system.wait_event(f"{worker['name']} serves again", after=last)
        crowd.wait_answers(30)
    crowd.assert_none_failed()
    after = next(w for w in system.status()["workers"] if w["name"] == worker["name"])
    assert after["uuid"] not in ("", worker["uuid"])
