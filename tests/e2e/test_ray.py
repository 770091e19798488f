"""Agents that Ray starts on two raylets, while raylets, actors, agents and Ray's control store are killed."""

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest

from jigsaw_triton.servers.installation import Installation
from tests.e2e.app import write_application
from tests.e2e.clients import Crowd
from tests.e2e.raylets import Raylets
from tests.e2e.system import System
from tests.waiting import eventually

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed (extra dev)"),
]


@pytest.fixture(scope="module")
def raylets(installation: Installation) -> Iterator[Raylets]:
    """Two raylets, which offer the nodes a and b."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    raylets = Raylets(folder, ("a", "b"))
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


def serving(system: System) -> str:
    """Returns the node that serves."""
    (node,) = {worker["node"] for worker in system.status()["workers"]}
    return str(node)


def kill(find: Callable[[str], int | None], node: str) -> None:
    """Kills a process of a node, and waits for the next one."""
    eventually(lambda: find(node) is not None)
    before = find(node)
    assert before is not None
    # The process may have been replaced meanwhile.
    with suppress(ProcessLookupError):
        os.kill(before, signal.SIGKILL)
    eventually(lambda: find(node) not in (None, before))


def test_agents_and_actors_that_die_are_started_again(system: System, raylets: Raylets) -> None:
    node, workers = serving(system), raylets.workers()
    assert len(raylets.agents()) == 2
    with Crowd(system) as crowd:
        kill(raylets.agent, node)
        before = raylets.agent(node)
        kill(raylets.actor, node)
        # The next actor brings its own agent.
        eventually(lambda: raylets.agent(node) not in (None, before))
        crowd.wait_answers(30)
        assert raylets.workers() == workers
    crowd.assert_none_failed()


def test_a_deployment_serves_without_ray_and_goes_on_with_the_next_one(system: System, raylets: Raylets) -> None:
    node, workers = serving(system), raylets.workers()
    with Crowd(system) as crowd:
        raylets.kill_gcs()
        crowd.wait_answers(30)
        raylets.kill("a", "b")
        crowd.wait_answers(30)
        assert len(raylets.agents()) == 2
        # The new Ray cluster does not know the agents. It starts a missing one because the controller asks for it.
        raylets.start()
        kill(raylets.agent, node)
        crowd.wait_answers(30)
        assert raylets.workers() == workers
    crowd.assert_none_failed()


def test_down_ends_agents_and_actors(system: System, raylets: Raylets) -> None:
    result = system.run("down")
    assert result.code == 0, result.err
    eventually(lambda: not raylets.processes())
