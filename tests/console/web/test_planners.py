import asyncio
from typing import Any

import pytest

from jigsaw_triton.child_process import ChildEndedError, ChildHungError
from jigsaw_triton.console.web import planners as module
from jigsaw_triton.console.web.planners import PlannerProcess, Planners
from jigsaw_triton.console.web.planning_worker import _Worker
from jigsaw_triton.errors import InputError, JigsawError, StateError
from jigsaw_triton.planner.solver.solver import SolverProcess
from tests.console.web.test_what_if import MADE
from tests.controller.worlds import generation


class Kept:
    """Generations that are kept under any number.

    Attributes:
        read: Numbers of the generations that were read.
    """

    def __init__(self, version: str, state: bytes) -> None:
        self.read: list[int] = []
        self._answer = version, state

    def generation_state(self, number: int) -> tuple[str, bytes]:
        self.read.append(number)
        return self._answer


class Child:
    """A stand-in for a planner's process."""

    def __init__(self, answers: list[Any], *_: object, **__: object) -> None:
        self.pid, self.alive = 7, True
        self.requests: list[Any] = []
        self._answers = answers

    def call(self, request: Any, _timeout_s: float) -> Any:
        self.requests.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception) and not isinstance(answer, JigsawError):
            raise answer
        return answer

    def close(self) -> None:
        self.alive = False


def asked(
    monkeypatch: pytest.MonkeyPatch, answers: list[Any], numbers: list[int], kept: Kept
) -> tuple[Child, list[Any]]:
    """Asks a process about generations, and returns it with the answers or errors."""
    child = Child(answers)
    monkeypatch.setattr(module, "ChildProcess", lambda *_, **__: child)
    process = PlannerProcess(kept, 1.0)

    async def ask() -> list[Any]:
        found: list[Any] = []
        for number in numbers:
            try:
                found.append(await process.ask("what_if", number, {}))
            except JigsawError as error:
                found.append(error)
        return found

    return child, asyncio.run(ask())


def test_a_generation_is_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept("v", b"state")
    child, found = asked(monkeypatch, [{"n": 1}, {"n": 2}, {"n": 3}], [1, 1, 2], kept)
    assert found == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert [request[2] for request in child.requests] == [("v", b"state"), None, ("v", b"state")]
    assert kept.read == [1, 2]


def test_errors_of_the_process_are_those_of_the_question(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [InputError("no"), ChildEndedError(-9), ChildHungError(), {}]
    child, found = asked(monkeypatch, answers, [1, 1, 1, 1], Kept("v", b"state"))
    assert [str(error).partition(";")[0] for error in found[:3]] == [
        "no",
        "the planner's process ended with status -9",
        "the planner did not answer within 1 s",
    ]
    assert found[3] == {}
    assert child.requests[3][2] is not None


def test_a_generation_that_is_not_kept_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    _, (error,) = asked(monkeypatch, [], [1], Kept("", b""))
    assert isinstance(error, StateError)
    assert "no longer kept" in error.message


def test_only_the_last_of_the_questions_that_wait_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    answered: list[Any] = []

    async def slow(_: PlannerProcess, _kind: str, _number: int, asked: Any) -> Any:
        begun.set()
        await go_on.wait()
        answered.append(asked["n"])
        return asked

    monkeypatch.setattr(PlannerProcess, "ask", slow)

    async def ask() -> list[Any]:
        planners = Planners(Kept("v", b"state"))
        questions = [asyncio.create_task(planners.what_if(1, {"n": 0}))]
        await begun.wait()
        questions += [asyncio.create_task(planners.what_if(1, {"n": n})) for n in (1, 2, 3)]
        await asyncio.sleep(0)
        go_on.set()
        found = await asyncio.gather(*questions, return_exceptions=True)
        await planners.close()
        return list(found)

    first, *replaced, last = asyncio.run(ask())
    assert (first, last) == ({"n": 0}, {"n": 3})
    assert all(isinstance(error, StateError) and "later question" in error.message for error in replaced)
    assert answered == [0, 3]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (StateError("no longer kept"), "no longer kept"),
        (AttributeError("no such thing"), "AttributeError: no such thing; see the console's log"),
    ],
)
def test_a_failed_explanation_says_why(monkeypatch: pytest.MonkeyPatch, error: Exception, text: str) -> None:
    async def fail(*_: object) -> Any:
        raise error

    monkeypatch.setattr(PlannerProcess, "ask", fail)

    async def ask() -> None:
        planners = Planners(Kept("v", b"state"))
        assert planners.explanation(4) is None
        planners.explain(4)
        begun = planners.explanation(4)
        assert begun is not None
        assert begun.in_progress
        (task,) = (t for t in asyncio.all_tasks() if t.get_name() == "explanation")
        await task
        found = planners.explanation(4)
        assert found is not None
        assert (found.explanation, found.error) == (None, text)
        assert planners.explanation(5) is None
        # A page that only shows a failed explanation does not begin it again; a user who asks for it does.
        planners.explain(4)
        assert planners.explanation(4) == found
        planners.explain(4, again=True)
        again = planners.explanation(4)
        assert again is not None
        assert again.in_progress
        planners.explain(4, again=True)
        assert planners.explanation(4) is again
        await planners.close()

    asyncio.run(ask())


def test_the_worker_reports_what_it_cannot_answer() -> None:
    worker = _Worker()
    unknown = worker.answer("what_if", 1, None, {}, SolverProcess)
    assert isinstance(unknown, StateError)
    other = worker.answer("what_if", 1, ("0.0.1/1", b""), {}, SolverProcess)
    assert isinstance(other, StateError)
    assert "another release" in other.message
    worker._number, worker._generation = 1, MADE
    wrong = worker.answer("what_if", 1, None, {"gpus": 0}, SolverProcess)
    assert isinstance(wrong, InputError)
    worker._generation = generation(MADE.bundle)
    fault = worker.answer("explain", 1, None, {}, SolverProcess)
    assert isinstance(fault, JigsawError)
