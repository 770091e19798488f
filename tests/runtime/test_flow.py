import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.runtime.dtypes import Array
from jigsaw_triton.runtime.flow import Flow, FlowError, Gathering, Outcome, plan_flow
from jigsaw_triton.runtime.spec import PipelineSpec, PipelineStep
from tests.waiting import WAIT_LIMIT_S


def step(model: str, *inputs: str) -> PipelineStep:
    """Returns a step with inputs I0, I1, ... and outputs Y and Z."""
    return PipelineStep(model, {f"I{n}": t for n, t in enumerate(inputs)}, {"Y": f"{model}.Y", "Z": f"{model}.Z"})


DIAMOND = PipelineSpec(
    "g",
    {"X": "inputs.X"},
    {"OUT": "d.Y", "SIDE": "c.Z", "EARLY": "a.Z", "SAME": "inputs.X"},
    (step("a", "inputs.X"), step("b", "a.Y"), step("c", "a.Y"), step("d", "b.Y", "c.Y")),
)


def add_up(step: PipelineStep, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Returns outputs that are one more than the sum of all inputs."""
    total = np.asarray(sum(inputs.values()))
    return {name: total + 1 for name in step.outputs}


def run(
    spec: PipelineSpec,
    wanted: tuple[str, ...],
    call: Callable[[PipelineStep, Mapping[str, Array]], Mapping[str, Array]] = add_up,
) -> Outcome:
    outcomes: SimpleQueue[Outcome] = SimpleQueue()
    with ThreadPoolExecutor(8) as pool:
        Flow(plan_flow(spec, wanted), {"inputs.X": np.array([1.0])}, call, pool.submit, outcomes.put).start()
        # This must happen inside the block, because a pool that is being closed accepts no further steps.
        outcome = outcomes.get(timeout=WAIT_LIMIT_S)
    assert outcomes.empty()
    return outcome


def test_a_diamond_is_executed() -> None:
    outcome = run(DIAMOND, ("OUT", "SIDE", "EARLY", "SAME"))
    assert isinstance(outcome, dict)
    assert {name: array.tolist() for name, array in outcome.items()} == {
        "OUT": [7.0],
        "SIDE": [3.0],
        "EARLY": [2.0],
        "SAME": [1.0],
    }


@pytest.mark.parametrize(
    ("wanted", "models"),
    [
        (("OUT",), ["a", "b", "c", "d"]),
        (("SIDE",), ["a", "c"]),
        (("EARLY",), ["a"]),
        (("SAME",), []),
        (("EARLY", "SIDE"), ["a", "c"]),
    ],
)
def test_unnecessary_steps_are_omitted(wanted: tuple[str, ...], models: list[str]) -> None:
    called: list[str] = []

    def call(step: PipelineStep, inputs: Mapping[str, Array]) -> dict[str, Array]:
        called.append(step.model)
        return add_up(step, inputs)

    outcome = run(DIAMOND, wanted, call)
    assert isinstance(outcome, dict)
    assert tuple(outcome) == wanted
    assert sorted(called) == models


def test_only_necessary_outputs_are_requested() -> None:
    plan = plan_flow(DIAMOND, ("SIDE",))
    assert [dict(s.outputs) for s in plan.steps] == [{"Y": "a.Y"}, {"Z": "c.Z"}]


def test_branches_run_concurrently() -> None:
    meeting = threading.Barrier(2, timeout=5)

    def call(step: PipelineStep, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if step.model in "bc":
            meeting.wait()
        return add_up(step, inputs)

    assert isinstance(run(DIAMOND, ("OUT",), call), dict)


def test_the_first_error_is_the_outcome_and_no_later_step_runs() -> None:
    called: list[str] = []

    def call(step: PipelineStep, inputs: Mapping[str, Array]) -> dict[str, Array]:
        called.append(step.model)
        if step.model in "bc":
            raise FlowError(f"step {step.model} failed", 42)
        return add_up(step, inputs)

    outcome = run(DIAMOND, ("OUT", "EARLY"), call)
    assert isinstance(outcome, FlowError)
    assert outcome.message in ("step b failed", "step c failed")
    assert outcome.code == 42
    assert "d" not in called


def test_a_branch_that_ends_after_the_error_is_ignored() -> None:
    """b fails while c still runs; the outputs of c are discarded, and d never runs."""
    called: list[str] = []
    failed = threading.Event()
    outcomes: SimpleQueue[Outcome] = SimpleQueue()

    def call(step: PipelineStep, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        called.append(step.model)
        if step.model == "b":
            raise FlowError("step b failed")
        if step.model == "c":
            assert failed.wait(WAIT_LIMIT_S)
        return add_up(step, inputs)

    with ThreadPoolExecutor(8) as pool:
        Flow(plan_flow(DIAMOND, ("OUT",)), {"inputs.X": np.array([1.0])}, call, pool.submit, outcomes.put).start()
        outcome = outcomes.get(timeout=WAIT_LIMIT_S)
        failed.set()
    assert isinstance(outcome, FlowError)
    assert outcomes.empty()
    assert sorted(called) == ["a", "b", "c"]


def test_an_unknown_output_is_refused() -> None:
    with pytest.raises(KeyError):
        plan_flow(DIAMOND, ("NOPE",))


@st.composite
def pipelines(draw: st.DrawFn) -> PipelineSpec:
    """Generates DAGs in which each step takes some of the tensors that earlier steps make."""
    tensors, steps = ["inputs.X"], []
    for n in range(draw(st.integers(1, 6))):
        inputs = draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=3, unique=True))
        steps.append(step(f"s{n}", *inputs))
        tensors += [f"s{n}.Y", f"s{n}.Z"]
    return PipelineSpec("g", {"X": "inputs.X"}, {tensor: tensor for tensor in tensors}, tuple(steps))


@settings(deadline=None, max_examples=50)
@given(pipelines(), st.data())
def test_any_pipeline_computes_the_composition_of_its_steps(spec: PipelineSpec, data: st.DataObject) -> None:
    wanted = data.draw(st.lists(st.sampled_from(sorted(spec.outputs)), min_size=1, unique=True))
    expected = {"inputs.X": np.array([1.0])}
    for one in spec.steps:
        made = add_up(one, {name: expected[tensor] for name, tensor in one.inputs.items()})
        expected |= {tensor: made[name] for name, tensor in one.outputs.items()}
    outcome = run(spec, tuple(wanted))
    assert isinstance(outcome, dict)
    assert {name: array.tolist() for name, array in outcome.items()} == {n: expected[n].tolist() for n in wanted}


def gathered(*outcomes: Outcome, order: tuple[int, ...]) -> list[Outcome]:
    done: list[Outcome] = []
    gathering = Gathering(len(outcomes), done.append)
    for index in order:
        gathering.put(index, outcomes[index])
    return done


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_items_are_stacked_in_their_order(order: tuple[int, ...]) -> None:
    (outcome,) = gathered(*({"Y": np.array([[n, n]])} for n in range(3)), order=order)
    assert isinstance(outcome, dict)
    assert outcome["Y"].tolist() == [[0, 0], [1, 1], [2, 2]]


def test_the_first_failed_item_fails_the_batch_once() -> None:
    good: Outcome = {"Y": np.zeros((1, 2))}
    (outcome,) = gathered(good, FlowError("one"), FlowError("two"), order=(2, 1, 0))
    assert isinstance(outcome, FlowError)
    assert outcome.message == "two"


def test_items_that_do_not_stack_fail_the_batch() -> None:
    (outcome,) = gathered({"Y": np.zeros((1, 2, 4))}, {"Y": np.zeros((1, 3, 4))}, order=(0, 1))
    assert isinstance(outcome, FlowError)
    assert outcome.message == (
        "output Y differs in shape between the items of the batch: [2, 4], [3, 4]; send them one by one"
    )
