import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigsaw_triton.api.deployment import Deployment
from jigsaw_triton.controller.persistence.journal import Journal
from tests.cli.conftest import app as app
from tests.cli.conftest import kept_solvers as kept_solvers
from tests.cli.conftest import named as named
from tests.cli.conftest import run as run
from tests.cli.conftest import solvers as solvers
from tests.fakes.model_process import kept_models as kept_models
from tests.fakes.model_process import kept_processes as kept_processes
from tests.fakes.onnx_models import classifier


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    deployment = Deployment(tmp_path / "state")
    deployment.paths.create()
    yield deployment
    shutil.rmtree(deployment.paths.run, ignore_errors=True)


@pytest.fixture
def journal(deployment: Deployment) -> Iterator[Journal]:
    journal = Journal(deployment.paths.journal)
    yield journal
    journal.close()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """Folder with a model, outside the folder of the graph."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "m.onnx").write_bytes(classifier())
    return folder
