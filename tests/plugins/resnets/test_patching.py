"""Patching is a permutation: invertible and an l2 isometry, and each tile is a contiguous piece of the map."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_resnets.network import GRIDS
from stabilitykit_resnets.patching import patch, patch_all, unpatch, unpatch_all

grids = st.tuples(st.integers(1, 4), st.integers(1, 4))
shapes = st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))


@settings(deadline=None, max_examples=50)
@given(grids, shapes, st.integers(0, 2**31))
def test_patching_permutes_coordinates(grid: tuple[int, int], shape: tuple[int, int, int, int], seed: int) -> None:
    (rows, columns), (batch, channels, height, width) = grid, shape
    numbers = torch.arange(batch * channels * rows * height * columns * width, dtype=torch.float64)
    x = numbers.reshape(batch, channels, rows * height, columns * width)
    patched = patch(x, grid)
    assert patched.shape == (batch, channels * rows * columns, height, width)
    assert torch.equal(unpatch(patched, grid), x)
    for image, cut in zip(x, patched):
        assert torch.equal(image.flatten().sort().values, cut.flatten().sort().values)
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(x.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    assert torch.allclose((patch(a, grid) - patch(b, grid)).norm(), (a - b).norm(), rtol=1e-12)


@settings(deadline=None, max_examples=30)
@given(grids, shapes)
def test_channels_hold_contiguous_tiles(grid: tuple[int, int], shape: tuple[int, int, int, int]) -> None:
    (rows, columns), (batch, channels, height, width) = grid, shape
    x = torch.rand(batch, channels, rows * height, columns * width)
    patched = patch(x, grid)
    for row in range(rows):
        for column in range(columns):
            tile = x[:, :, row * height : (row + 1) * height, column * width : (column + 1) * width]
            first = (row * columns + column) * channels
            assert torch.equal(patched[:, first : first + channels], tile)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 4), st.integers(1, 3), st.integers(0, 2**31))
def test_stages_compose_and_invert(stages: int, batch: int, seed: int) -> None:
    x = torch.randn(batch, 64, 8, 8, generator=torch.Generator().manual_seed(seed))
    cut = patch_all(x, GRIDS[:stages])
    expected = [(64, 8, 8), (256, 4, 4), (512, 2, 4), (1024, 2, 2), (2048, 1, 2)][stages]
    assert tuple(cut.shape[1:]) == expected
    assert torch.equal(unpatch_all(cut, GRIDS[:stages]), x)
