import signal
from collections.abc import Iterator

import pytest

from jigsaw_triton.servers.installation import Installation
from tests.e2e.system import System
from tests.ensembles.conftest import script as script


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> Iterator[None]:
    """A shell starts what it runs in the background deaf to Ctrl-C, and the commands of the tests would inherit it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, installation: Installation) -> Iterator[System]:
    """A deployment that the tests of a module share; taken down after them, with nothing left."""
    system = System(tmp_path_factory.mktemp("shared"))
    yield system
    system.end()


@pytest.fixture
def system(tmp_path_factory: pytest.TempPathFactory, installation: Installation) -> Iterator[System]:
    """A deployment of one test's own; taken down after it, with nothing left."""
    system = System(tmp_path_factory.mktemp("system"))
    yield system
    system.end()
