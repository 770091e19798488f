"""The commands of pages that need a running deployment work, one after the other, as a reader types them.

`tests/docs/pages.py` says which blocks these are.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DEPLOYED, blocks
from tests.e2e.commands import commands
from tests.e2e.system import System

pytestmark = pytest.mark.e2e

SKELETON = Path(__file__).resolve().parents[2] / "jigsaw_triton" / "cli" / "commands" / "skeleton"


def follow(page: str, folder: Path, system: System) -> str:
    """Runs the blocks of a page and returns what they print. Blocks with a title are files."""
    binaries, forks = Path(sys.executable).parent, folder / "forks"
    forks.mkdir()
    requests = commands(os.environ).write_program(forks / "jigsaw-triton")
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(map(str, (forks, binaries, os.environ["PATH"]))),
        "JIGSAW_STATE": str(system.state),
        "JIGSAW_HTTP": str(system.http),
        "JIGSAW_GRPC": str(system.grpc),
        "JIGSAW_METRICS": str(system.metrics),
        # A reader measures longer, and more configurations.
        "JIGSAW_SECONDS": "0.2",
        "JIGSAW_INSTANCES": "1",
        "JIGSAW_BATCHES": "1",
        "JIGSAW_SLICES": "1g",
        "JIGSAW_DURATION": "1",
    }
    printed = []
    for language, title, text in blocks(page, *DEPLOYED[page], "yaml"):
        text = text.replace("localhost:8000", f"localhost:{system.http}")
        if title:
            (folder / title).write_text(text)
        if title or language == "yaml":
            continue
        command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euxc", text]
        with subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            pass_fds=[requests],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        ) as ran:
            try:
                out, err = ran.communicate(timeout=240)
            except BaseException:
                # The commands of the block are in its group, also those that are forks.
                os.killpg(ran.pid, signal.SIGKILL)
                raise
        assert ran.returncode == 0, out + err
        printed.append(out)
    return "".join(printed)


# A dozen servers and commands load torch, one after the other.
@pytest.mark.timeout(900)
def test_the_first_application(system: System, tmp_path: Path) -> None:
    printed = follow("tutorial/first-application.md", tmp_path, system)
    assert [line for line in printed.splitlines() if line.startswith("at ")]
    assert "queue" in printed
    system.wait_gone()


@pytest.mark.parametrize("page", ["how-to/accuracy.md", "how-to/several-graphs.md", "how-to/updates.md"])
def test_a_page_about_deployments(system: System, tmp_path: Path, page: str) -> None:
    for name in ("app", "other"):
        shutil.copytree(SKELETON, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        graph = tmp_path / name / "graph.yaml"
        graph.write_text(graph.read_text().replace("{name: hello}", f"{{name: {name}}}"))
    printed = follow(page, tmp_path, system)
    assert ("close" if page == "how-to/accuracy.md" else "generation") in printed
