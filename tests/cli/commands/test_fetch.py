import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jigsaw_triton.cli.commands import fetch
from tests.cli.conftest import Run


def test_there_is_nothing_to_bring(run: Run, app: Path) -> None:
    result = run("fetch", app)
    assert result.exit_code == 0
    assert result.stdout == f"{app}: all files are there\n"


def test_what_is_brought_is_told(run: Run, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bring(folder: Path, progress: Callable[[str], None]) -> tuple[Path, ...]:
        progress("downloading x: 10 MiB")
        return (folder / "a", folder / "b")

    monkeypatch.setattr(fetch, "fetch_application", bring)
    result = run("fetch", app)
    assert result.stdout == f"{app}: 2 files brought\n"
    assert "downloading x: 10 MiB" in result.stderr
    found = json.loads(run("fetch", app, "-o", "json").stdout)
    assert found == {"fetched": {str(app): [str(app / "a"), str(app / "b")]}}


def test_a_folder_that_is_not_there_stops_before_anything_is_brought(
    run: Run, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "fetch_application", lambda *_: pytest.fail("brought something"))
    result = run("fetch", app, "nothing")
    assert result.exit_code == 2
    assert "nothing: there is no such folder" in result.stderr


def test_mistakes_in_the_sources(run: Run, app: Path) -> None:
    (app / "sources.yaml").write_text(
        "apiVersion: jigsaw-triton/v1\nkind: Sources\nbuild: {recipe: nothing, files: [../x]}\n"
    )
    result = run("fetch", app)
    assert result.exit_code == 2
    assert "sources.yaml:3" in result.stderr
