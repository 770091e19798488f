"""Agents that Ray starts on three raylets, while raylets, actors, agents and Ray's control store are killed."""

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jigsaw_triton.servers.installation import Installation
from tests.e2e.app import write_application
from tests.e2e.clients import Crowd
from tests.e2e.raylets import Raylets
from tests.e2e.system import PATIENCE_S, System

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def raylets(installation: Installation) -> Iterator[Raylets]:
    """Three raylets, which offer the nodes a, b and c."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    raylets = Raylets(folder, ("a", "b", "c"))
    try:
        raylets.start()
        yield raylets
    finally:
        raylets.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def system(raylets: Raylets, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A deployment of an application on these raylets."""
    system = System(tmp_path_factory.mktemp("controller"))
    app = write_application(tmp_path_factory.mktemp("app") / "app")
    result = system.run("deploy", app, "--cluster", raylets.cluster(system), "--demand", 60, "--detach")
    assert result.code == 0, result.out + result.err
    yield system
    system.end()


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


def serving(system: System) -> str:
    """Returns the node that serves."""
    (node,) = {worker["node"] for worker in system.status()["workers"]}
    return str(node)


def replaced(find: Callable[[str], int | None], node: str, before: int | None) -> Callable[[], bool]:
    """Returns a condition: the process of a node is another one than before."""
    return lambda: find(node) not in (None, before)


def test_agents_and_their_workers_outlive_ray(system: System, raylets: Raylets) -> None:
    node = serving(system)
    workers, agent = raylets.workers(), raylets.agent(node)
    with Crowd(system) as crowd:
        assert agent is not None
        os.kill(agent, signal.SIGKILL)
        wait_until(replaced(raylets.agent, node, agent))
        agent, actor = raylets.agent(node), raylets.actor(node)
        assert actor is not None
        os.kill(actor, signal.SIGKILL)
        wait_until(replaced(raylets.actor, node, actor))
        wait_until(replaced(raylets.agent, node, agent))
        agent = raylets.agent(node)
        raylets.kill_gcs()
        crowd.wait_answers(30)
        raylets.kill("a", "b", "c")
        raylets.start()
        crowd.wait_answers(30)
        # The next Ray knows nothing of the agents. It starts those that are missing.
        assert (raylets.workers(), raylets.agent(node)) == (workers, agent)
        assert agent is not None
        os.kill(agent, signal.SIGKILL)
        wait_until(replaced(raylets.agent, node, agent))
        crowd.wait_answers(30)
        assert raylets.workers() == workers
    crowd.assert_none_failed()


def test_down_ends_agents_and_actors(system: System, raylets: Raylets) -> None:
    result = system.run("down")
    assert result.code == 0, result.err
    wait_until(lambda: not raylets.processes())
