"""Bounds on many regions of one network: sound, monotone whatever the order, the Jacobian's norm in the limit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from stabilitykit_lipschitz import Ball, Box, Data, LocalBounds, dense, lipschitz, lipschitz_local
from stabilitykit_lipschitz.affine import row_norms, straight
from stabilitykit_lipschitz.answers import Answers
from stabilitykit_lipschitz.centred import centred_bound, centred_bounds
from stabilitykit_lipschitz.extract import Reading
from stabilitykit_lipschitz.inclusion import extent, within
from stabilitykit_lipschitz.lower import jacobian
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.norms import Norms, spectral_of_each
from stabilitykit_lipschitz.regions import slopes_of, tighten
from stabilitykit_lipschitz.slopes import NAMES, named
from stabilitykit_lipschitz.upper import Upper
from torch import nn

from tests.plugins.lipschitz.random_nets import as_scaled, random_network

SCALES = (1e-150, 1e-30, 1.0, 1e30, 1e150)


def _slopes(network: Network, region: Ball | Box, rng: np.random.Generator) -> list[float]:
    """||J|| at points of the region and difference quotients between them, in float64."""
    x = region.sample(24, rng)
    found = [float(np.linalg.norm(jacobian(network, row), 2)) for row in x]
    y = network(x)
    apart = np.linalg.norm(x[:-1] - x[1:], axis=1)
    # quotients of points too near each other are mostly rounding, as are small differences of large outputs
    rough = 1e-13 * (np.abs(y).max(initial=0.0) + network.allowance(x).max(initial=0.0) * 1e3)
    with np.errstate(all="ignore"):
        change = np.linalg.norm(y[:-1] - y[1:], axis=1) - 10 * rough
        found += [float(v) for v in change / apart if np.isfinite(v)]
    return found


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    scale=st.sampled_from(SCALES),
    radius=st.sampled_from((1e-9, 1e-3, 0.1, 1.0, 30.0)),
    boxed=st.booleans(),
    method=st.sampled_from(("auto", "centred", "sdp", "layer")),
)
def test_no_slope_in_the_region_is_above_the_bound(
    seed: int, scale: float, radius: float, boxed: bool, method: str
) -> None:
    network = as_scaled(random_network(seed, 8), scale)
    rng = np.random.default_rng(seed)
    center = rng.standard_normal(network.inputs) * rng.choice([0.0, 1.0, 10.0])
    region = Box(center - radius, center + radius) if boxed else Ball(center, radius)
    bounds = LocalBounds(network, method=method, seconds=0.3)
    found = bounds.at(region)
    assert max(_slopes(network, region, rng)) <= found.upper * (1 + 1e-9)
    assert found.lower <= found.upper <= bounds.everywhere() * (1 + 1e-15)


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), method=st.sampled_from(("auto", "centred", "sdp")), data=st.data())
def test_a_region_inside_another_never_has_the_larger_bound(seed: int, method: str, data: st.DataObject) -> None:
    """Exactly, in any order of asking; tol is loose so that the solver alone would break it."""
    network = random_network(seed, 6)
    rng = np.random.default_rng(seed)
    center = rng.standard_normal(network.inputs)
    regions = [
        *(Ball(center, r) for r in (0.0, 1e-8, 0.01, 0.010001, 0.3)),
        Ball(center + 0.05 / np.sqrt(network.inputs), 0.1),
        Box(center - 0.01, center + 0.01),
        Box(center - 1.0, center + 0.5),
        Box(center - 1.0, center + 1.0),
    ]
    bounds = LocalBounds(network, method=method, tol=0.05, seconds=0.3)
    found = {i: bounds.at(regions[i]).upper for i in data.draw(st.permutations(range(len(regions))))}
    nested = [(i, j) for i, j in itertools.permutations(found, 2) if within(regions[i], regions[j])]
    assert len(nested) >= 15
    assert all(found[i] <= found[j] for i, j in nested)
    assert max(found.values()) <= bounds.everywhere()


@given(seed=st.integers(0, 10**6))
def test_inclusion_is_of_points(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5))

    def draw() -> Ball | Box:
        c, r = rng.standard_normal(n), float(rng.choice([0.0, 0.1, 1.0, 4.0]) * rng.random())
        return Ball(c, r) if rng.random() < 0.5 else Box(c - r, c + r * rng.random(n))

    inner, outer = draw(), draw()
    if within(inner, outer):
        assert all(outer.contains(x) for x in inner.sample(20, rng))
    assert within(inner, inner)


@given(seed=st.integers(0, 10**6), scale=st.sampled_from((1e-150, 1.0, 1e150)))
def test_remembered_regions_are_those_that_comparing_each_finds(seed: int, scale: float) -> None:
    """The least bound around and the largest inside, by brute force over `within`."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5))
    answers = Answers(n)
    regions: list[Ball | Box | Data] = []
    for _ in range(40):
        if regions and rng.random() < 0.3 and isinstance(known := regions[rng.integers(len(regions))], Ball):
            # the same centre, often the same radius: no margin to spare
            regions.append(Ball(known.center, known.radius * float(rng.choice([0.5, 1.0, 2.0]))))
        elif rng.random() < 0.1:
            regions.append(Data(np.zeros((1, n)), (float(rng.integers(1, 5)),)))
        else:
            c, r = rng.integers(-2, 3, n) * 0.5 * scale, float(rng.integers(0, 9)) * 0.25 * scale
            regions.append(Ball(c, r) if rng.random() < 0.5 else Box(c - r, c + r))
    bounds = rng.integers(1, 20, len(regions)).astype(float)
    for i, (region, bound) in enumerate(zip(regions, bounds, strict=True)):
        around = [b for other, b in zip(regions[:i], bounds) if b < bound and within(region, other)]
        inside = [b for other, b in zip(regions[:i], bounds) if b > bound and within(other, region)]
        least, largest = answers.least_around(region, bound), answers.largest_inside(region, bound)
        assert (None if least is None else least.bound) == min(around, default=None)
        assert (None if largest is None else largest.bound) == max(inside, default=None)
        answers.add(region, Upper(bound, "centred"))


def test_inclusion_is_found() -> None:
    """Where there is room to spare, each kind of region is seen to lie in each."""
    center = np.zeros(3)
    small, large = (
        (Ball(center, 0.1), Box(center - 0.1, center + 0.1)),
        (Ball(center, 1.0), Box(center - 1, center + 1)),
    )
    assert all(within(a, b) and not within(b, a) for a in small for b in large)
    data = [Data(np.zeros((1, 3)), (power,)) for power in (2.0, 1.0)]
    assert within(data[0], data[1]) and not within(data[1], data[0])
    assert not within(data[0], large[0])


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"identity"}))
def test_small_balls_have_the_jacobians_norm(name: str) -> None:
    rng = np.random.default_rng(3)
    network = dense(
        [rng.standard_normal((b, a)) / np.sqrt(a) for a, b in itertools.pairwise((6, 9, 8, 3))], None, named(name)
    )
    center = rng.standard_normal(6)
    truth = float(np.linalg.norm(jacobian(network, center), 2))
    radii = (1e-6, 1e-3, 0.1, 1.0)
    for method in ("auto", "centred"):
        found = [i.upper for i in LocalBounds(network, method=method).all([Ball(center, r) for r in radii])]
        assert truth <= found[0] * (1 + 1e-9) and found[0] <= truth * 1.0001
        assert found == sorted(found)


def test_a_linear_piece_has_exactly_its_jacobians_norm() -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 30), nn.LeakyReLU(0.1), nn.Linear(30, 5)).double()
    x = torch.randn(12, dtype=torch.float64)
    jacobian_ = torch.autograd.functional.jacobian(model, x)
    truth = float(torch.linalg.matrix_norm(jacobian_, 2))
    first, middle = model[0](x).detach(), model[2](model[1](model[0](x))).detach()
    steep = [float(torch.linalg.matrix_norm(model[i].weight.detach(), 2)) for i in (0, 2)]
    # no kink is this near: pre-activations move by at most these norms
    radius = min(float(first.abs().min()) / steep[0], float(middle.abs().min()) / (steep[0] * steep[1])) * 0.99
    found = LocalBounds(model, method="centred").at(Ball(x.numpy(), radius))
    assert found.upper == pytest.approx(truth, rel=1e-10) and found.method == "centred"


@given(name=st.sampled_from(sorted(NAMES)), a=st.floats(-8, 8), width=st.floats(0, 9), seed=st.integers(0, 99))
def test_an_activation_is_within_its_band(name: str, a: float, width: float, seed: int) -> None:
    activation = named(name)
    line, middle, away, error = straight(activation, np.array([a]), np.array([a + width]))
    z = a + width * np.random.default_rng(seed).random(300)
    off = np.abs(activation.value(z) - line * z - middle)
    assert (off <= away + error + 1e-13).all()
    # away shrinks like the square of the width: straight lines fit narrow intervals
    if not activation.kinks:
        # slopes are rounded outward by 1e-12, values by an ulp or two
        assert away[0] <= width * width + 1e-11 * width + 1e-15 * (1 + abs(a))


def test_affine_forms_contain_what_the_network_computes() -> None:
    """Against values sampled in float64: pre-activations never leave the intervals the slopes were taken from."""
    for seed in range(30):
        network = random_network(seed, 8)
        rng = np.random.default_rng(seed)
        region = Ball(rng.standard_normal(network.inputs), float(rng.choice([1e-6, 0.1, 2.0])))
        local = tighten(network, region)
        pre, _ = network.states(region.sample(200, rng))
        for layer, z in zip(local.layers, pre):
            slope = layer.activation.derivative(z)
            away = 1e-9 * (1 + np.abs(slope))
            smooth = np.all([np.abs(z - kink) > 1e-9 for kink in layer.activation.kinks], axis=0)
            assert (((slope >= layer.alpha - away) & (slope <= layer.beta + away)) | ~smooth).all()


def test_affine_forms_narrow_the_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 4)).double()
    network, region = Reading(model).network, Ball(np.ones(20), 0.1)
    forms = tighten(network, region).layers[1]
    monkeypatch.setattr("stabilitykit_lipschitz.propagation.affine", lambda *_: None)
    plain = tighten(network, region).layers[1]
    assert (forms.beta - forms.alpha).sum() < 0.8 * (plain.beta - plain.alpha).sum()
    assert (forms.beta <= plain.beta).all() and (plain.alpha <= forms.alpha).all()


def test_weights_whose_squares_underflow_have_intervals() -> None:
    """A ball that crosses the kink of a neuron whose weight is 1e-170."""
    network = dense([np.array([[1e-170]]), np.array([[1.0]])], None, named("relu"))
    layer = tighten(network, Ball(np.array([1.0]), 2.0)).layers[0]
    assert layer.alpha[0] == 0.0 and layer.beta[0] == 1.0
    assert row_norms(np.array([[1e-170, 0.0], [1e200, 1e200]])) == pytest.approx([1e-170, np.sqrt(2) * 1e200])


@pytest.mark.parametrize("method", ["sdp", "layer", "product"])
def test_a_local_bound_is_above_no_bound_of_its_kind_or_looser(method: str) -> None:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 8), nn.ELU(), nn.Linear(8, 3)).double()
    for radius in (1e-6, 0.1, 10.0):
        region = Ball(np.ones(6), radius)
        auto = lipschitz(model, region=region, tol=1e-6, search_seconds=0.01).upper
        for other in (region, None):
            assert auto <= lipschitz(model, method=method, region=other, search_seconds=0.01).upper * (1 + 1e-6)


def test_data_regions_are_monotone_and_bounded_by_their_spread() -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 3)).double()
    x = torch.randn(40, 5, dtype=torch.float64).numpy() * 3
    bounds = LocalBounds(model)
    few, all_ = bounds.all([Data(x[:5]), Data(x)])
    assert few.upper <= all_.upper and bounds.everywhere() == np.inf
    jacobians = torch.func.vmap(torch.func.jacrev(model))(torch.from_numpy(x)).detach()
    assert float(torch.linalg.matrix_norm(jacobians, 2).max()) <= all_.upper * (1 + 1e-9)
    assert "smallest of 40" in all_.assumptions[0]


def test_a_region_with_constant_inputs_of_a_normalisation_is_refused() -> None:
    """By name, alone and among others."""
    torch.manual_seed(4)
    bounds = LocalBounds(nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3)).double())
    small, large = Ball(np.ones(5), 1e-3), Ball(np.ones(5), 100.0)
    assert np.isfinite(bounds.at(small).upper)
    for regions in ([large], [small, large]):
        with pytest.raises(ValueError, match=r"'1'.*away from zero"):
            bounds.all(regions)


def test_many_balls_are_read_once_and_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).double()
    centers = torch.randn(6, 4)
    seen: list[tuple[int, int]] = []
    read: list[int] = []
    init = Reading.__init__
    monkeypatch.setattr(Reading, "__init__", lambda self, *a: read.append(1) or init(self, *a))
    radii = [0.1, 0.2, 0.05, 1e-3, 0.3, 1e-6]
    found = lipschitz_local(model, centers, radii, progress=lambda done, total: seen.append((done, total)))
    assert read == [1] and seen == [(i, 6) for i in range(1, 7)]
    for interval, center, radius in zip(found, centers.double().numpy(), radii):
        alone = lipschitz(model, region=Ball(center, radius), search_seconds=0.01).upper
        assert interval.upper == pytest.approx(alone, rel=2e-4)
        assert np.linalg.norm(interval.witness_input - center) <= radius
    with pytest.raises(ValueError, match="one per centre"):
        lipschitz_local(model, centers, [0.1, 0.2])
    with pytest.raises(ValueError, match="unknown method 'exact'"):
        LocalBounds(model, method="exact")


@pytest.mark.parametrize("norm", [2, "inf"])
def test_the_closed_form_bounds_both_norms(norm: int | str) -> None:
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    x = torch.randn(6, dtype=torch.float64)
    signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=6)), dtype=torch.float64)
    for radius in (1e-6, 0.1):
        found = LocalBounds(model, norm, "centred").at(Ball(x.numpy(), radius))
        points = x + radius * torch.nn.functional.normalize(torch.randn(50, 6, dtype=torch.float64), dim=1)
        jacobians = torch.func.vmap(torch.func.jacrev(model))(points).detach()
        size = torch.linalg.matrix_norm(jacobians, 2) if norm == 2 else (jacobians @ signs.T).norm(dim=1).amax(1)
        assert float(size.max()) <= found.upper * (1 + 1e-9)


@given(seed=st.integers(0, 10**6), boxed=st.booleans())
@settings(max_examples=8)
def test_many_regions_at_once_have_the_bounds_of_each(seed: int, boxed: bool) -> None:
    """One pass for all of them: slopes and the closed form as one by one, also where one overflows beside others."""
    network = random_network(seed, 6)
    rng = np.random.default_rng(seed)
    centers = rng.standard_normal((5, network.inputs))
    radii = np.array([0.0, 1e-6, 0.1, 3.0, 1e200])
    regions = [Box(c - r, c + r) if boxed else Ball(c, r) for c, r in zip(centers, radii)]
    many, norms = slopes_of(network, regions), Norms()
    bounds = np.broadcast_to(centred_bounds(network, many.bounds, False, norms), len(regions))
    for row, region in enumerate(regions):
        alone = tighten(network, region)
        for own, (alpha, beta) in zip(alone.layers, many.bounds):
            assert alpha[row] == pytest.approx(own.alpha, rel=1e-9, abs=1e-12, nan_ok=True)
            assert beta[row] == pytest.approx(own.beta, rel=1e-9, abs=1e-12, nan_ok=True)
        assert bounds[row] == pytest.approx(centred_bound(alone, False, norms), rel=1e-9)


@pytest.mark.parametrize("layers", [0, 2])
def test_all_is_at_of_each_region(layers: int) -> None:
    rng = np.random.default_rng(1)
    sizes = (4, *[5] * layers, 3)
    network = dense([rng.standard_normal((b, a)) for a, b in itertools.pairwise(sizes)], None, named("tanh"))
    regions = [Ball(np.full(network.inputs, 0.1 * k), 0.01 * (k + 1)) for k in range(7)]
    regions.insert(3, Box(np.zeros(network.inputs), np.ones(network.inputs)))
    together = [i.upper for i in LocalBounds(network).all(regions)]
    order = sorted(range(len(regions)), key=lambda i: -extent(regions[i]))
    bounds = LocalBounds(network)
    each = {i: bounds.at(regions[i]).upper for i in order}
    assert together == pytest.approx([each[i] for i in range(len(regions))], rel=1e-9)


def test_norms_of_many_matrices_are_those_of_each() -> None:
    """Proven together or one by one, with zeros, infinities and extreme scales among them."""
    rng = np.random.default_rng(0)
    stack = rng.standard_normal((7, 4, 6)) * np.array([1, 1e-150, 1e150, 0, 1, 1, 1]).reshape(-1, 1, 1)
    stack[4, 1, 2], stack[5] = np.inf, np.eye(4, 6)
    found = spectral_of_each(stack)
    assert found[4] == np.inf and found[3] == 0.0
    finite = [0, 1, 2, 5, 6]
    exact = np.linalg.norm(stack[finite], 2, axis=(1, 2))
    assert found[finite] == pytest.approx(exact, rel=1e-9) and (found[finite] >= exact * (1 - 1e-15)).all()
    rows = spectral_of_each(stack[finite][:, :1])
    assert rows == pytest.approx(np.linalg.norm(stack[finite][:, 0], axis=1), rel=1e-12)
