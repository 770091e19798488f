import signal
from collections.abc import Iterator

import pytest

from jigsaw_triton.servers.installation import Installation
from tests.e2e.system import System
from tests.ensembles.conftest import script as script


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """Restores Ctrl-C, which a shell disables for background processes and so for the commands of the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, installation: Installation) -> Iterator[System]:
    """A deployment that the tests of a module share. It is taken down after them, and must leave nothing behind."""
    system = System(tmp_path_factory.mktemp("state of a déployment"))
    yield system
    system.end()


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory, installation: Installation) -> Iterator[System]:
    """A deployment for one test. It is taken down after the test, and must leave nothing behind."""
    system = System(tmp_path_factory.mktemp("system"))
    yield system
    system.end()
