"""All targets give the right answers: random graphs, compiled and served, against a direct evaluation."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from jigsaw_triton.compiler.bundle import Bundle, CompiledGraph
from jigsaw_triton.compiler.ensemble import why_no_steps, why_not
from jigsaw_triton.graph.model import Target, TaskGraph
from jigsaw_triton.graph.tensors import TensorRef
from jigsaw_triton.planner.domain.plan import Plan
from jigsaw_triton.runtime.dtypes import Array
from tests.compiler.samples import compiled, every, together
from tests.examples import costly
from tests.fakes.any_graph import Values, any_graph, evaluate, requests, write_application
from tests.fakes.documents import built
from tests.fakes.gateway import Gateway, Result, machine
from tests.native.core import Failure


def targets(of: TaskGraph) -> list[Target]:
    """Returns the targets that can express a graph."""
    found: list[Target] = ["graph"]
    if not why_not(of):
        found.append("ensemble")
    if not why_no_steps(of):
        found.append("bls")
    return found


def features(of: TaskGraph) -> Iterator[str]:
    """Yields the names of the features that a graph uses."""
    yield from targets(of)
    if of.steps:
        yield "python steps"
    tasks = of.tasks.values()
    if any(task.when for task in tasks):
        yield "conditions"
    if any(task.for_each for task in tasks):
        yield "fan-out"
    if any(task.counts for task in tasks):
        yield "counts"
    inner = [task for task in tasks if task.for_each or task.when]
    if any(of.makes_rows(TensorRef(task.name, name)) for task in inner for name in task.outputs):
        yield "rows of rows"


def plans(of: TaskGraph) -> list[Plan]:
    """Returns a plan with a slice for each task, and one with all tasks in one slice, which has chains."""
    return [every(of), together(of)]


def forms(bundles: Mapping[Target, Bundle]) -> Iterator[CompiledGraph]:
    """Yields the forms in which a gateway may serve a graph: every target, and target `graph` without chains, too."""
    for target, bundle in bundles.items():
        (item,) = bundle.graphs.values()
        yield item
        if item.apart is not None and target == "graph":
            event("a chain")
            yield item.apart


def same(result: Result, values: Sequence[Values], of: TaskGraph, wanted: Sequence[str]) -> None:
    """Checks that a result is the answer to a batch of requests with these tensors."""
    assert not isinstance(result, Failure), result
    assert result.keys() == set(wanted)
    for name in wanted:
        expected = np.stack([item[of.outputs[name]] for item in values])
        assert result[name].dtype == expected.dtype, name
        assert result[name].shape == expected.shape, name
        assert result[name].tolist() == expected.tolist(), name


def stacks(values: Sequence[Values]) -> bool:
    """Returns True if the requests' tensors have equal shapes."""
    return all(len({item[ref].shape for item in values}) == 1 for ref in values[0])


@pytest.mark.slow
@costly(30)
@given(st.randoms(use_true_random=False))
def test_all_targets_give_the_right_answers(rng: Random) -> None:
    with TemporaryDirectory(prefix="jigsaw-") as folder:
        write_application(any_graph(rng), Path(folder))
        of = built((Path(folder) / "graph.yaml").read_text(), Path(folder))
        asked = requests(rng, of, 3)
        values = [evaluate(of, inputs) for inputs in asked]
        wanted = rng.sample(list(of.outputs), rng.randint(1, len(of.outputs)))
        for feature in features(of):
            event(feature)
        for number, plan in enumerate(plans(of)):
            run_dir = Path(folder) / str(number)
            run_dir.mkdir()
            with ExitStack() as stack:
                bundles = {target: compiled(of, plan, target=target) for target in targets(of)}
                served = stack.enter_context(machine(bundles["graph"], run_dir))
                assert all(bundle.workers == bundles["graph"].workers for bundle in bundles.values())
                for item in forms(bundles):
                    gateway = served.serve(item)
                    stack.callback(gateway.close)
                    check(gateway, of, asked, values, wanted)


def check(
    gateway: Gateway, of: TaskGraph, asked: Sequence[dict[str, Array]], values: Sequence[Values], wanted: Sequence[str]
) -> None:
    """Checks the answers to single requests that are sent together, and then to the same requests as one batch."""
    alone = gateway.infer([{name: array[None] for name, array in inputs.items()} for inputs in asked], wanted)
    for result, item in zip(alone, values, strict=True):
        same(result, [item], of, wanted)
    if gateway.max_batch_size < len(asked):
        event("no batches")
        return
    (batch,) = gateway.infer([{name: np.stack([inputs[name] for inputs in asked]) for name in of.inputs}], wanted)
    if isinstance(batch, Failure):
        event("a batch that does not stack")
        assert "differs in shape between the items of the" in batch.message
        assert not stacks(values)
    else:
        event("a batch")
        same(batch, values, of, wanted)
