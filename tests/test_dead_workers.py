"""A run of tests in several workers ends if a test kills its worker."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import WAIT_LIMIT_S

PROJECT = Path(__file__).parents[1]
PASSES = """
def test_passes():
    pass
"""
KILLS = """
import os

def test_kills():
    os._exit(1)
"""


def run(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """Runs a folder of test files, one of which contains these tests too."""
    (folder / "pytest.ini").touch()
    for name in "abcdefgh":
        (folder / f"test_{name}.py").write_text(PASSES + (tests if name == "d" else ""))
    options = ["-n", "2", "--dist", "loadfile", "--max-worker-restart", "0", "-p", "tests.dead_workers"]
    command = [sys.executable, "-m", "pytest", *options, str(folder)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=WAIT_LIMIT_S)


@pytest.mark.slow
def test_a_dead_worker_ends_the_run(tmp_path: Path) -> None:
    ended = run(tmp_path, KILLS)
    assert ended.returncode == pytest.ExitCode.INTERNAL_ERROR, ended.stdout


@pytest.mark.slow
def test_failed_tests_keep_their_exit_status(tmp_path: Path) -> None:
    ended = run(tmp_path, "def test_fails():\n    assert False\n")
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout
    assert "1 failed, 8 passed" in ended.stdout
