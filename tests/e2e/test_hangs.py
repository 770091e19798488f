"""Models and Python steps that hang: the gateway condemns their worker, and the controller restarts it."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from jigsaw_triton.servers.process import python_stubs
from tests.e2e.app import SQUARE, write_application
from tests.e2e.clients import Client, Crowd, expected
from tests.e2e.system import System
from tests.e2e.test_python_steps import SCALE
from tests.e2e.test_python_steps import write as write_steps

pytestmark = pytest.mark.e2e

STOPPED_S = 2.0
"""Seconds for which processes are stopped. They then continue with their old calls."""

SLEEPY = -777
SLEEPING = SQUARE.replace(
    "        time.sleep",
    f'        if (inputs["NUMBER"] == {SLEEPY}).any():\n            time.sleep(600)\n        time.sleep',
)
"""Source of a square model that hangs on one number."""

HANGING = SCALE.replace(
    "    if 13 in NUMBERS:",
    "    if 14 in NUMBERS:\n        time.sleep(600)\n    if 15 in NUMBERS:\n        os._exit(1)\n    if 13 in NUMBERS:",
).replace("import numpy", "import os\nimport time\n\nimport numpy")
"""Source of a step that hangs on one number and ends its process on another."""


@pytest.fixture(scope="module")
def served(shared: System, tmp_path_factory: pytest.TempPathFactory) -> System:
    folder = tmp_path_factory.mktemp("apps")
    words = write_application(folder / "words", square=SLEEPING)
    scaled = write_steps(folder / "scaled", HANGING)
    shared.deploy(words, scaled, "--gpus", "2xcpu", "--demand", "words=60,scaled=5")
    return shared


@contextmanager
def asking(system: System) -> Iterator[Callable[[int], None]]:
    """Runs clients of the graph with a Python step and checks their answers.

    Yields:
        Function that waits for a number of further answers.
    """
    stop, changed = threading.Event(), threading.Condition()
    answers, failures = [0], list[str]()

    def ask(client: Client, number: int) -> str:
        try:
            answer = client.ask("scaled", {"NUMBERS": np.array([[number, number + 1]], np.int64)}, ("ROWS", "DOUBLED"))
        except InferenceServerException as error:
            return str(error)
        right = [[10 * number], [10 * number + 10]], [[20 * number], [20 * number + 20]]
        return "" if (answer["ROWS"][0].tolist(), answer["DOUBLED"][0].tolist()) == right else f"{number}: {answer}"

    def run(first: int) -> None:
        with Client(system, "grpc") as client:
            for number in range(first, first + 100_000):
                if stop.wait(0.1):
                    return
                failure = ask(client, number)
                with changed:
                    failures.extend([failure] if failure else [])
                    answers[0] += 1
                    changed.notify_all()

    def wait(count: int) -> None:
        with changed:
            goal = answers[0] + count
            assert changed.wait_for(lambda: answers[0] >= goal, 60)

    threads = [threading.Thread(target=run, args=(100_000 * (n + 1),)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        wait(len(threads))
        yield wait
        wait(20)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.parametrize("task", ["square", "total"], ids=["one of several", "the only one"])
def test_a_stopped_model_process_never_answers_with_another_requests_result(served: System, task: str) -> None:
    before = served.worker_of(task)
    last = served.last_event()
    with Crowd(served, 12, pause_s=0.05) as crowd:
        stubs = list(python_stubs({before["pid"]}))
        assert stubs
        for stub in stubs:
            os.kill(stub, signal.SIGSTOP)
        time.sleep(STOPPED_S)
        for stub in stubs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(stub, signal.SIGCONT)
        last = served.wait_event(f"condemned: worker {before['name']}, model words.{task}.", after=last)
        cause = "killed, because the gateway condemned it"
        last = served.wait_event(f"worker {before['name']} ended unexpectedly ({cause})", after=last)
        served.wait_event(f"{before['name']} serves again", after=last)
        crowd.wait_answers(60)
    crowd.assert_none_failed()
    after = next(w for w in served.status()["workers"] if w["name"] == before["name"])
    assert (after["state"], after["models"]) == ("ready", before["models"])
    assert after["pid"] != before["pid"]
    assert not served.status()["degraded"]


def test_only_the_request_that_makes_a_model_hang_fails(served: System) -> None:
    last = served.last_event()
    with Crowd(served) as crowd, Client(served, "grpc") as client:
        with pytest.raises(
            InferenceServerException, match=r"task square: worker .* did not answer a batch of .* within"
        ):
            client.squares([SLEEPY])
        assert client.squares([3, 4]) == expected([3, 4])
        last = served.wait_event("did not answer a batch of", after=last)
        served.wait_event("serves again", after=last)
        crowd.wait_answers(30)
    crowd.assert_none_failed()
    assert served.run("status", "--wait", "ready").code == 0


@pytest.mark.parametrize("number", [14, 15], ids=["hangs", "ends its process"])
def test_only_the_request_that_makes_a_step_fail_is_lost(served: System, number: int) -> None:
    last = served.last_event()
    with asking(served) as wait, Client(served, "http") as client:
        with pytest.raises(InferenceServerException, match="task scale: worker steps-scaled failed: "):
            client.ask("scaled", {"NUMBERS": np.array([[number]], np.int64)}, ("ROWS",))
        last = served.wait_event("condemned: worker steps-scaled, model scaled.scale.", after=last)
        served.wait_event("steps-scaled serves again", after=last)
        wait(20)
    assert served.run("status", "--wait", "ready").code == 0


def test_a_stopped_step_is_restarted(served: System) -> None:
    before = next(w for w in served.status()["workers"] if w["name"] == "steps-scaled")
    last = served.last_event()
    with asking(served):
        for stub in python_stubs({before["pid"]}):
            os.kill(stub, signal.SIGSTOP)
        last = served.wait_event("condemned: worker steps-scaled, model scaled.scale.", after=last)
        served.wait_event("steps-scaled serves again", after=last)


def test_a_damaged_report_of_the_gateway_is_reported_and_removed(served: System) -> None:
    last = served.last_event()
    folder = served.run_dir / "condemned"
    folder.mkdir(exist_ok=True)
    report = folder / "somebody.json"
    report.write_text("{")
    served.wait_event("error: ignored the gateway's report somebody.json, which cannot be read", after=last)
    assert not report.exists()


def test_a_report_about_a_replaced_server_does_not_affect_its_successor(served: System) -> None:
    worker = served.worker_of("split")
    last = served.last_event()
    report = served.run_dir / "condemned" / f"{worker['name']}.json"
    report.parent.mkdir(exist_ok=True)
    # Written as the gateway does: a report that is half written counts as damaged.
    new = report.with_suffix(".new")
    new.write_text(f'{{"worker": "{worker["name"]}", "model": "m", "reason": "it hangs", "identity": 1}}')
    new.replace(report)
    served.wait_event("it hangs; its server has already been replaced", after=last)
    assert served.worker_of("split")["pid"] == worker["pid"]
