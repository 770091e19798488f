"""Plugin of pytest for runs in several workers: a run in which a test kills its worker is no failure to try again.

With `--max-worker-restart 0` such a run ends soon, and most tests may not have run. If dead workers are replaced,
pytest-xdist 3.8 can wait for ever.
"""

from typing import Any

import pytest

_DIED = pytest.StashKey[bool]()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object | None) -> None:
    """Notes that a worker has died."""
    if error is not None:
        node.config.stash[_DIED] = True


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Sets an exit status other than that of failed tests."""
    if _DIED in session.config.stash:
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
