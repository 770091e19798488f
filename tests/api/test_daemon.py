import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigsaw_triton.api import daemon


@pytest.fixture
def as_before() -> Iterator[None]:
    mask = os.umask(0o022)
    os.umask(mask)
    gc.unfreeze()
    yield
    os.umask(mask)
    gc.unfreeze()


@pytest.mark.usefixtures("as_before")
def test_the_garbage_collector_leaves_the_modules_of_a_controller_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen: list[int] = []
    monkeypatch.setattr(daemon, "find_installation", lambda: None)
    monkeypatch.setattr(daemon, "run_controller", lambda *_, **__: frozen.append(gc.get_freeze_count()))
    assert daemon.main(str(tmp_path), resume=False) == 0
    assert frozen[0] > 10_000
