"""The fuzz of the bounds in small: it finds nothing, and it does find bounds that are a little too low."""

from __future__ import annotations

from collections import Counter

import mpmath as mp
import numpy as np
import pytest
import torch

from benchmarks.lipschitz_fuzz import attempt, parse
from benchmarks.lipschitz_nets import ACTS, wired


def test_no_slope_is_above_a_bound_and_weakened_bounds_are_found():
    tally: Counter[str] = Counter()
    which = ["--seed", "7", "--family", "wired"]
    honest, weakened = parse(which), parse([*which, "--weaken", "0.9"])
    found = [attempt(index, honest, tally) for index in range(10)]
    assert not any(found), found
    assert any(attempt(index, weakened, Counter()) for index in range(10))
    assert sum(count for what, count in tally.items() if what.startswith("bounded")) >= 5


@pytest.mark.parametrize("index", [150, 577, 2468, 3155, 3452, 4163])
def test_networks_at_the_ends_of_float64(index):
    """Lower ends were infinite where squares overflow, a dual value of 0 or folded weights of infinity a traceback."""
    assert not attempt(index, parse(["--seed", "0"]), Counter())


@pytest.mark.parametrize("name", ACTS)
def test_activations_in_many_digits_are_torchs(name):
    torchs, exact = ACTS[name]
    z = torch.linspace(-9, 9, 19, dtype=torch.float64)
    with mp.workdps(40):
        expected = [float(exact(mp.mpf(float(v)))) for v in z]
    torch.testing.assert_close(torchs(z), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)


def test_networks_in_many_digits_are_torchs():
    case = next(c for s in range(50) if len((c := wired(np.random.default_rng(s))).module.plan) > 2 and c.typical < 99)
    assert case.exactly is not None
    x = np.linspace(-1, 1, case.inputs) * case.typical
    with mp.workdps(40):
        expected = [float(v) for v in case.exactly([mp.mpf(float(v)) for v in x])]
    np.testing.assert_allclose(case.module(torch.tensor(x)[None])[0].detach().numpy(), expected, rtol=1e-9)
