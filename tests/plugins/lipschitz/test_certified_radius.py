"""The property ``certified_radius``: contract, verification, what formats move, every kind of readout."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from stabilitykit_lipschitz import displacement
from stabilitykit_lipschitz.layered_margins import LayeredMargins
from stabilitykit_lipschitz.layerwise import LayerReading
from stabilitykit_lipschitz.radii import Radii, measured_radii
from stabilitykit_lipschitz.radius_property import CertifiedRadius
from stabilitykit_lipschitz.whole_readout import WholeReadout, shared

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.results import Kind
from stabilitykit.dynamics.decisions import decisions_along_depth
from stabilitykit.dynamics.lowprecision import LowPrecision, round_to
from stabilitykit.testing.course import TinyCourse
from stabilitykit.testing.fixtures import TinyModel, tiny_context
from stabilitykit.testing.property import check_property


def with_head(*layers: torch.nn.Module, blocks: int = 3) -> TinyModel:
    torch.manual_seed(0)
    model = TinyModel(blocks)
    model.module["head"] = torch.nn.Sequential(torch.nn.Flatten(), *layers).eval().requires_grad_(False)
    return model


def deep(blocks: int = 3) -> TinyModel:
    torch.manual_seed(0)
    return with_head(torch.nn.Linear(16, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3), blocks=blocks)


def table(result, name: str) -> list[dict]:
    found = result.tables[name]
    return [dict(zip(found.columns, row, strict=True)) for row in found.rows]


@pytest.mark.parametrize("options", [{}, {"at": 0.3, "precision": "none"}])
def test_contract(options) -> None:
    assert not [check for check in check_property(lambda: CertifiedRadius(**options)) if not check.ok]


def test_radii_at_every_depth_are_distances_to_the_boundary() -> None:
    """Written out in float64 from states and weights."""
    context = tiny_context()
    result = CertifiedRadius(at=0.3, precision="none").evaluate(context)
    weight, bias = (p.double().numpy() for p in context.model.head[1].parameters())
    by_depth: list[list[float]] = [[] for _ in range(4)]
    for _, inputs in context.batches():
        state = context.model.initial_state(inputs)
        for t in range(4):
            for h in state.flatten(1).double().numpy():
                g = weight @ h + bias
                a = int(g.argmax())
                lengths = np.linalg.norm(weight - weight[a], axis=1)
                by_depth[t].append(min((g[a] - g[b]) / lengths[b] for b in range(3) if b != a))
            state = context.model.block(t, state) if t < 3 else state
    for row, radii in zip(table(result, "depth"), by_depth, strict=True):
        assert row["median"] == pytest.approx(np.quantile(radii, 0.5, method="lower"), rel=1e-9)
        assert row["smallest"] == pytest.approx(min(radii), rel=1e-9)
        assert row["image"] == int(np.argmin(radii))
    assert result["certified_radius"].value == pytest.approx(np.sort(by_depth[3])[11], rel=1e-9)
    assert result["certified_radius"].kind is Kind.EXACT
    assert result["certified_radius.smallest"].value == pytest.approx(min(by_depth[3]), rel=1e-9)
    assert result["certified_radius.share"].value == np.mean(np.array(by_depth[3]) > 0.3)
    for row in table(result, "shares"):
        assert row["share"] == pytest.approx(np.mean(np.array(by_depth[row["depth"]]) > row["r"]), abs=1 / 24 + 1e-9)


@pytest.mark.parametrize("make", [TinyModel, deep])
def test_verification_computes_the_radii_again_and_notices_other_ones(make) -> None:
    context = tiny_context(make())
    measure = CertifiedRadius(precision="none")
    result = measure.evaluate(context)
    again = measure.verify(context, result)
    assert set(again) == {"certified_radius", "certified_radius.smallest"}
    for name, value in {**again, **measure.verify_sample(context, result)}.items():
        assert value == pytest.approx(result[name].value, rel=1e-9)
    smallest = result["certified_radius.smallest"]
    other = replace(smallest, witness={**smallest.witness, **context.describe_images([int(context.indices[-1])])})
    result.measurements[1] = other
    assert measure.verify(context, result)[other.name] != pytest.approx(smallest.value, rel=1e-3)


def test_a_bound_that_is_too_small_is_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recheck holds it against autograd's slope of torch's own readout."""
    from stabilitykit_lipschitz.margins import MarginBounds

    context = tiny_context(deep())
    measure = CertifiedRadius(precision="none")
    own = MarginBounds.of
    monkeypatch.setattr(MarginBounds, "of", lambda self, a: 1e-3 * own(self, a))
    found = measure.verify(context, measure.evaluate(context))
    assert all("not proven" in text for text in found.values())


@pytest.mark.parametrize("make", [TinyModel, deep])
def test_formats_never_change_more_than_is_not_certified(make) -> None:
    context = tiny_context(make())
    result = CertifiedRadius("bf16+fp16+int8", samples=0).evaluate(context)
    rows = table(result, "precision")
    assert len(rows) == 12 and not any("bound is wrong" in text for text in result.notes)
    for row in rows:
        assert row["flipped"] <= 1 - row["certified"] + 1e-12 and 0 < row["moved median"] <= row["moved max"]
    assert 0 < min(row["certified"] for row in rows) < 1  # neither all nor nothing is certified
    low = LowPrecision(context.model, "bf16")
    away = []
    for _, inputs in context.batches():
        before, after = context.model.initial_state(inputs), low.twin.initial_state(round_to(inputs, "bf16"))
        for t in range(2):
            before, after = context.model.block(t, before), low.block(t, after)
        away += (after - before).flatten(1).double().norm(dim=1).tolist()
    (row,) = (r for r in rows if r["format"] == "bf16" and r["depth"] == 2)
    assert row["moved max"] == pytest.approx(max(away), rel=1e-9)
    alone, state = [], None
    for _, inputs in context.batches():
        state = context.model.block(0, context.model.initial_state(inputs))
        alone += (low.block(1, state) - context.model.block(1, state)).flatten(1).double().norm(dim=1).tolist()
    own = {(r["format"], r["depth"]): r for r in table(result, "alone")}
    assert len(own) == 12 and own["bf16", 2]["moved max"] == pytest.approx(max(alone), rel=1e-9)
    assert own["bf16", 2]["moved max"] < row["moved max"] and own["bf16", 0] == rows[0]
    assert all(r["flipped"] <= 1 - r["certified"] + 1e-12 for r in own.values())
    share = result["certified_radius.share.int8"]
    assert share.value == next(r["certified"] for r in rows if r["format"] == "int8" and r["depth"] == 3)


def test_a_decision_that_changes_inside_its_radius_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displacement, "_distances", lambda before, after: np.zeros(len(before)))
    monkeypatch.setattr(
        displacement, "_decided", lambda bounded, states: np.arange(len(states)) + int(states[0, 0] * 1e6)
    )
    result = CertifiedRadius("int8").evaluate(tiny_context())
    assert any("a bound is wrong" in text for text in result.notes)


def test_readouts_that_bend_have_lower_bounds_and_local_ones() -> None:
    result = CertifiedRadius(precision="none", local=1).evaluate(tiny_context(deep(1)))
    assert result["certified_radius"].kind is Kind.LOWER
    rows = table(result, "local")
    assert [row["depth"] for row in rows] == [0, 1]
    assert all(row["local"] >= row["global"] > 0 for row in rows)
    assert result["certified_radius.local"].value == rows[-1]["local"]


def test_without_a_global_bound_the_reason_is_told_and_local_radii_remain() -> None:
    model = with_head(torch.nn.LayerNorm(16), torch.nn.Linear(16, 3), blocks=1)
    result = CertifiedRadius("int8", local=1).evaluate(tiny_context(model))
    assert result["certified_radius"].value is None and "normalisation" in result["certified_radius"].note
    assert {row["method"] for row in table(result, "depth")} == {"no certified bound"}
    assert all(row["global"] is None and row["local"] > 0 for row in table(result, "local"))


def test_readouts_of_their_own_are_measured_at_their_own_depths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes: one bound per depth, and one pass for each part where not all fit into memory."""
    from stabilitykit_lipschitz import parts

    results = []
    for kept in (10**9, 1):
        context = tiny_context()
        torch.manual_seed(0)
        heads = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)) for _ in range(4)]
        monkeypatch.setattr(parts, "KEPT_BYTES", kept)
        monkeypatch.setattr(type(context.readout), "kind", "probe")
        monkeypatch.setattr(type(context.readout), "head", lambda self, t, heads=heads: heads[t])
        monkeypatch.setattr(type(context.readout), "logits", lambda self, t, state, heads=heads: heads[t](state))
        results.append(CertifiedRadius(samples=0).evaluate(context).to_json())
    assert results[0] == results[1] and len({row[4] for row in results[0]["tables"]["depth"]["rows"]}) == 4


def test_a_course_has_radii_where_its_readouts_are_no_chain_of_layers() -> None:
    """Layer by layer: sound against gradient steps, one bound for all depths of a stage, verified by a second way."""
    context = tiny_context(TinyCourse((2, 1), heads=False))
    radii = Radii(decisions_along_depth(context.trajectory))
    served = [b.depths for part in measured_radii(context, radii, 5.0, 1e-4) for b in part]
    assert sorted(served) == [(0, 1, 2), (3, 4)] and not radii.reasons
    stages = tiny_context(TinyCourse((1, 1, 1), heads=False))
    assert shared(stages, [0, 1, 2, 3, 5]) == [(0, 1), (2, 3), (5,)]
    assert [radii.linear(t) for t in range(5)] == [False] * 3 + [True] * 2
    model, changed = context.model, 0
    for rows, inputs in context.batches():
        state = model.initial_state(inputs)
        for t in range(3):
            h = state.detach().double()
            decided = torch.from_numpy(radii.decided[t, rows])
            other = torch.from_numpy(radii.runner_up[t, rows])
            g = WholeReadout(context.readout, model.module, t)
            twin = copy.deepcopy(g).double()
            at = h.clone().requires_grad_()
            values = twin(at)
            rank = torch.arange(len(h))
            apart = values[rank, decided] - values[rank, other]
            (slope,) = torch.autograd.grad(apart.sum(), at)
            length = slope.flatten(1).norm(dim=1)
            assert (length <= torch.from_numpy(radii.bound[t, rows]) * (1 + 1e-9)).all()
            step = slope / length.reshape(-1, 1, 1, 1) * torch.from_numpy(radii.radius[t, rows]).reshape(-1, 1, 1, 1)
            assert (twin(h - 0.999 * step).argmax(1) == decided).all() and (radii.radius[t, rows] > 0).all()
            changed += int((twin(h - 20 * step).argmax(1) != decided).sum())
            state = model.block(t, state)
    assert changed  # the steps lead towards another decision


def test_layer_wise_radii_are_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose last readout is no chain of layers: verified against autograd, and a bound too small is told."""
    model = with_head(torch.nn.Softmax(1), torch.nn.Linear(16, 3), blocks=1)
    context = tiny_context(model)
    measure = CertifiedRadius(precision="none")
    result = measure.evaluate(context)
    assert result["certified_radius"].kind is Kind.LOWER and "layer-wise" in result["certified_radius"].note
    for name, value in measure.verify(context, result).items():
        assert value == pytest.approx(result[name].value, rel=1e-9)
    own = LayeredMargins.of
    monkeypatch.setattr(LayeredMargins, "of", lambda self, a: 1e-3 * own(self, a))
    assert all("not proven" in text for text in measure.verify(context, measure.evaluate(context)).values())


def test_rows_of_the_last_layer_bound_every_pair() -> None:
    """With many classes: ||w_a - w_b|| times the constant before it, never above sqrt(2) Lip(g)."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Softmax(1), torch.nn.Linear(5, 40)).double()
    bounds = LayeredMargins(net, (6,))
    before = LayerReading(net[:2], (6,)).table[1, 1]
    rows = net[2].weight.detach().numpy()
    apart = np.linalg.norm(rows[7] - rows, axis=1)
    whole = LayerReading(net, (6,)).table
    expected = np.minimum(apart * before, min(np.sqrt(2) * whole[1, 1], 2 * whole[1, 2]))
    assert bounds.of(7) == pytest.approx(np.where(np.arange(40) == 7, 0.0, expected), rel=1e-9)
    assert (bounds.of(7) >= expected * (np.arange(40) != 7)).all() and (apart * before < expected * 1.0001).any()


def test_what_no_layer_rule_bounds_is_told_in_one_line() -> None:
    class Product(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :3] * x[:, 3:6]

    result = CertifiedRadius(precision="none").evaluate(tiny_context(with_head(Product(), blocks=1)))
    assert "layer by layer" in result["certified_radius"].note and "expected" not in result["certified_radius"].note


def test_bad_input_is_refused_in_words() -> None:
    with pytest.raises(UsageProblem, match="unknown 'bf17'"):
        CertifiedRadius("bf17")
    model = with_head(torch.nn.Linear(16, 1))
    model._classes = 1
    found = CertifiedRadius().evaluate(tiny_context(model))
    assert found["certified_radius"].value is None and "one output" in found["certified_radius"].note
