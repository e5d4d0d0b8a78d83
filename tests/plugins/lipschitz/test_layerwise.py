"""Layer-wise bounds: convolutions against dense matrices, every layer against slopes between inputs, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_lipschitz import Ball, Box, Data, lipschitz, spectral
from stabilitykit_lipschitz.layerwise import LayerReading
from stabilitykit_lipschitz.pairs import NORMS
from stabilitykit_lipschitz.trace import UnsupportedModule
from torch import nn
from torch.nn import functional

PAIRS = [(p, q) for p in range(3) for q in range(3)]


def _matrix(module: nn.Module, shape: tuple[int, ...]) -> np.ndarray:
    """The linear part of an affine module as a dense matrix, (m, n)."""
    n = int(np.prod(shape))
    with torch.no_grad():
        zero = module(torch.zeros(1, *shape).double()).reshape(1, -1)
        return (module(torch.eye(n).double().reshape(n, *shape)).reshape(n, -1) - zero).T.numpy()


def _exact(matrix: np.ndarray, p: int, q: int) -> float | None:
    """The norm where a formula gives it."""
    if p == 0:
        return float(max(np.linalg.norm(matrix, NORMS[q], axis=0)))
    if q == 2:
        return float(max(np.linalg.norm(matrix, (np.inf, 2, 1)[p], axis=1)))
    return float(np.linalg.norm(matrix, 2)) if p == q == 1 else None


@given(st.data())
@settings(max_examples=8, deadline=None)
def test_a_convolution_is_bounded_by_the_norms_of_its_dense_matrix(data: st.DataObject) -> None:
    draw = data.draw
    axes, groups = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2]))
    channels, out = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    kernel, stride, dilation = (draw(st.integers(1, most)) for most in (4, 3, 2))
    padding = draw(st.integers(0, 2))
    size = draw(st.integers(dilation * (kernel - 1) + 1, 7))
    torch.manual_seed(draw(st.integers(0, 99)))
    kind = (nn.Conv1d, nn.Conv2d)[axes - 1]
    scale = 10.0 ** draw(st.integers(-150, 150))
    conv = kind(channels, out, kernel, stride, padding, dilation, groups, bias=False).double()
    with torch.no_grad():
        conv.weight *= scale
    shape = (channels, *[size] * axes)
    matrix = _matrix(conv, shape) / scale
    table = LayerReading(nn.Sequential(conv, nn.Flatten()), shape).table / scale
    for p, q in PAIRS:
        exact = _exact(matrix, p, q)
        if exact is None:
            continue
        assert table[p, q] >= exact * (1 - 1e-12)
        if (p, q) != (1, 1):
            assert table[p, q] == pytest.approx(exact, rel=1e-9)
    assert table[1, 1] <= 2 * _exact(matrix, 1, 1) + 1e-300  # the price of the torus


def test_taps_that_see_padding_only_do_not_count() -> None:
    """One window of four at -1 to 2: the first tap never meets a number."""
    conv = nn.Conv1d(1, 1, 4, 3, 1, bias=False).double()
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[100.0, 1.0, 2.0, -3.0]]]))
    table = LayerReading(nn.Sequential(conv, nn.Flatten()), (1, 4)).table
    matrix = _matrix(conv, (1, 4))
    assert matrix.tolist() == [[1.0, 2.0, -3.0, 0.0]]
    assert table[0, 2] == pytest.approx(3.0, rel=1e-9) and table[2, 2] == pytest.approx(6.0, rel=1e-9)
    assert table[1, 1] < 100


def test_disjoint_windows_are_exact() -> None:
    """A 1 x 1 kernel, and windows side by side: one matrix for every place."""
    torch.manual_seed(0)
    for conv, shape in ((nn.Conv2d(3, 4, 1), (3, 5, 5)), (nn.Conv1d(2, 5, 4, stride=4), (2, 12))):
        module = nn.Sequential(conv.double(), nn.Flatten())
        exact = np.linalg.norm(_matrix(conv, shape), 2)
        assert LayerReading(module, shape).table[1, 1] == pytest.approx(exact, rel=1e-7)


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect", "replicate"])
def test_padding_modes_and_transposed_convolutions(mode: str) -> None:
    torch.manual_seed(1)
    conv = nn.Conv2d(2, 3, 3, padding=1, padding_mode=mode).double()
    matrix = _matrix(conv, (2, 5, 6))
    table = LayerReading(nn.Sequential(conv, nn.Flatten()), (2, 5, 6)).table
    back = nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2).double()
    other = _matrix(back, (2, 4, 4))
    behind = LayerReading(nn.Sequential(back, nn.Flatten()), (2, 4, 4)).table
    for p, q in PAIRS:
        for m, t in ((matrix, table), (other, behind)):
            exact = _exact(m, p, q)
            assert exact is None or exact <= t[p, q] * (1 + 1e-12) <= 6 * exact


@given(st.integers(1, 130), st.integers(1, 8), st.booleans(), st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_the_proven_spectral_norm_is_just_above_the_true_one(a: int, b: int, is_complex: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stack = rng.standard_normal((2, a, 8 * b))
    if is_complex:
        stack = stack + 1j * rng.standard_normal(stack.shape)
    exact = max(np.linalg.norm(m, 2) for m in stack)
    found = spectral.largest_singular_value(lambda: iter([stack]))
    assert exact * (1 - 1e-13) <= found <= exact * (1 + 1e-5)


class Attends(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attend(x, x, x, need_weights=False)[0].flatten(1)


class Functional(nn.Module):
    """Functions instead of modules, a matrix on the right, a skip, a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 2, 3))
        self.slope = nn.Parameter(torch.tensor([0.3, -0.4, 0.1, 0.9]))
        self.matrix = nn.Parameter(torch.randn(16, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = functional.prelu(functional.conv1d(x, self.kernel, padding=1), self.slope)
        h = torch.cat([functional.max_pool1d(h, 3, 2, 1), functional.avg_pool1d(h, 2)[..., :4]], dim=2)
        h = torch.cat([h[:, :, :4], h[:, :, 4:8] - h[:, :, :4]], dim=1).clamp(-1, 2)
        h = h.reshape(len(h), 8, 4)[:, ::2].flatten(1)
        return torch.matmul(h, self.matrix) + (h @ self.matrix).tanh()


class Layers(nn.Module):
    """A residual stage with batch norm, a strided skip and pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, 2, 1, bias=False), nn.Conv2d(4, 4, 3, 1, 1, bias=False)
        self.norm, self.skip = nn.BatchNorm2d(4), nn.Conv2d(2, 4, 1, 2)
        self.norm.running_var.uniform_(0.3, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.skip(x) + self.norm(self.b(torch.relu(self.a(x)))))
        return self.head(functional.adaptive_avg_pool2d(h, 1).flatten(1))


def _global() -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    torch.manual_seed(0)
    pools = [nn.MaxPool2d(2), nn.MaxPool2d(3, 1), nn.MaxPool2d(3, 2, 1, 1, ceil_mode=True), nn.MaxPool2d(2, 1, 0, 2)]
    return [
        *((f"pool{k}", nn.Sequential(pool, nn.Flatten()), (2, 6, 6)) for k, pool in enumerate(pools)),
        ("average", nn.Sequential(nn.AvgPool2d(3, 2, 1), nn.Flatten()), (2, 6, 6)),
        ("enlarged", nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Flatten()), (1, 3, 3)),
        ("softmax inside", nn.Sequential(nn.Softmax(1), nn.Linear(4, 3)), (4,)),
        ("log-softmax", nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.LogSoftmax(1)), (5,)),
        ("log-softmax of one", nn.LogSoftmax(-1), (3,)),
        ("functional", Functional(), (2, 8)),
        ("stage", Layers(), (2, 6, 6)),
        ("swish", nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 2)), (4,)),
    ]


def _regional() -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    torch.manual_seed(0)
    return [
        ("attention", Attends(), (4, 6)),
        ("encoder", nn.Sequential(nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), nn.Flatten()), (4, 6)),
        ("group norm", nn.Sequential(nn.Conv1d(2, 4, 1), nn.GroupNorm(2, 4), nn.Flatten()), (2, 5)),
        ("instance norm", nn.Sequential(nn.InstanceNorm2d(2, affine=True), nn.Flatten()), (2, 3, 3)),
        ("layer norm", nn.Sequential(nn.LayerNorm(6), nn.GELU(), nn.Linear(6, 2)), (6,)),
        ("rms norm", nn.Sequential(nn.RMSNorm(6), nn.Linear(6, 2)), (6,)),
    ]


def _steepest(reading: LayerReading, points: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Largest slopes met between points and their neighbours, (3, 3)."""
    moved = reading.values(points + steps) - reading.values(points)
    return np.array(
        [[(np.linalg.norm(moved, q, axis=1) / np.linalg.norm(steps, p, axis=1)).max() for q in NORMS] for p in NORMS]
    )


@pytest.mark.parametrize(("name", "model", "shape"), _global(), ids=lambda v: v if isinstance(v, str) else "")
def test_no_slope_is_above_a_global_bound(name: str, model: nn.Module, shape: tuple[int, ...]) -> None:
    reading = LayerReading(model, shape)
    rng = np.random.default_rng(0)
    n = int(np.prod(shape))
    points = rng.standard_normal((300, n)) * np.geomspace(1e-2, 1e2, 300)[:, None]
    steps = rng.standard_normal((300, n)) * np.geomspace(1e-3, 10, 300)[::-1, None]
    steps[::3] = np.eye(n)[rng.integers(n, size=100)]
    steps[1::3] = np.sign(steps[1::3])
    slopes = _steepest(reading, points, steps)
    assert (slopes <= reading.table * (1 + 1e-9)).all() and np.isfinite(reading.table).all()
    for p, q in ((1, 1), ((len(name) + 1) % 3, len(name) % 3)):
        found = lipschitz(model, NORMS[p], "layerwise", input_shape=shape, norm_out=NORMS[q])
        assert 0 < found.lower <= found.upper == reading.table[p, q] and found.method == "layerwise"
        assert found.certified


@pytest.mark.parametrize(("name", "model", "shape"), _regional(), ids=lambda v: v if isinstance(v, str) else "")
def test_what_has_no_global_constant_is_bounded_on_regions(name: str, model: nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(UnsupportedModule, match=r"region=Ball\(...\) or Box"):
        lipschitz(model, method="layerwise", input_shape=shape)
    rng = np.random.default_rng(3)
    n = int(np.prod(shape))
    middle = rng.standard_normal(n)
    tables = []
    for radius in (0.02, 0.5):
        for region in (Ball(middle, radius), Box(middle - radius, middle + radius)):
            reading = LayerReading(model, shape, region)
            points = region.sample(200, rng)
            others = np.concatenate([region.sample(100, rng), region.project(points[:100] + 1e-4)])
            slopes = _steepest(reading, points, others - points)
            assert (slopes <= reading.table * (1 + 1e-9)).all()
            tables.append(reading.table)
        if len(tables) > 2:  # a larger region of the kind never has a smaller bound
            assert (tables[-2] >= tables[-4] * (1 - 1e-12)).all() and (tables[-1] >= tables[-3] * (1 - 1e-12)).all()
    found = lipschitz(model, region=Ball(middle, 0.02), input_shape=shape, method="layerwise")
    assert 0.02 * found.upper < found.lower <= found.upper
    assert not found.certified and any("no certificate" in note for note in found.notes)
    if name == "attention":
        assert "region only" in found.assumptions[0]


class Counts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return torch.max_pool1d(x, 2).flatten(1) * (1.0 + 0.1 * self.calls)


class Peeks(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(x if float(x[0, 0]) > 0 else 2 * x, 1)


class Indices(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool1d(x, 2, return_indices=True)[1].flatten(1).double()


class OverTheBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(x, 0)


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (Counts(), (2, 4), "does not compute what its traced operations say"),
        (Peeks(), (3,), "decides by values|reads numbers"),
        (Indices(), (2, 4), "where a maximum was found|no Lipschitz rule"),
        (OverTheBatch(), (3,), "over the samples of a batch"),
        (nn.Sequential(nn.LPPool1d(2, 2), nn.Flatten()), (2, 4), "no Lipschitz rule|no largest slope|ever steeper"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "",
)
def test_what_is_not_understood_is_refused(model: nn.Module, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(UnsupportedModule, match=words):
        lipschitz(model, method="layerwise", input_shape=shape)
    with pytest.raises(UnsupportedModule):
        lipschitz(model, input_shape=shape)


def test_weights_that_are_not_finite_and_regions_of_another_kind_are_refused() -> None:
    broken = nn.Sequential(nn.MaxPool1d(2), nn.Flatten(), nn.Linear(2, 2))
    broken[2].weight.data[0, 0] = torch.nan
    with pytest.raises(UnsupportedModule, match="not finite"):
        lipschitz(broken, input_shape=(1, 4))
    with pytest.raises(ValueError, match="Data says nothing"):
        lipschitz(nn.Linear(2, 2), method="layerwise", region=Data(np.zeros((1, 2))))
    with pytest.raises(ValueError, match="3 coordinates"):
        lipschitz(nn.Linear(2, 2), method="layerwise", region=Ball(np.zeros(3), 1.0))


def test_auto_takes_it_only_where_lipsdp_has_no_rule() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    pooled = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.MaxPool1d(2, 1), nn.Flatten(), nn.Linear(2, 2))
    assert lipschitz(plain, search_seconds=0.1).method == "sdp"
    found = lipschitz(pooled, input_shape=(3,))
    assert found.method == "layerwise" and "MaxPool1d" in found.notes[0]
    with pytest.raises(UnsupportedModule, match="no Lipschitz rule"):
        lipschitz(pooled, input_shape=(3,), method="sdp")


def test_attention_does_not_pay_for_what_all_values_share() -> None:
    """A constant added to every token's values moves nothing; and the bound stays above autograd's slopes."""

    class Heads(nn.Module):
        def __init__(self, shared: float, flat: bool = False) -> None:
            super().__init__()
            self.shared, self.flat = shared, flat

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            chances = (x @ x.transpose(1, 2)).softmax(-1)
            if self.flat:  # rows of another length do not sum to 1
                return (chances.reshape(len(x), 2, 8) @ x.reshape(len(x), 8, 1)[:, :8]).flatten(1)
            return (chances @ (x + self.shared)).flatten(1)

    center = np.random.default_rng(0).standard_normal(8)
    region = Ball(center, 0.05)
    near, far = (LayerReading(Heads(c), (4, 2), region).table[1, 1] for c in (0.0, 100.0))
    assert far == pytest.approx(near, rel=1e-5)
    for module in (Heads(0.0), Heads(100.0), Heads(0.0, flat=True)):
        table = LayerReading(module, (4, 2), region).table
        points = torch.from_numpy(region.sample(40, np.random.default_rng(1)).reshape(40, 4, 2))
        jacobians = torch.func.vmap(torch.func.jacrev(lambda x, m=module: m(x[None])[0]))(points).reshape(40, -1, 8)
        assert float(torch.linalg.matrix_norm(jacobians, 2).max()) <= table[1, 1]
