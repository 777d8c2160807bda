"""Cycles in a graph of references."""

from collections.abc import Collection, Iterator, Mapping


def find_cycles(edges: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Return the groups of nodes that can reach each other, each sorted, in sorted order.

    A node that refers to itself is a group of its own; one that merely leads to a cycle is in
    none. Linear in the graph and free of recursion, whatever the graph looks like.
    (R. Tarjan, Depth-first search and linear graph algorithms, SIAM J. Comput. 1, 1972.)

    Args:
        edges: node → the nodes it refers to; those that are no key refer to nothing.
    """
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_nodes: list[str] = []
    is_open: set[str] = set()
    groups: list[list[str]] = []

    def enter(node: str) -> tuple[str, Iterator[str]]:
        order[node] = lowest[node] = len(order)
        open_nodes.append(node)
        is_open.add(node)
        return node, iter(sorted(edges.get(node, ())))

    for root in sorted(edges):
        path = [enter(root)] if root not in order else []
        while path:
            node, successors = path[-1]
            for successor in successors:
                if successor not in order:
                    path.append(enter(successor))
                    break
                if successor in is_open:
                    lowest[node] = min(lowest[node], order[successor])
            else:
                path.pop()
                if path:
                    parent = path[-1][0]
                    lowest[parent] = min(lowest[parent], lowest[node])
                if lowest[node] == order[node]:
                    group = [open_nodes.pop()]
                    while group[-1] != node:
                        group.append(open_nodes.pop())
                    is_open.difference_update(group)
                    if len(group) > 1 or node in edges.get(node, ()):
                        groups.append(sorted(group))
    return sorted(groups)


def describe_cycle(edges: Mapping[str, Collection[str]], group: Collection[str]) -> str:
    """Return one way round within a group of `find_cycles`: "a → b → a"."""
    path = [min(group)]
    seen = {path[0]: 0}
    while True:
        successor = min(node for node in edges[path[-1]] if node in group)
        path.append(successor)
        if successor in seen:
            return " → ".join(path[seen[successor] :])
        seen[successor] = len(path) - 1
