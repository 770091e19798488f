"""Processes in the background, with other programs in place of those of the project."""

import os
import signal
import sys
from pathlib import Path

import pytest

from jigsaw_triton.errors import JigsawError
from jigsaw_triton.servers.background_process import started
from tests.waiting import eventually


def test_a_process_that_answers_goes_on(tmp_path: Path) -> None:
    code = "import os, time; print(os.environ['WORD'], flush=True); time.sleep(600)"
    log = tmp_path / "log"
    with started("the program", [sys.executable, "-c", code], log, {"WORD": "here"}) as process:
        eventually(lambda: log.read_text() == "here\n")
    assert process.poll() is None
    assert os.getsid(process.pid) == process.pid
    process.end(signal.SIGTERM)
    assert process.poll() == -signal.SIGTERM


def test_a_process_that_does_not_answer_is_ended(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("of an earlier program\n")
    code = "import time; print('no port', flush=True); time.sleep(600)"
    with (
        pytest.raises(
            JigsawError,
            match=r"the program did not start; its log ends with:\n  no port; correct what",
        ) as caught,
        started("the program", [sys.executable, "-c", code], log) as process,
    ):
        eventually(lambda: "no port" in log.read_text())
        raise process.failure()
    assert caught.value.where == str(log)
    assert process.poll() == -signal.SIGKILL
