from dataclasses import replace

from jigsaw_triton.graph.chain import Chain
from jigsaw_triton.graph.model import TaskGraph, When
from jigsaw_triton.graph.tensors import TensorType
from jigsaw_triton.planner.candidates.chained import chains
from jigsaw_triton.planner.domain.plan import PlacedModel, Plan
from tests.compiler.samples import every, plan, together
from tests.fakes.graphs import SCALAR, VECTOR, chain, conditional, diamond, fan_out, graph, ref, task

IMAGE = TensorType("UINT8", (-1, -1, 3))
LOOSE_VECTOR = TensorType("FP32", (-1,))


def found(of: TaskGraph, planned: Plan | None = None) -> list[tuple[str, ...]]:
    return [chain.tasks for chain in chains(of, planned or together(of))]


def over_rows() -> TaskGraph:
    """detect -> classify, for each of CROPS -> name, for the same rows."""
    more = task("name", {"LABEL": "classify.LABEL"}, for_each="classify.LABEL")
    base = fan_out()
    return replace(base, tasks={**base.tasks, "name": more}, outputs={"NAMES": ref("name.Y")})


def prepared(between: TensorType = VECTOR) -> TaskGraph:
    """A task that turns images of any size into tensors of one size, and one that classifies these."""
    tasks = [
        task("prepare", {"IMAGE": "inputs.IMAGE"}, outputs={"Y": between}),
        task("classify", {"X": "prepare.Y"}, outputs={"LABEL": SCALAR}),
    ]
    return graph(tasks, {"LABEL": "classify.LABEL"}, inputs={"IMAGE": IMAGE})


def test_the_longest_chains_in_a_slice_are_found() -> None:
    assert found(chain(3)) == [("t0", "t1", "t2")]
    assert found(chain(3), together(chain(3), ["t0", "t1"], ["t2"])) == [("t0", "t1")]
    assert found(chain(4), together(chain(4), ["t0", "t1"], ["t2", "t3"])) == [("t0", "t1"), ("t2", "t3")]
    assert found(chain(3), every(chain(3))) == []


def test_a_chain_may_be_in_several_slices_if_each_holds_all_of_it() -> None:
    of = chain(2)
    assert found(of, together(of, ["t0", "t1"], ["t1", "t0"])) == [("t0", "t1")]
    assert found(of, together(of, ["t0", "t1"], ["t1"])) == []
    assert found(of, together(of, ["t0", "t1"], ["t0"])) == []


def test_a_chain_needs_one_variant_for_each_task() -> None:
    of = chain(2, variant_count=2)
    first = PlacedModel("chain", "t0", "v0", 1, 4)
    same, other = PlacedModel("chain", "t1", "v0", 1, 4), PlacedModel("chain", "t1", "v1", 1, 4)
    assert chains(of, plan([of], {(0, 0, "1g"): [first, other]})) == (Chain(("t0", "t1"), ("v0", "v1")),)
    assert chains(of, plan([of], {(0, 0, "1g"): [first, same, other]})) == ()
    assert chains(of, plan([of], {(0, 0, "1g"): [first, same], (0, 1, "1g"): [first, other]})) == ()


def test_a_chain_neither_branches_nor_joins() -> None:
    assert found(diamond()) == []


def test_a_chain_may_use_tensors_that_exist_before_it_begins() -> None:
    tasks = [
        task("a", {"X": "inputs.X"}),
        task("b", {"X": "a.Y"}),
        task("c", {"X": "b.Y", "A": "a.Y", "IN": "inputs.X"}),
    ]
    # The output of a goes to both b and c, which form a chain after it.
    assert found(graph(tasks, {"Y": "c.Y"})) == [("b", "c")]


def test_a_chain_does_not_wait_for_tensors_from_outside() -> None:
    tasks = [
        task("a", {"X": "inputs.X"}),
        task("b", {"X": "inputs.X"}),
        task("c", {"A": "a.Y", "B": "b.Y"}),
        task("d", {"C": "c.Y"}),
    ]
    assert found(graph(tasks, {"Y": "d.Y"})) == [("c", "d")]


def test_rows_neither_begin_nor_end_in_a_chain() -> None:
    assert found(fan_out()) == []
    assert found(over_rows()) == [("classify", "name")]
    gathered = over_rows()
    whole = replace(gathered.tasks["name"], for_each=None, inputs={"LABELS": ref("classify.LABEL")})
    assert found(replace(gathered, tasks={**gathered.tasks, "name": whole})) == []


def test_a_chain_over_rows_needs_equal_batches() -> None:
    of = over_rows()
    assert found(of, together(of, batches={"classify": 8})) == []
    assert found(chain(2), together(chain(2), batches={"t0": 8})) == [("t0", "t1")]


def test_a_conditional_task_is_in_no_chain() -> None:
    assert found(conditional()) == []
    late = chain(3)
    held = replace(late.tasks["t1"], when=When(ref("inputs.X"), 0.5, None, 0.5))
    assert found(replace(late, tasks={**late.tasks, "t1": held})) == []


def test_a_chain_with_variable_shapes_inside_needs_one_at_its_input() -> None:
    assert found(prepared()) == [("prepare", "classify")]
    assert found(prepared(LOOSE_VECTOR)) == [("prepare", "classify")]
    inside = replace(prepared(LOOSE_VECTOR), inputs={"IMAGE": graph([], {}, inputs={"IMAGE": VECTOR}).inputs["IMAGE"]})
    assert found(inside) == []
