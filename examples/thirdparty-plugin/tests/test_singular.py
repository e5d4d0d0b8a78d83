"""Subspace iteration against explicit Jacobians and their SVD in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit.testing import TinyModel

from stabilitykit_lyapunov.flow import Flow, flatten, unflatten
from stabilitykit_lyapunov.singular import jvp, top_singular_values, vjp

laws = settings(deadline=None, max_examples=8)


def flow_of(seed=0, images=3, blocks=3):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(images, 3, 4, 4, dtype=torch.float64, generator=generator)
    return Flow(TinyModel(blocks=blocks, seed=seed, double=True), inputs)


def explicit(function, points):
    """(B, n, n): the Jacobian of every row by autograd, one row of the Jacobian at a time."""
    return torch.stack([torch.autograd.functional.jacobian(lambda x: function(x[None])[0], point) for point in points])


@laws
@given(st.integers(0, 1000), st.integers(0, 2), st.integers(1, 3))
def test_equals_the_svd_of_the_explicit_jacobian(seed, start, steps):
    stop = min(start + steps, 3)
    flow = flow_of(seed)
    function, points = flow.between(start, stop), flow.points[start]
    exact = torch.linalg.svdvals(explicit(function, points))
    found = top_singular_values(function, points, 3, [seed] * 3, iterations=200, tolerance=1e-7)
    assert torch.allclose(found.values, exact[:, :3], rtol=1e-10)
    assert bool((found.residuals <= 1e-7).all())


@laws
@given(st.integers(0, 1000), st.integers(1, 4), st.integers(1, 5))
def test_never_above_the_true_values_however_few_iterations(seed, iterations, k):
    flow = flow_of(seed)
    function, points = flow.between(0, 3), flow.points[0]
    exact = torch.linalg.svdvals(explicit(function, points))[:, :k]
    found = top_singular_values(function, points, k, [seed, seed + 1, 7], iterations=iterations, tolerance=0.0)
    assert bool((found.values <= exact * (1 + 1e-13)).all())
    assert found.iterations.tolist() == [iterations] * 3


@laws
@given(st.integers(0, 1000))
def test_products_with_jacobians_and_their_transposes(seed):
    flow = flow_of(seed)
    function, points = flow.between(0, 3), flow.points[0]
    matrices = explicit(function, points)
    vectors = torch.randn(3, 16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(jvp(function, points, vectors), matrices @ vectors, atol=1e-12)
    assert torch.allclose(vjp(function, points, vectors), matrices.mT @ vectors, atol=1e-12)


def test_residual_is_that_of_the_returned_value():
    diagonal = torch.tensor([3.0, 2.9, 1.0, 0.5], dtype=torch.float64)
    points = torch.zeros(1, 4, dtype=torch.float64)
    rough = top_singular_values(lambda x: x * diagonal, points, 1, [0], iterations=3, guard=0)
    fine = top_singular_values(lambda x: x * diagonal, points, 1, [0], iterations=2000, guard=0, tolerance=1e-12)
    # Some singular value lies within residual * sigma_1 of the approximation.
    assert float((diagonal - rough.values[0, 0]).abs().min()) <= float(rough.residuals[0, 0] * rough.values[0, 0])
    assert float(rough.residuals[0, 0]) > 1e-3
    assert float(fine.values[0, 0]) == pytest.approx(3.0, rel=1e-14)


def test_an_image_does_not_depend_on_its_batch():
    flow = flow_of(images=4)
    function, points = flow.between(0, 3), flow.points[0]
    together = top_singular_values(function, points, 2, [10, 11, 12, 13])
    for row in range(4):
        alone = top_singular_values(function, points[row : row + 1], 2, [10 + row])
        assert torch.allclose(alone.values[0], together.values[row], rtol=1e-13)
        assert int(alone.iterations[0]) == int(together.iterations[row])


def test_zero_jacobian_and_full_width():
    points = torch.ones(2, 3, dtype=torch.float64)
    nothing = top_singular_values(lambda x: x * 0, points, 3, [0, 1])
    assert nothing.values.tolist() == [[0.0] * 3] * 2 and nothing.residuals.tolist() == [[0.0] * 3] * 2
    diagonal = torch.tensor([1.0, -4.0, 2.0], dtype=torch.float64)
    whole = top_singular_values(lambda x: x * diagonal, points, 3, [0, 1])
    assert torch.allclose(whole.values, torch.tensor([[4.0, 2.0, 1.0]] * 2, dtype=torch.float64), rtol=1e-14)
    assert whole.iterations.tolist() == [1, 1]


@pytest.mark.parametrize("k", [0, 4])
def test_k_outside_the_dimension(k):
    with pytest.raises(ValueError, match=r"expected 1\.\.3"):
        top_singular_values(lambda x: x, torch.ones(1, 3), k, [0])


def test_flattening_of_tuples_is_undone():
    state = (torch.rand(2, 3, 4), torch.rand(2, 5))
    shapes = ((3, 4), (5,))
    back = unflatten(flatten(state), shapes)
    assert all(torch.equal(a, b) for a, b in zip(back, state, strict=True))
    assert torch.equal(unflatten(flatten(state[0]), ((3, 4),)), state[0])
