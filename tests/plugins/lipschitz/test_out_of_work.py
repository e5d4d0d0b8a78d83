"""Out of work: the best certified bound so far, in the layer form at least."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from stabilitykit_lipschitz import lipschitz, upper
from stabilitykit_lipschitz.blocks import assemble, elimination_order, elimination_work
from stabilitykit_lipschitz.network import Network, dense
from stabilitykit_lipschitz.reduce import prepare
from stabilitykit_lipschitz.slopes import named


def _deep(layers: int, width: int) -> Network:
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((width, width)) * np.sqrt(2 / width) for _ in range(layers)]
    return dense([*weights, rng.standard_normal((3, width))], None, named("relu"))


def test_where_no_bound_per_neuron_is_proven_there_is_one_per_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _deep(6, 12)
    layer, norms = (lipschitz(network, method=m, search_seconds=0.01).upper for m in ("layer", "product"))
    solve = upper.solve_certified

    def only_shared(problem: Any, *args: Any) -> tuple | None:
        return solve(problem, *args) if all(p.shared for p in problem.parts) else None

    monkeypatch.setattr(upper, "solve_certified", only_shared)
    found = lipschitz(network, search_seconds=0.01)
    assert found.method == "layer" and found.upper == layer < 0.5 * norms
    assert "one per layer" in found.notes[-1]


def test_a_long_chain_is_charged_by_its_layers_not_by_its_rows() -> None:
    for layers in (10, 20):
        problem = prepare(_deep(layers, 10), False, False)
        scaled = assemble(problem, np.ones(problem.inputs), [np.ones(p.size) for p in problem.parts])
        work = elimination_work(scaled, elimination_order(scaled, last=0))
        assert 0.3 * layers * 10**3 < work < 6 * layers * 10**3
