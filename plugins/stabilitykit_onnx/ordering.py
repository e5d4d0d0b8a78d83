"""The order in which nodes run: one after the other from the same module, as far as what they read allows."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from stabilitykit_onnx.reading import Node
from stabilitykit_onnx.scopes import common, plain


def ordered(nodes: Sequence[Node], constants: Mapping[str, torch.Tensor]) -> list[Node]:
    """``nodes`` with those of one module together.

    Arguments:
        nodes: in an order in which they can run.
        constants: names that are there from the beginning.

    A node of no module stands with those before and after it; where no node has one, every node is a module of its
    own, named as it is.
    """
    nodes = _placed(nodes)
    made = {name: n for n, node in enumerate(nodes) for name in node.outputs if name}
    waiting = [len({made[name] for name in node.inputs if name in made}) for node in nodes]
    users: dict[int, set[int]] = defaultdict(set)
    for n, node in enumerate(nodes):
        for name in node.inputs:
            if name in made:
                users[made[name]].add(n)
    ready = [n for n, count in enumerate(waiting) if not count]
    heapq.heapify(ready)
    found: list[Node] = []
    while ready:
        last = found[-1].scope if found else ()
        chosen = min(ready, key=lambda n: (-len(common(last, nodes[n].scope)), n))
        ready.remove(chosen)
        found.append(nodes[chosen])
        for user in users[chosen]:
            waiting[user] -= 1
            if not waiting[user]:
                ready.append(user)
    return found


def _placed(nodes: Sequence[Node]) -> list[Node]:
    """Every node with a module to stand in."""
    if not any(node.scope for node in nodes):
        return [replace(node, scope=(plain(node.attributes.name),)) for node in nodes]
    following = [node.scope for node in nodes]
    for n in range(len(nodes) - 2, -1, -1):
        if not following[n]:
            following[n] = following[n + 1]
    found: list[Node] = []
    before: tuple[str, ...] = ()
    for node, after in zip(nodes, following):
        if node.scope:
            before = node.scope
            found.append(node)
        else:
            scope = common(before, after)
            found.append(replace(node, scope=scope))
    return found
