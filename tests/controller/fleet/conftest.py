from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jigsaw_triton.controller.persistence.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Journal of a deployment."""
    with closing(Journal(tmp_path / "journal.sqlite")) as opened:
        yield opened
