import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("shell", "sign"), [("bash", "complete -o"), ("zsh", "#compdef"), ("fish", "complete --no")])
def test_each_shell_has_a_script(run: Run, shell: str, sign: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert sign in result.stdout
    assert "_JIGSAW_TRITON_COMPLETE" in result.stdout
    assert json.loads(run("completion", shell, "-o", "json").stdout)["script"] in result.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_accepts_the_script(run: Run) -> None:
    script = run("completion", "bash").stdout
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_an_unknown_shell_is_refused(run: Run) -> None:
    result = run("completion", "tcsh")
    assert result.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("jigsaw-triton pl", {"plan"}),
        ("jigsaw-triton --ver", {"--version"}),
        ("jigsaw-triton show x --format m", {"mermaid"}),
        ("jigsaw-triton plan --dem", {"--demand"}),
    ],
)
def test_commands_and_options_are_completed(words: str, found: set[str]) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "jigsaw_triton.cli.main"],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_JIGSAW_TRITON_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
    )
    assert {line.split(",")[1] for line in ran.stdout.splitlines()} == found
