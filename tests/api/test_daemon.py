import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigsaw_triton.api import daemon
from jigsaw_triton.api.supervisor import CRASHED
from jigsaw_triton.errors import StateError


@pytest.fixture
def as_before() -> Iterator[None]:
    mask = os.umask(0o022)
    os.umask(mask)
    gc.unfreeze()
    yield
    os.umask(mask)
    gc.freeze()


@pytest.mark.usefixtures("as_before")
def test_the_garbage_collector_leaves_the_modules_of_a_controller_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen: list[int] = []
    monkeypatch.setattr(daemon, "find_installation", lambda: None)
    monkeypatch.setattr(daemon, "run_controller", lambda *_, **__: frozen.append(gc.get_freeze_count()))
    assert daemon.main(str(tmp_path), resume=False) == 0
    assert frozen[0] > 10_000


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize(("error", "code"), [(StateError("no room"), 4), (RuntimeError("a bug"), CRASHED)])
def test_the_error_that_ends_a_controller_has_the_format_of_its_log(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(daemon, "find_installation", lambda: None)
    monkeypatch.setattr(daemon, "run_controller", fail)
    monkeypatch.setenv("JIGSAW_LOG_FORMAT", "json")
    assert daemon.main(str(tmp_path), resume=False) == code
    entry = json.loads(capsys.readouterr().err)
    assert str(error) in entry["message"]
    assert ("Traceback" in entry.get("error", "")) == (code == CRASHED)
    monkeypatch.setenv("JIGSAW_LOG_FORMAT", "text")
    assert daemon.main(str(tmp_path), resume=False) == code
    said = capsys.readouterr().err
    assert str(error) in said and not said.startswith("{")


@pytest.mark.usefixtures("as_before")
def test_a_wrong_variable_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JIGSAW_LOG_FORMAT", "xml")
    assert daemon.main(str(tmp_path), resume=False) == 2
    assert "JIGSAW_LOG_FORMAT: there is no log format 'xml'" in capsys.readouterr().err
