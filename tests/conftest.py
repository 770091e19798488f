import gc
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from itertools import groupby
from pathlib import Path

import hypothesis
import pytest

from jigsaw_triton.servers.installation import Installation, find_installation

# Test files run side by side. Threads of one computation that wait for each other take the processors of the others.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

E2E_SHARE = 0.8
"""Share of the run over which the files that start tritonservers are spread."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collects without Python's garbage collector, which later passes over the modules and tests that exist by then."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spreads the files that start tritonservers among the others.

    Those tests mostly wait and the others mostly compute, so that workers of pytest-xdist that take files in this order
    keep the processors busy. The last files are short ones: no worker waits for another at the end.
    """
    files = [list(tests) for _, tests in groupby(items, key=lambda item: item.path)]
    e2e = [tests for tests in files if _is_e2e(tests)]
    others = [tests for tests in files if not _is_e2e(tests)]
    places = [(E2E_SHARE * number / len(e2e), tests) for number, tests in enumerate(e2e)]
    places += [(number / len(others), tests) for number, tests in enumerate(others)]
    items[:] = [item for _, tests in sorted(places, key=lambda place: place[0]) for item in tests]


def _is_e2e(tests: list[pytest.Item]) -> bool:
    return any(item.get_closest_marker("e2e") for item in tests)


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
