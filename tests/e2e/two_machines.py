"""Fixtures: two machines with agents, and a deployment on them."""

from collections.abc import Iterator

import pytest

from jigsaw_triton.servers.installation import Installation
from tests.e2e.nodes import Machines
from tests.e2e.system import System


@pytest.fixture
def machines(tmp_path_factory: pytest.TempPathFactory, installation: Installation) -> Iterator[Machines]:
    """Two machines with agents."""
    machines = Machines(tmp_path_factory.mktemp("machines"), ("a", "b"))
    machines.start()
    yield machines
    machines.end()


@pytest.fixture
def system(machines: Machines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A deployment for one test, which ends before the machines."""
    system = System(tmp_path_factory.mktemp("controller"))
    yield system
    system.end()
    for machine in machines.by_name.values():
        assert machine.servers() == {}, "servers are left"
