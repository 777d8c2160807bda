from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from flagd_sdk.core.cycles import describe_cycle, find_cycles

nodes = st.sampled_from("abcdefg")
graphs = st.dictionaries(nodes, st.frozensets(nodes, max_size=3))


def reachable(edges: dict[str, frozenset[str]], start: str) -> set[str]:
    found: set[str] = set()
    pending = [*edges.get(start, ())]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending += edges.get(node, ())
    return found


@given(graphs)
def test_groups_are_the_nodes_that_reach_each_other(edges: dict[str, frozenset[str]]) -> None:
    reach = {node: reachable(edges, node) for node in edges}
    expected = {
        tuple(sorted(other for other in edges if other in reach[node] and node in reach[other]))
        for node in edges
        if node in reach[node]
    }
    assert find_cycles(edges) == sorted(map(list, expected))


@given(graphs)
def test_a_cycle_described_follows_the_edges_and_closes(edges: dict[str, frozenset[str]]) -> None:
    for group in find_cycles(edges):
        way = describe_cycle(edges, group).split(" → ")
        assert way[0] == way[-1]
        assert len(way) > 1
        assert len(set(way[1:])) == len(way) - 1
        for node, successor in pairwise(way):
            assert successor in edges[node]


def test_what_leads_to_a_cycle_is_not_in_it() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}, "e": {"x"}}
    assert find_cycles(edges) == [["b", "c"], ["d"]]


def test_a_long_chain_needs_no_recursion() -> None:
    chain = {str(n): {str(n + 1)} for n in range(50_000)}
    assert find_cycles(chain) == []
    assert len(find_cycles({**chain, "50000": {"0"}})[0]) == 50_001
