from collections.abc import Iterator

import pytest

from jigsaw_triton.servers.installation import Installation
from tests.e2e.system import System
from tests.ensembles.conftest import script as script


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
