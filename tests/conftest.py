import gc
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from contextlib import suppress
from importlib import import_module
from itertools import groupby
from pathlib import Path

import hypothesis
import pytest

from jigsaw_triton.servers.installation import Installation, find_installation
from tests.dead_workers import pytest_sessionfinish as pytest_sessionfinish
from tests.dead_workers import pytest_testnodedown as pytest_testnodedown

# Test files run side by side. Threads of one computation that wait for each other take the processors of the others.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# How long an example takes depends on what else the machine does.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")

SHARES = {"e2e": 0.8, "slow": 0.9}
"""Mark of tests -> share of the run over which the files with such tests are spread."""


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collects without Python's garbage collector, which later passes over the modules and tests that exist by then."""
    gc.disable()
    try:
        _import_tests(session.config)
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def _import_tests(config: pytest.Config) -> None:
    """Imports the test files in a worker of pytest-xdist, which begins with its share of them.

    All workers collect all tests, in the same order. In a new checkout each of them would rewrite the assertions of the
    same files at the same time. So each finds most files rewritten by another one.
    """
    worker, count = (os.environ.get(f"PYTEST_XDIST_{name}", "") for name in ("WORKER", "WORKER_COUNT"))
    if not worker:
        return
    files = sorted({file for argument in config.args for file in _test_files(Path(argument.partition("::")[0]))})
    first = int(worker.removeprefix("gw")) * len(files) // int(count)
    for file in (*files[first:], *files[:first]):
        # Errors are ignored here, because pytest imports the file again and reports its error.
        with suppress(Exception, pytest.skip.Exception):
            import_module(".".join(file.resolve().relative_to(config.rootpath).with_suffix("").parts))


def _test_files(path: Path) -> Iterator[Path]:
    return path.rglob("test_*.py") if path.is_dir() else iter([path])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spreads the files that start tritonservers, and those with slow tests, among the others.

    Files that start tritonservers mostly wait, and most of the others compute. Workers of pytest-xdist that take files
    in this order keep the processors busy. The last files are short ones: no worker waits for another at the end.
    """
    kinds: dict[float, list[list[pytest.Item]]] = {}
    for _, group in groupby(items, key=lambda item: item.path):
        tests = list(group)
        kinds.setdefault(_share(tests), []).append(tests)
    places = [(share * n / len(files), tests) for share, files in kinds.items() for n, tests in enumerate(files)]
    items[:] = [item for _, tests in sorted(places, key=lambda place: place[0]) for item in tests]


def _share(tests: list[pytest.Item]) -> float:
    """Returns the share of the run over which files like that of these tests are spread."""
    for mark, share in SHARES.items():
        if any(item.get_closest_marker(mark) for item in tests):
            return share
    return 1.0


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
