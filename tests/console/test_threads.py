import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from jigsaw_triton.console.threads import started_pool


def names() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("blocking")]


def test_all_threads_of_a_pool_run_from_the_start() -> None:
    with started_pool(3):
        assert len(names()) == 3


def test_threads_end_if_the_machine_has_none_left_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    submit, calls = ThreadPoolExecutor.submit, []

    def limited(self: ThreadPoolExecutor, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise RuntimeError("can't start new thread")
        return submit(self, *args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", limited)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        started_pool(3)
    assert names() == []
