import json
from collections.abc import Callable
from pathlib import Path

import pytest

from jigsaw_triton.cli.commands import fetch
from tests.cli.conftest import Run


def test_complete_applications_fetch_nothing(run: Run, app: Path) -> None:
    result = run("fetch", app)
    assert result.exit_code == 0
    assert result.stdout == f"{app}: no file is missing\n"


def test_fetched_files_and_progress_are_printed(run: Run, app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch_application(folder: Path, progress: Callable[[str], None]) -> tuple[Path, ...]:
        progress("downloading x: 10 MiB")
        return (folder / "a", folder / "b")

    monkeypatch.setattr(fetch, "fetch_application", fetch_application)
    result = run("fetch", app)
    assert result.stdout == f"{app}: fetched 2 files\n"
    assert "downloading x: 10 MiB" in result.stderr
    found = json.loads(run("fetch", app, "-o", "json").stdout)
    assert found == {"fetched": {str(app): [str(app / "a"), str(app / "b")]}}


def test_a_missing_folder_is_refused_before_anything_is_fetched(
    run: Run, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "fetch_application", lambda *_: pytest.fail("fetched something"))
    result = run("fetch", app, "nothing")
    assert result.exit_code == 2
    assert "nothing: there is no such folder" in result.stderr


def test_mistakes_in_sources_yaml_are_reported(run: Run, app: Path) -> None:
    (app / "sources.yaml").write_text(
        "apiVersion: jigsaw-triton/v1\nkind: Sources\nbuild: {recipe: nothing, files: [../x]}\n"
    )
    result = run("fetch", app)
    assert result.exit_code == 2
    assert "sources.yaml:3" in result.stderr
