import os
import resource
import select
import subprocess
import sys
from pathlib import Path

import pytest

from jigsaw_triton.servers import launcher

PARENT = """
import os, subprocess, sys
command = [sys.executable, "-I", "-S", sys.argv[1], str(os.getpid()), "ends", "/bin/cat"]
child = subprocess.Popen(command, stdin=subprocess.PIPE)
print(child.pid, flush=True)
sys.stdin.read()
"""

RUN_LAUNCHER = """
import os, subprocess, sys
ask = ["/bin/sh", "-c", "ulimit -Sn"]
subprocess.run([sys.executable, "-I", "-S", sys.argv[1], str(os.getpid()), "ends", *ask], check=True)
"""


def test_the_program_ends_with_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, launcher.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    # The signal arrives whether the child is still the launcher or already the program.
    ended, _, _ = select.select([child], [], [], 30)
    os.close(child)
    assert ended


@pytest.mark.parametrize("fate", [launcher.ENDS, launcher.SURVIVES])
def test_nothing_is_run_if_the_parent_has_already_ended(tmp_path: Path, fate: str) -> None:
    mark = tmp_path / "ran"
    not_the_parent = str(os.getpid() + 1)
    command = [sys.executable, "-I", "-S", launcher.__file__, not_the_parent, fate, "/bin/touch", str(mark)]
    assert subprocess.run(command, check=False).returncode == 1
    assert not mark.exists()


def test_the_soft_limit_on_open_files_is_raised() -> None:
    limits = 'ulimit -Sn 256; "$@"'
    command = ["/bin/sh", "-c", limits, "sh", sys.executable, "-I", "-S", "-c", RUN_LAUNCHER, launcher.__file__]
    limit = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    most = 2**16 if hard == resource.RLIM_INFINITY else min(hard, 2**16)
    assert limit == f"{most}\n"


@pytest.mark.parametrize(
    ("asked", "soft", "expected"), [("64", "8192", "65536"), ("64", "131072", "131072"), ("", "8192", "8192")]
)
def test_the_stack_size_of_threads_is_raised(asked: str, soft: str, expected: str) -> None:
    assert Path("/proc/sys/vm/overcommit_memory").read_text().strip() != "2", (
        "the launcher does not change stacks under strict overcommit"
    )
    limits = f'ulimit -Ss {soft}; JIGSAW_STACK_MIB={asked} "$@"'
    run = RUN_LAUNCHER.replace("ulimit -Sn", "ulimit -Ss")
    command = ["/bin/sh", "-c", limits, "sh", sys.executable, "-I", "-S", "-c", run, launcher.__file__]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == f"{expected}\n"


def test_the_program_gets_its_arguments() -> None:
    command = [sys.executable, "-I", "-S", launcher.__file__, str(os.getpid()), "ends", "/bin/echo", "--a=b", "c d"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "--a=b c d\n"
