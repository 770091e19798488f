import json
from pathlib import Path

import pytest

from jigsaw_triton.applications import load_sources
from jigsaw_triton.cli.commands import init
from jigsaw_triton.errors import ArtifactError
from jigsaw_triton.resources import applications_dir
from tests.cli.conftest import Run


@pytest.fixture
def no_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "fetch_files", lambda out, folder: (folder / "model.pt",))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_an_application_from_scratch_is_complete(run: Run) -> None:
    result = run("init", "hello")
    assert result.exit_code == 0
    assert files(Path("hello")) == {"graph.yaml", "profiles.csv", "models/average.py"}
    commands = [line.strip() for line in result.stdout.splitlines() if line.startswith("  jigsaw-triton ")]
    for command in commands:
        if command.split()[1] != "deploy":
            assert run(*command.split()[1:]).exit_code == 0
    assert [command.split()[1] for command in commands] == ["validate", "show", "plan", "deploy"]


def test_an_application_is_created_in_the_current_folder(run: Run) -> None:
    assert run("init", ".").exit_code == 0
    assert Path("graph.yaml").is_file()


@pytest.mark.usefixtures("no_downloads")
def test_a_ready_application_is_copied_without_fetched_files(run: Run) -> None:
    result = run("init", "mine", "--from", "docread", "-o", "json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["application"], found["created"], found["fetched"]) == ("docread", True, ["mine/model.pt"])
    source = applications_dir() / "docread"
    fetched = {str(path.relative_to(source)) for path in load_sources(source).pinned}
    assert fetched
    assert not files(Path("mine")) & fetched
    assert {"graph.yaml", "sources.yaml", "client.py"} <= files(Path("mine"))


@pytest.mark.parametrize("name", ["social", "traffic", "ar"])
def test_an_emulated_application_can_be_planned_as_it_is(run: Run, name: str) -> None:
    result = run("init", "mine", "--from", name)
    assert files(Path("mine")) == {"graph.yaml", "profiles.csv", "README.md"}
    commands = [line.split()[1:] for line in result.stdout.splitlines() if line.startswith("  jigsaw-triton ")]
    assert "--gpus 2xH100-80GB" in result.stdout
    for command in commands:
        if command[0] != "deploy":
            assert run(*command).exit_code == 0


@pytest.mark.usefixtures("no_downloads")
def test_a_second_run_overwrites_nothing(run: Run) -> None:
    run("init", "mine", "--from", "digits")
    graph = Path("mine", "graph.yaml")
    graph.write_text(graph.read_text().replace("latency_ms: 50", "latency_ms: 60"))
    result = run("init", "mine", "--from", "digits", "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["created"] is False
    assert "latency_ms: 60" in graph.read_text()
    assert "its files are not overwritten" in result.stderr


@pytest.mark.parametrize("origin", [(), ("--from", "digits")])
def test_a_folder_with_other_files_is_refused(run: Run, origin: tuple[str, ...]) -> None:
    Path("full").mkdir()
    Path("full", "letter.txt").write_text("x")
    result = run("init", "full", *origin)
    assert result.exit_code == 2
    assert "full: the folder is not empty" in result.stderr
    assert files(Path("full")) == {"letter.txt"}


def test_a_file_in_place_of_the_folder_is_refused(run: Run) -> None:
    Path("file").write_text("x")
    result = run("init", "file")
    assert result.exit_code == 2
    assert "this is not a folder" in result.stderr


@pytest.mark.parametrize("existed", [True, False])
def test_a_failed_copy_leaves_nothing(run: Run, app: Path, monkeypatch: pytest.MonkeyPatch, existed: bool) -> None:
    (app / "models" / "lost.py").symlink_to("nowhere")
    monkeypatch.setattr(init, "SKELETON", app)
    new = Path("new")
    if existed:
        new.mkdir()
    result = run("init", new)
    assert result.exit_code == 2
    assert "the folder cannot be written" in result.stderr
    assert new.exists() == existed
    assert files(Path()) == set()


def test_an_unknown_application_is_refused(run: Run) -> None:
    result = run("init", "x", "--from", "docreed")
    assert result.exit_code == 2
    assert "there is no ready application 'docreed'" in result.stderr
    assert "did you mean 'docread'?" in result.stderr
    assert not Path("x").exists()


def test_ready_applications_are_listed(run: Run) -> None:
    result = run("init", "--list", "-o", "json")
    names = [entry["name"] for entry in json.loads(result.stdout)["applications"]]
    assert {"docread", "digits"} <= set(names)
    assert "docread" in run("init", "--list").stdout


def test_a_missing_folder_argument_is_a_usage_error(run: Run) -> None:
    result = run("init")
    assert result.exit_code == 2
    assert "Missing argument 'DIR'" in result.stderr


def test_a_failed_download_has_a_hint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> None:
        raise ArtifactError("could not be downloaded", hint="check the network")

    monkeypatch.setattr(init, "fetch_files", offline)
    result = run("init", "mine", "--from", "digits")
    assert result.exit_code == 2
    assert "hint: check the network" in result.stderr
