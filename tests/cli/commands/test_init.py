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
    monkeypatch.setattr(init, "fetched", lambda out, folder: (folder / "brought",))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_from_scratch(run: Run) -> None:
    result = run("init", "hello")
    assert result.exit_code == 0
    assert files(Path("hello")) == {"graph.yaml", "profiles.csv", "models/average.py"}
    following = [line.strip() for line in result.stdout.splitlines() if line.startswith("  jigsaw-triton ")]
    for command in following:
        if command.split()[1] != "deploy":
            assert run(*command.split()[1:]).exit_code == 0
    assert [command.split()[1] for command in following] == ["validate", "show", "plan", "deploy"]


def test_the_current_folder(run: Run) -> None:
    assert run("init", ".").exit_code == 0
    assert Path("graph.yaml").is_file()


@pytest.mark.usefixtures("no_downloads")
def test_from_a_ready_application_without_what_is_fetched(run: Run) -> None:
    result = run("init", "mine", "--from", "docread", "-o", "json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["application"], found["created"], found["fetched"]) == ("docread", True, ["mine/brought"])
    source = applications_dir() / "docread"
    later = {str(path.relative_to(source)) for path in load_sources(source).pinned}
    assert later
    assert not files(Path("mine")) & later
    assert {"graph.yaml", "sources.yaml", "client.py"} <= files(Path("mine"))


@pytest.mark.usefixtures("no_downloads")
def test_again_it_overwrites_nothing(run: Run) -> None:
    run("init", "mine", "--from", "digits")
    graph = Path("mine", "graph.yaml")
    graph.write_text(graph.read_text().replace("latency_ms: 50", "latency_ms: 60"))
    result = run("init", "mine", "--from", "digits", "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["created"] is False
    assert "latency_ms: 60" in graph.read_text()
    assert "nothing in it is overwritten" in result.stderr


@pytest.mark.parametrize("origin", [(), ("--from", "digits")])
def test_a_folder_that_holds_something_else(run: Run, origin: tuple[str, ...]) -> None:
    Path("full").mkdir()
    Path("full", "letter.txt").write_text("x")
    result = run("init", "full", *origin)
    assert result.exit_code == 2
    assert "full: the folder is not empty" in result.stderr
    assert files(Path("full")) == {"letter.txt"}


def test_a_file_where_the_folder_should_be(run: Run) -> None:
    Path("file").write_text("x")
    result = run("init", "file")
    assert result.exit_code == 2
    assert "this is no folder" in result.stderr


@pytest.mark.parametrize("there", [True, False])
def test_where_copying_fails_nothing_is_left(run: Run, app: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    (app / "models" / "lost.py").symlink_to("nowhere")
    monkeypatch.setattr(init, "SKELETON", app)
    new = Path("new")
    if there:
        new.mkdir()
    result = run("init", new)
    assert result.exit_code == 2
    assert "the folder cannot be written" in result.stderr
    assert new.exists() == there
    assert files(Path()) == set()


def test_an_application_that_is_none(run: Run) -> None:
    result = run("init", "x", "--from", "docreed")
    assert result.exit_code == 2
    assert "there is no ready application 'docreed'" in result.stderr
    assert "did you mean 'docread'?" in result.stderr
    assert not Path("x").exists()


def test_the_list(run: Run) -> None:
    result = run("init", "--list", "-o", "json")
    names = [entry["name"] for entry in json.loads(result.stdout)["applications"]]
    assert {"docread", "digits"} <= set(names)
    assert "docread" in run("init", "--list").stdout


def test_without_a_folder(run: Run) -> None:
    result = run("init")
    assert result.exit_code == 2
    assert "Missing argument 'DIR'" in result.stderr


def test_a_download_that_fails(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object) -> None:
        raise ArtifactError("could not be downloaded", hint="check the network")

    monkeypatch.setattr(init, "fetched", offline)
    result = run("init", "mine", "--from", "digits")
    assert result.exit_code == 2
    assert "hint: check the network" in result.stderr
