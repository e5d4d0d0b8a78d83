"""Two equal calls give equal results, and no result holds a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from stabilitykit_lipschitz import Ball, lipschitz
from stabilitykit_lipschitz.budget import RATE, Budget
from torch import nn

NET = nn.Sequential(nn.Linear(20, 40), nn.ReLU(), nn.Linear(40, 30), nn.GELU(), nn.Linear(30, 5))
FLAT = nn.Sequential(nn.Linear(3, 9), nn.ReLU(), nn.Linear(9, 2)).double()


@pytest.mark.parametrize(
    ("model", "kwargs"),
    [
        (NET, {}),
        (NET, {"norm": "inf"}),
        (NET, {"method": "layer"}),
        (NET, {"method": "product"}),
        (NET, {"region": Ball(np.zeros(20), 0.3)}),
        (NET, {"seconds": 0.001, "search_seconds": 0.001}),
        (FLAT, {"method": "exact"}),
        (FLAT, {"method": "exact", "seconds": 0.005}),
    ],
)
def test_equal_calls_give_equal_results(model: nn.Module, kwargs: dict) -> None:
    kwargs = {"search_seconds": 0.3, **kwargs}
    first = lipschitz(model, **kwargs)
    np.random.seed(5)
    torch.manual_seed(5)
    second = lipschitz(model, **kwargs)
    for field in dataclasses.fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        assert repr(a) == repr(b) and (not isinstance(a, np.ndarray) or a.tobytes() == b.tobytes()), field.name
        if field.name == "multipliers":
            assert all(x.tobytes() == y.tobytes() for x, y in zip(a, b))
    assert not any("seconds" in field.name for field in dataclasses.fields(first))


def test_a_budget_counts_work_not_time() -> None:
    budget = Budget(1.0)
    assert not budget.is_over
    budget.charge(0.5 * RATE, 0)
    assert budget.left == pytest.approx(0.5) and not budget.is_over
    budget.charge(0.5 * RATE, 0)
    assert budget.is_over and budget.left == 0.0
