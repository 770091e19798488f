import resource
import subprocess
import sys

import pytest

from jigsaw_triton.servers.memory import heap_limit, lift_heap_limit, limit_heap

GROWS = "import sys; print('ready', flush=True); sys.stdin.readline(); bytearray(2**30)"


def test_the_limit_includes_the_stacks_of_threads() -> None:
    status = "Name:\ttritonserver\nThreads:\t4\n"
    assert heap_limit(status, 2**20, 100) == 120 * 2**20
    assert heap_limit(status, resource.RLIM_INFINITY, 100) == 140 * 2**20


@pytest.mark.slow
def test_a_process_that_exceeds_the_limit_ends() -> None:
    for lifted, words in ((False, "MemoryError"), (True, "")):
        with subprocess.Popen(
            [sys.executable, "-c", GROWS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            assert limit_heap(process.pid, 512)
            if lifted:
                lift_heap_limit(process.pid)
            _, stderr = process.communicate("\n", timeout=60)
        assert words in stderr
        assert (process.returncode == 0) == lifted
    assert not limit_heap(process.pid, 512)
