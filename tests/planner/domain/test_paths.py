import itertools

from hypothesis import given
from hypothesis import strategies as st

from jigsaw_triton.graph.model import TaskGraph
from jigsaw_triton.planner.domain.paths import count_paths, longest_path, longest_through
from tests.fakes.graphs import chain, conditional, diamond, fan_out, graph, task


def test_the_longest_path_through_each_task_of_a_diamond_is_found() -> None:
    weight = {"a": 1.0, "b": 5.0, "c": 2.0, "d": 1.0}
    assert longest_through(diamond(), weight) == {"a": 7.0, "b": 7.0, "c": 4.0, "d": 7.0}
    assert longest_path(diamond(), weight) == ("a", "b", "d")


def test_of_equal_paths_the_first_by_name_is_longest() -> None:
    assert longest_path(diamond(), dict.fromkeys("abcd", 1.0)) == ("a", "b", "d")


@st.composite
def graphs(draw: st.DrawFn) -> TaskGraph:
    """Graphs of up to six tasks, each of which may consume any earlier task's output."""
    tasks = []
    for i in range(draw(st.integers(1, 6))):
        before = [f"t{j}" for j in range(i) if draw(st.booleans())]
        tasks.append(task(f"t{i}", {f"X{b}": f"{b}.Y" for b in before} or {"X": "inputs.X"}))
    return graph(tasks, {"Y": f"{tasks[-1].name}.Y"})


@given(graphs(), st.lists(st.integers(0, 9), min_size=6, max_size=6))
def test_longest_paths_agree_with_enumeration(g: TaskGraph, numbers: list[int]) -> None:
    weight = {name: float(n) for name, n in zip(g.tasks, itertools.cycle(numbers), strict=False)}
    paths = g.paths()
    through = longest_through(g, weight)
    for name in g.tasks:
        assert through[name] == max(sum(weight[t] for t in p) for p in paths if name in p)
    longest = longest_path(g, weight)
    assert sum(weight[t] for t in longest) == max(sum(weight[t] for t in p) for p in paths)


def test_the_number_of_paths_agrees_with_enumeration() -> None:
    for g in (chain(3), fan_out(), diamond(), conditional()):
        assert count_paths(g) == len(g.paths())


@given(graphs(), st.sets(st.integers(0, 5), max_size=3))
def test_the_number_of_paths_through_tasks_agrees_with_enumeration(g: TaskGraph, numbers: set[int]) -> None:
    through = {f"t{number}" for number in numbers} & g.tasks.keys()
    assert count_paths(g, through) == sum(through <= set(path) for path in g.paths())
