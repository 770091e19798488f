"""The commands of the tutorials, how-to pages and concept pages work, and their links lead somewhere."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
from tests.docs import readers
from tests.docs.pages import COMMANDS, DEPLOYED, DOCS, PAGES, UNTRIED, blocks, every_block
from tests.waiting import WAIT_LIMIT_S

CACHE = cache_dir()
"""Real cache folder: `run` sets another home, to which the commands would download servers and models again."""

UNTRIED_SYSTEMS = tuple(f"how-to/{name}.md" for name in ("compose", "kubernetes", "several-machines", "systemd"))
"""Pages about systems that the tests have only in part."""

PREPARED: dict[str, Callable[[Path, pytest.MonkeyPatch], AbstractContextManager[None]]] = {
    "how-to/cells.md": readers.controller,
    "how-to/console.md": readers.controller,
    "how-to/mig.md": readers.new_gpu,
    "how-to/ray.md": readers.machines,
    "how-to/several-machines.md": readers.machines,
    "how-to/systemd.md": readers.front,
    "tutorial/accuracies.md": readers.labelled,
    "tutorial/models.md": readers.models,
    "tutorial/profiles.md": readers.profiled,
}
"""Page -> what its reader has, apart from the application `app`."""


SLOW = (
    "concepts/changes.md",
    "concepts/jigsaw.md",
    "how-to/capacity-planning.md",
    "how-to/mig.md",
    "how-to/several-graphs.md",
    "tutorial/models.md",
)
"""Pages whose commands take more than about half a second."""


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [])
        for page in PAGES
        if "sh" not in DEPLOYED.get(page, ())
    ],
)
def test_the_commands_of_a_page_work(
    page: str, run: Run, app: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JIGSAW_CACHE", str(CACHE))
    shutil.copytree(app, "app")
    clusters = [block.text for block in blocks(page, "yaml") if "kind: Cluster" in block.text]
    for text in clusters:
        Path("cluster.yaml").write_text(text)
    write_graphs(page)
    for block in blocks(page, "python"):
        if not (block.title or page.startswith("tutorial/")):
            exec(compile(block.text, page, "exec"), {})
    with unchanged_umask(), PREPARED.get(page, readers.nothing)(tmp_path, monkeypatch):
        run_commands(page, run)
    for text in clusters:
        Path("cluster.yaml").write_text(text)
        mistakes = Mistakes()
        read_cluster(mistakes, cluster="cluster.yaml", driver="emulated")
        mistakes.raise_if_any()


@contextmanager
def unchanged_umask() -> Iterator[None]:
    """Restores the umask after the `with` block. Commands that run servers change it."""
    before = os.umask(0o022)
    try:
        yield
    finally:
        os.umask(before)


def run_commands(page: str, run: Run) -> None:
    """Runs the commands of a page, those of other programs in a shell."""
    for line in (line for block in blocks(page, "sh") for line in block.text.replace("\\\n", "").splitlines()):
        if not line.startswith("jigsaw-triton "):
            subprocess.run(["bash", "-euc", line], check=True, timeout=WAIT_LIMIT_S)
            continue
        _, *words = shlex.split(line, comments=True)
        # Folders of the test replace those of a reader's machine.
        words = [word.replace("/srv/", "").replace("/var/lib/", "") for word in words]
        result = run(*words)
        # `doctor` exits with 1 if the machine lacks something that is needed, and also for an unexpected error.
        lacking = words == ["doctor"] and "unexpected" not in result.stderr
        assert result.exit_code == 0 or lacking, f"{line}: {result.stderr}"
        if "-O" in words:
            assert Path(words[words.index("-O") + 1]).exists()


def write_graphs(page: str) -> None:
    """Writes the graphs of a page, and the Python steps that they name."""
    for block in blocks(page, "yaml"):
        if "kind: TaskGraph" not in block.text:
            continue
        document = yaml.safe_load(block.text)
        folder = Path(document["metadata"]["name"])
        folder.mkdir()
        (folder / "graph.yaml").write_text(block.text)
        for task in document["spec"]["tasks"].values():
            if "python" in task:
                (code,) = blocks(page, "python")
                (folder / task["python"]).write_text(code.text)


@pytest.mark.parametrize("page", PAGES)
def test_a_test_runs_each_block_of_commands(page: str) -> None:
    """Commands in a block of another language would be forgotten."""
    run = {"sh", *DEPLOYED.get(page, ())}
    found = every_block(page)
    # Indented blocks must not exist, because `every_block` does not find them.
    assert len(re.findall(r"^\s*(?:```|~~~)", (DOCS / page).read_text(), re.MULTILINE)) == 2 * len(found)
    assert [block.text for block in found if not block.language] == []
    assert [block.text for block in found if block.language in COMMANDS and block.language not in run] == []
    assert [
        block.text
        for block in found
        if block.language not in COMMANDS and re.search("^(jigsaw-triton|pip) ", block.text, re.MULTILINE)
    ] == []


def test_blocks_that_no_test_runs_exist() -> None:
    assert DEPLOYED.keys() | UNTRIED.keys() <= set(PAGES)
    for page, untried in UNTRIED.items():
        first = [block.first for block in every_block(page) if block.language in COMMANDS]
        assert untried.keys() <= set(first), page
    for page, languages in DEPLOYED.items():
        assert set(languages) == {block.language for block in blocks(page, *languages)}, page


def test_a_page_that_names_a_package_says_where_it_comes_from() -> None:
    pages = [path for path in DOCS.rglob("*.md") if re.search(r"pip install ['\"]jigsaw-triton\[", path.read_text())]
    assert len(pages) > 5
    assert [path for path in pages if path.name != "install.md" and "install.md)" not in path.read_text()] == []


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_to_files(page: str) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (DOCS / page).read_text())
    assert [target for target in targets if not (DOCS / page).parent.joinpath(target).exists()] == []


@pytest.mark.parametrize("page", UNTRIED_SYSTEMS)
def test_a_page_says_what_was_not_tried(page: str) -> None:
    _, section = (DOCS / page).read_text().split("\n## Tests so far\n")
    assert "not been tried yet" in section.replace("\n", " ")
