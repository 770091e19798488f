import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from jigsaw_triton.graph.order import count_paths, cycles, topological_order

NODES = "abcdefg"
ANY = st.dictionaries(st.sampled_from(NODES), st.sets(st.sampled_from(NODES), max_size=3), max_size=7)


@settings(deadline=None)
@given(ANY)
def test_the_order_omits_only_nodes_that_depend_on_a_cycle(dependencies: dict[str, set[str]]) -> None:
    order = topological_order(dependencies)
    for position, node in enumerate(order):
        assert {d for d in dependencies[node] if d in dependencies} <= set(order[:position])
    for node in dependencies.keys() - set(order):
        assert dependencies[node] & (dependencies.keys() - set(order))


@settings(deadline=None)
@given(ANY)
def test_removing_the_found_cycles_leaves_no_cycle(dependencies: dict[str, set[str]]) -> None:
    edges = [(d, node) for node, before in dependencies.items() for d in before if d in dependencies]
    network = nx.DiGraph(edges)
    found = cycles(dependencies)
    for cycle in found:
        assert cycle[0] == min(cycle)
        assert all(network.has_edge(a, b) for a, b in zip(cycle, (*cycle[1:], cycle[0]), strict=True))
    network.remove_nodes_from([node for cycle in found for node in cycle])
    assert nx.is_directed_acyclic_graph(network)
    assert len([node for cycle in found for node in cycle]) == len({node for cycle in found for node in cycle})


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 6)), min_size=1, max_size=7))
def test_the_number_of_paths_equals_that_of_an_enumeration(before: list[set[int]]) -> None:
    dependencies = {str(node): {str(d) for d in some if d < node} for node, some in enumerate(before)}
    network = nx.DiGraph([(d, node) for node, some in dependencies.items() for d in some])
    network.add_nodes_from(dependencies)
    roots = [n for n in network if not network.in_degree(n)]
    ends = {n for n in network if not network.out_degree(n)}
    alone = sum(root in ends for root in roots)
    walked = sum(len(list(nx.all_simple_paths(network, root, ends - {root}))) for root in roots if ends - {root})
    assert count_paths(dependencies) == alone + walked
