import threading

import pytest

from jigsaw_triton.errors import MigTimeoutError
from jigsaw_triton.gpus.nvml_calls import Calls


def test_results_and_exceptions_are_passed_on() -> None:
    calls = Calls()
    assert calls.read("a number", lambda: 7) == 7
    with pytest.raises(KeyError, match="x"):
        # The empty dictionary makes the call fail with a KeyError.
        calls.read("nothing", lambda: {}["x"])  # type: ignore[index]
    assert calls.read("a number", lambda: 8) == 8


def test_a_timeout_error_from_the_call_itself_is_passed_on() -> None:
    def late() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        Calls().read("something", late)


def test_one_thread_makes_all_calls_until_one_hangs() -> None:
    calls, release = Calls(timeout_s=0.05), threading.Event()
    first = calls.read("the thread", threading.get_ident)
    assert calls.read("the thread", threading.get_ident) == first
    with pytest.raises(MigTimeoutError, match=r"the driver has not answered within 0\.05 s") as caught:
        calls.read("waiting", release.wait)
    assert caught.value.where == "waiting"
    assert calls.read("the thread", threading.get_ident) != first
    release.set()
