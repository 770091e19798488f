"""Numbers of examples of tests whose examples take tenths of a second: few by default, and more for a thorough run."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from hypothesis import settings

FACTOR = float(os.environ.get("JIGSAW_EXAMPLES", "1"))
"""Factor of the numbers of examples: `JIGSAW_EXAMPLES=10 make test-all`."""

LIMIT_S = 300.0
"""Time limit of a test in seconds, like `timeout` in pyproject.toml. It grows with the number of examples."""

Test = TypeVar("Test", bound=Callable[..., Any])


def examples(count: int) -> int:
    """Returns the number of examples of a test that has this number by default. There is at least one."""
    return max(1, round(FACTOR * count))


def costly(count: int) -> Callable[[Test], Test]:
    """Returns a decorator for a test with costly examples.

    Args:
        count: Number of examples by default.
    """
    some = settings(max_examples=examples(count), deadline=None, derandomize=True)

    def decorate(test: Test) -> Test:
        limited: Test = pytest.mark.timeout(LIMIT_S * max(1.0, FACTOR))(some(test))
        return limited

    return decorate
