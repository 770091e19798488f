"""The commands of the how-to and concept pages work, and their links lead somewhere."""

import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import yaml

from jigsaw_triton.api.files import Mistakes, read_cluster
from jigsaw_triton.packages import cache_dir
from tests.cli.conftest import Run
from tests.cli.conftest import app as app
from tests.cli.conftest import kept_solvers as kept_solvers
from tests.cli.conftest import run as run
from tests.cli.conftest import solvers as solvers
from tests.fakes.nvml.machine import Machine

DOCS = Path(__file__).resolve().parents[1] / "docs"
CACHE = cache_dir()
"""Real cache folder: `run` sets another home, to which the commands would download servers and models again."""

PAGES = sorted(f"{folder}/{path.name}" for folder in ("concepts", "how-to") for path in (DOCS / folder).glob("*.md"))
UNTRIED = tuple(f"how-to/{name}.md" for name in ("compose", "kubernetes", "several-machines", "systemd"))
"""Pages about systems that the tests have only in part."""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


@contextmanager
def new_gpu(folder: Path) -> Iterator[None]:
    """Puts a GPU whose MIG mode is off into the machine inside the `with` block."""
    machine = Machine(folder / "gpus", ["H100-80GB"], mig=False)
    machine.enter()
    try:
        yield
    finally:
        machine.leave()


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_work(
    page: str, run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JIGSAW_CACHE", str(CACHE))
    shutil.copytree(app, "app")
    clusters = [text for text in blocks(page, "yaml") if "kind: Cluster" in text]
    for text in clusters:
        Path("cluster.yaml").write_text(text)
    write_graphs(page)
    for text in blocks(page, "python"):
        exec(compile(text, page, "exec"), {})
    with new_gpu(tmp_path) if page == "how-to/mig.md" else nullcontext():
        run_commands(page, run)
    for text in clusters:
        Path("cluster.yaml").write_text(text)
        mistakes = Mistakes()
        read_cluster(mistakes, cluster="cluster.yaml", driver="emulated")
        mistakes.raise_if_any()


def run_commands(page: str, run: Run) -> None:
    """Runs the commands of a page."""
    for program, *words in (shlex.split(line) for block in blocks(page, "sh") for line in block.splitlines()):
        assert program == "jigsaw-triton"
        result = run(*words)
        # Machines lack different things. If one of them is needed, `doctor` exits with 1, as for an unexpected error.
        lacking = words == ["doctor"] and "unexpected" not in result.stderr
        assert result.exit_code == 0 or lacking, result.stderr
        if "-O" in words:
            assert Path(words[words.index("-O") + 1]).exists()


def write_graphs(page: str) -> None:
    """Writes the graphs of a page, and the Python steps that they name."""
    for text in blocks(page, "yaml"):
        if "kind: TaskGraph" not in text:
            continue
        document = yaml.safe_load(text)
        folder = Path(document["metadata"]["name"])
        folder.mkdir()
        (folder / "graph.yaml").write_text(text)
        for task in document["spec"]["tasks"].values():
            if "python" in task:
                (code,) = blocks(page, "python")
                (folder / task["python"]).write_text(code)


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_to_files(page: str) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (DOCS / page).read_text())
    assert [target for target in targets if not (DOCS / page).parent.joinpath(target).exists()] == []


@pytest.mark.parametrize("page", UNTRIED)
def test_a_page_says_what_was_not_tried(page: str) -> None:
    _, section = (DOCS / page).read_text().split("\n## Tests so far\n")
    assert "Not tried yet: " in section.replace("\n", " ")
