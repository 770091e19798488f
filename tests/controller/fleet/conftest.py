from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jigsaw_triton.controller.fleet import remote_nodes
from jigsaw_triton.controller.persistence.journal import Journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """Journal of a deployment."""
    with closing(Journal(tmp_path / "journal.sqlite")) as opened:
        yield opened


@pytest.fixture
def one_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has agents given up at the first try."""
    monkeypatch.setattr(remote_nodes, "START_S", 0.0)
