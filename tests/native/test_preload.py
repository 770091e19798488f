"""The library that servers preload, in a Python interpreter that runs under the name of a tritonserver."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from native.build import build_backend

SHOW = """
import json, os, subprocess, sys, tempfile
from pathlib import Path
child = 'import os, json; print(json.dumps(os.environ.get("LD_PRELOAD")))'
with tempfile.TemporaryFile() as file:
    os.fchmod(file.fileno(), 0o644)
    mode = os.fstat(file.fileno()).st_mode & 0o777
json.dump({
    "seen": sys.argv[1:],
    "shown": Path("/proc/self/cmdline").read_bytes().decode().split("\\0")[-len(sys.argv):-1],
    "preload": json.loads(subprocess.check_output([sys.executable, "-c", child])),
    "umask": os.umask(0),
    "mode": mode,
}, sys.stdout)
"""
SECRET = "models:x-secret=0123456789abcdef"


@pytest.fixture(scope="module")
def library() -> Path:
    return build_backend()[1]


def run(program: Path, library: Path, *arguments: str, more: str = "") -> subprocess.CompletedProcess[str]:
    program.symlink_to(sys.executable)
    return subprocess.run(
        [program, "-c", SHOW, *arguments],
        env={"LD_PRELOAD": f"{library}{more}", "PYTHONHOME": sys.base_prefix},
        capture_output=True,
        text=True,
        umask=0o022,
        timeout=60,
        check=False,
    )


def shown(program: Path, library: Path, *arguments: str, more: str = "") -> dict[str, Any]:
    ran = run(program, library, *arguments, more=more)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a=b é"
    path.write_text(SECRET)
    return path


def test_a_server_gets_the_content_of_a_file_and_the_kernel_shows_its_path(
    library: Path, tmp_path: Path, file: Path
) -> None:
    given = [f"--api=@{file}", f"--id=x@{file}", f"@{file}", "--flag", f"--protocol=@{file}"]
    found = shown(tmp_path / "tritonserver", library, *given)
    assert found["seen"] == [f"--api={SECRET}", f"--id=x@{file}", f"@{file}", "--flag", f"--protocol={SECRET}"]
    assert found["shown"] == given


def test_a_program_that_starts_the_server_keeps_the_path(library: Path, tmp_path: Path, file: Path) -> None:
    found = shown(tmp_path / "launcher", library, f"--api=@{file}")
    assert found["seen"] == [f"--api=@{file}"]
    assert found["preload"] == str(library)


@pytest.mark.parametrize(("more", "left"), [("", None), (":/usr/lib/other.so", "/usr/lib/other.so")])
def test_processes_of_the_server_do_not_load_the_library(
    library: Path, tmp_path: Path, more: str, left: str | None
) -> None:
    assert shown(tmp_path / "tritonserver", library, more=more)["preload"] == left


def test_what_the_server_creates_is_accessible_to_its_user_alone(library: Path, tmp_path: Path) -> None:
    found = shown(tmp_path / "tritonserver", library)
    assert (found["umask"], found["mode"]) == (0o077, 0o600)


@pytest.mark.parametrize("content", [None, ""])
def test_a_server_does_not_start_without_the_content(library: Path, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    ran = run(tmp_path / "tritonserver", library, f"--api=@{file}")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"--api: the file {file} cannot be read" in ran.stderr
