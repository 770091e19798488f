import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from jigsaw_triton.servers.installation import Installation, find_installation

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def installation() -> Installation:
    """Provides the machine's real tritonserver, fetched into the real cache if necessary."""
    return find_installation()


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """Provides the folder of a deployment, whose path is short enough for Unix sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="jigsaw-"))
    (folder / "workers").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Provides an empty cache folder for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("JIGSAW_CACHE", str(folder))
    return folder
