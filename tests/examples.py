"""Numbers of examples of tests whose examples take tenths of a second: few by default, and more for a thorough run."""

import os

from hypothesis import settings

FACTOR = float(os.environ.get("JIGSAW_EXAMPLES", "1"))
"""Factor of the numbers of examples: `JIGSAW_EXAMPLES=10 make test-all`."""


def costly(count: int) -> settings:
    """Returns the settings of a test with costly examples.

    Args:
        count: Number of examples by default. There is at least one, however small the factor.
    """
    return settings(max_examples=max(1, round(FACTOR * count)), deadline=None, derandomize=True)
