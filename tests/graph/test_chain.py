from dataclasses import replace

from jigsaw_triton.graph.chain import Chain, as_task, followers, with_chains
from jigsaw_triton.graph.model import When
from jigsaw_triton.graph.tensors import TensorType
from tests.fakes.graphs import (
    SCALAR,
    VECTOR,
    VECTORS,
    chain,
    conditional,
    diamond,
    fan_out,
    graph,
    ref,
    step,
    task,
    variants,
)

LABEL = TensorType("INT64", (1,))
PAIR = Chain(("t0", "t1"), ("v0", "v0"))


def test_a_task_follows_a_task_if_it_is_the_only_user_of_its_outputs() -> None:
    assert followers(chain(3)) == {"t0": "t1", "t1": "t2"}
    assert followers(diamond()) == followers(fan_out()) == followers(conditional()) == {}


def test_followers_are_found_quickly_in_graphs_with_very_many_paths() -> None:
    """The graph has far too many paths to enumerate them."""
    layers = [[task(f"{side}{i}", {"A": f"a{i - 1}.Y", "B": f"b{i - 1}.Y"}) for side in "ab"] for i in range(1, 31)]
    first = [task("a0", {"X": "inputs.X"}), task("b0", {"X": "inputs.X"})]
    last = [task("last", {"X": "a30.Y"}), task("end", {"X": "last.Y", "B": "b30.Y"})]
    plain = graph([*first, *(item for layer in layers for item in layer), *last], {"Y": "end.Y"})
    assert followers(plain) == {"a30": "last"}


def test_a_chain_becomes_one_task_at_the_position_of_its_first_task() -> None:
    whole = with_chains(chain(3), [PAIR])
    assert list(whole.tasks) == ["t0~t1", "t2"]
    assert dict(whole.tasks["t0~t1"].inputs) == {"inputs.X": ref("inputs.X")}
    assert dict(whole.tasks["t0~t1"].outputs) == {"t1.Y": VECTOR}
    assert str(whole.tasks["t2"].inputs["X"]) == "t0~t1.t1.Y"
    assert whole.outputs == chain(3).outputs


def test_a_shared_input_enters_the_chain_once_and_outputs_for_clients_leave_it() -> None:
    plain = graph(
        [task("a", {"X": "inputs.X"}), task("b", {"Y": "a.Y", "X": "inputs.X"})],
        {"A": "a.Y", "B": "b.Y"},
    )
    whole = with_chains(plain, [Chain(("a", "b"), ("v0", "v0"))])
    (made,) = whole.tasks.values()
    assert list(made.inputs) == ["inputs.X"]
    assert list(made.outputs) == ["a.Y", "b.Y"]
    assert {name: str(tensor) for name, tensor in whole.outputs.items()} == {"A": "a~b.a.Y", "B": "a~b.b.Y"}


def test_unused_outputs_stay_inside_unless_no_output_is_used() -> None:
    last = task("b", {"X": "a.Y"}, outputs={"Y": VECTOR, "Z": VECTOR})
    plain = graph([task("a", {"X": "inputs.X"}), last], {"Z": "b.Z"})
    pair = Chain(("a", "b"), ("v0", "v0"))
    assert list(as_task(plain, pair).outputs) == ["b.Z"]
    assert list(as_task(replace(plain, outputs={}), pair).outputs) == ["b.Y", "b.Z"]


def test_rows_and_conditions_of_later_tasks_refer_to_the_chain() -> None:
    yielding = [replace(variants()[0], yields={"CROPS": 3.0})]
    plain = graph(
        [
            task("a", {"X": "inputs.X"}),
            task("b", {"X": "a.Y"}, outputs={"CROPS": VECTORS, "SCORE": SCALAR}, of=yielding),
            task(
                "c",
                {"CROP": "b.CROPS"},
                outputs={"LABEL": LABEL},
                for_each="b.CROPS",
                when=When(ref("b.SCORE"), 0.5, None, 0.5),
            ),
        ],
        {"LABELS": "c.LABEL"},
    )
    whole = with_chains(plain, [Chain(("a", "b"), ("v0", "v0"))])
    behind = whole.tasks["c"]
    assert behind.for_each == behind.inputs["CROP"] == whole.row_axis(behind.inputs["CROP"])
    assert behind.when is not None
    assert str(behind.when.tensor) == "a~b.b.SCORE"
    assert whole.input_type(behind, "CROP") == plain.input_type(plain.tasks["c"], "CROP")
    assert whole.tasks["a~b"].variants[0].yields == {"b.CROPS": 3.0}
    assert {name: whole.type_of(tensor) for name, tensor in whole.outputs.items()} == {
        name: plain.type_of(tensor) for name, tensor in plain.outputs.items()
    }


def test_a_chain_that_iterates_over_rows_is_called_once_per_row() -> None:
    more = task("name", {"LABEL": "classify.LABEL"}, outputs={"NAME": LABEL}, for_each="classify.LABEL")
    base = fan_out()
    plain = replace(base, tasks={**base.tasks, "name": more}, outputs={"NAMES": ref("name.NAME")})
    made = as_task(plain, Chain(("classify", "name"), ("v0", "v0")))
    assert made.for_each == ref("detect.CROPS")
    assert plain.input_type(made, "detect.CROPS") == VECTOR
    whole = with_chains(plain, [Chain(("classify", "name"), ("v0", "v0"))])
    assert whole.type_of(whole.outputs["NAMES"]) == LABEL.rows()


def test_the_accuracy_of_a_chain_is_relative_to_the_best_variant_of_each_task() -> None:
    plain = chain(2, variant_count=2)
    assert as_task(plain, Chain(("t0", "t1"), ("v1", "v1"))).variants[0].accuracy == 0.9 * 0.9
    assert as_task(plain, Chain(("t0", "t1"), ("v0", "v1"))).variants[0].name == "v0~v1"


def test_later_python_steps_refer_to_the_chain() -> None:
    plain = replace(chain(2), steps={"sort": step("sort", {"X": "t1.Y"}, "")}, outputs={"Y": ref("sort.Y")})
    whole = with_chains(plain, [PAIR])
    assert str(whole.steps["sort"].inputs["X"]) == "t0~t1.t1.Y"
    assert [node.name for node in whole.in_order()] == ["t0~t1", "sort"]


def test_a_chain_may_depend_on_another() -> None:
    whole = with_chains(chain(4), [PAIR, Chain(("t2", "t3"), ("v0", "v0"))])
    assert {name: sorted(item.dependencies()) for name, item in whole.tasks.items()} == {
        "t0~t1": [],
        "t2~t3": ["t0~t1"],
    }
