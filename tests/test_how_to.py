"""The commands of the how-to pages work, and their links lead somewhere."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from jigsaw_triton.api.files import Mistakes, read_cluster
from tests.cli.conftest import Run
from tests.cli.conftest import app as app
from tests.cli.conftest import run as run

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "how-to"
PAGES = sorted(path.name for path in FOLDER.glob("*.md"))
UNTRIED = ("compose.md", "kubernetes.md", "several-machines.md", "systemd.md")
"""Pages about systems that the tests have only in part."""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (FOLDER / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_work(page: str, run: Run, app: Path) -> None:
    shutil.copytree(app, "app")
    clusters = [text for text in blocks(page, "yaml") if "kind: Cluster" in text]
    for text in clusters:
        Path("cluster.yaml").write_text(text)
    write_graphs(page)
    for text in blocks(page, "python"):
        exec(compile(text, page, "exec"), {})
    commands = [shlex.split(line) for block in blocks(page, "sh") for line in block.splitlines()]
    for program, *words in commands:
        assert program == "jigsaw-triton"
        result = run(*words)
        assert result.exit_code == 0, result.stderr
        if "-O" in words:
            assert Path(words[words.index("-O") + 1]).exists()
    for text in clusters:
        Path("cluster.yaml").write_text(text)
        mistakes = Mistakes()
        read_cluster(mistakes, cluster="cluster.yaml", driver="emulated")
        mistakes.raise_if_any()


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
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (FOLDER / page).read_text())
    assert [target for target in targets if not (FOLDER / target).exists()] == []


@pytest.mark.parametrize("page", UNTRIED)
def test_a_page_says_what_was_not_tried(page: str) -> None:
    _, section = (FOLDER / page).read_text().split("\n## Tests so far\n")
    assert "Not tried yet: " in section.replace("\n", " ")
