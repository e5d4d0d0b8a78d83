"""The property: contract, verification, readouts without a rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from stabilitykit_lipschitz import parts
from stabilitykit_lipschitz import property as prop
from stabilitykit_lipschitz.property import Lipschitz
from stabilitykit_lipschitz.realised import largest_jacobian

from stabilitykit.base.results import Kind
from stabilitykit.testing.course import TinyCourse
from stabilitykit.testing.fixtures import TinyModel, tiny_context
from stabilitykit.testing.property import check_property


def test_contract() -> None:
    failed = [check for check in check_property(Lipschitz) if not check.ok]
    assert not failed


def test_interval_and_verification() -> None:
    context = tiny_context()
    result = Lipschitz().evaluate(context)
    by_name = {m.name: m for m in result.measurements}
    upper, realised = by_name["lipschitz"], by_name["lipschitz.realised"]
    assert upper.kind == Kind.UPPER and upper.value is not None and realised.value is not None
    assert realised.value <= upper.value
    assert by_name["lipschitz.probabilities"].value == pytest.approx(upper.value / 2)
    again = Lipschitz().verify(context, result)
    assert again["lipschitz"] == pytest.approx(upper.value, rel=1e-9)
    assert again["lipschitz.realised"] == pytest.approx(realised.value, rel=1e-9)


def test_realised_by_autograd_stays_below_the_certificate() -> None:
    context = tiny_context()
    upper = Lipschitz().evaluate(context).measurements[0].value
    found = largest_jacobian(context, 8)
    assert 0 < found.logits.norm <= upper * (1 + 1e-5)
    assert found.probabilities.norm <= upper / 2 * (1 + 1e-5)


def test_a_constant_readout_has_norm_zero() -> None:
    context = tiny_context()
    with torch.no_grad():
        context.model.head[1].weight.zero_()
    found = largest_jacobian(context, 4)
    assert found.logits.norm == found.probabilities.norm == 0.0


def test_readout_without_a_module_gets_a_lower_bound_and_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    context = tiny_context()
    monkeypatch.setattr(type(context.readout), "head", lambda self, t: None)
    result = Lipschitz().evaluate(context)
    assert {m.kind for m in result.measurements} == {Kind.LOWER}
    assert all("no certified upper bound" in m.note for m in result.measurements)
    assert all(np.isfinite(m.value) for m in result.measurements)


def test_probabilities_have_their_own_realised_witness() -> None:
    """Checked against the softmax's Jacobian written out: diag(p) - p p' times W."""
    context = tiny_context()
    measured = Lipschitz().evaluate(context)["lipschitz.probabilities"]
    weight, bias = (t.double().numpy() for t in (context.model.head[1].weight, context.model.head[1].bias))
    logits = weight @ np.array(measured.witness["realised"]["input"]) + bias
    p = np.exp(logits - logits.max())
    p /= p.sum()
    assert measured.interval[0] == pytest.approx(np.linalg.norm((np.diag(p) - np.outer(p, p)) @ weight, 2), rel=1e-9)
    # Between two classes of equal probability the norm is |w_i - w_j| / (2 sqrt 2): the search finds that.
    gap = max(np.linalg.norm(weight[i] - weight[j]) for i in range(3) for j in range(i))
    assert measured.interval[0] >= 0.999 * gap / 8**0.5 and measured.interval[0] <= measured.value


def test_on_data_no_state_is_steeper_than_the_realised_norm() -> None:
    """A LayerNorm head is bounded on the data, so its lower side is the largest norm of all states, not of some."""
    model = TinyModel()
    generator = torch.Generator().manual_seed(1)
    head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LayerNorm(16), model.head[1]).requires_grad_(False)
    with torch.no_grad():
        head[1].weight.copy_(1 + torch.rand(16, generator=generator))
    model.module["head"] = head
    context = tiny_context(model, batch_size=24)
    low, high = Lipschitz().evaluate(context)["lipschitz"].interval
    largest = 0.0
    for _, inputs in context.batches():
        state = model.initial_state(inputs)
        for t in range(model.num_blocks + 1):
            jacobian = torch.func.vmap(torch.func.jacrev(lambda v: head(v[None])[0]))(state).flatten(2)
            largest = max(largest, float(torch.linalg.matrix_norm(jacobian, 2).max()))
            state = model.block(t, state) if t < model.num_blocks else state
    assert low == pytest.approx(largest, rel=1e-5) and largest <= high * (1 + 1e-6)


def test_readouts_of_their_own_have_a_mean_and_a_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    context = tiny_context()
    size = int(np.prod(context.model.shape_at(0)))
    torch.manual_seed(0)
    heads = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(size, 3).double()) for _ in range(4)]
    monkeypatch.setattr(type(context.readout), "head", lambda self, t: heads[t])
    monkeypatch.setattr(type(context.readout), "kind", "probe")
    norms = [np.linalg.norm(head[1].weight.detach().numpy(), 2) for head in heads]
    result = Lipschitz().evaluate(context)
    assert result["lipschitz"].value == pytest.approx(max(norms[1:]), rel=1e-9)
    mean, spread = result["lipschitz.mean"], result["lipschitz.spread"]
    assert mean.value == pytest.approx(np.mean(norms[1:]), rel=1e-9) and mean.kind is Kind.UPPER
    assert spread.value == pytest.approx(np.std(norms[1:]), rel=1e-6) and spread.kind is Kind.ESTIMATE
    assert mean.witness["depths"] == [1, 2, 3] and mean.witness["upper"] == pytest.approx(norms[1:], rel=1e-9)
    assert mean.interval[0] <= mean.value == mean.interval[1]
    again = Lipschitz().verify(context, result)
    assert again["lipschitz.mean"] == mean.value and again["lipschitz.spread"] == spread.value


def test_readouts_bounded_some_at_a_time_have_the_same_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one at a time and with room for all: one of them has no bound, the others the very same."""
    context = tiny_context()
    size = int(np.prod(context.model.shape_at(0)))
    torch.manual_seed(0)
    heads: list[torch.nn.Module] = [
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(size, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
        for _ in range(4)
    ]
    heads[2] = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(size, 3), torch.nn.Softmax(1))
    monkeypatch.setattr(type(context.readout), "head", lambda self, t: heads[t])
    monkeypatch.setattr(type(context.readout), "kind", "probe")
    kept: list[int] = []
    seeds = prop.Seeds

    def counted(context, networks):
        kept.append(len(networks))
        return seeds(context, networks)

    monkeypatch.setattr(prop, "Seeds", counted)
    at_once = Lipschitz(search_seconds=0.1).evaluate(context)
    monkeypatch.setattr(parts, "KEPT_BYTES", 1)
    one_by_one = Lipschitz(search_seconds=0.1).evaluate(context)
    assert kept == [3, 1, 1, 1]
    assert one_by_one.to_json() == at_once.to_json()


def test_one_readout_for_all_depths_has_neither_mean_nor_spread() -> None:
    assert {m.name for m in Lipschitz().evaluate(tiny_context()).measurements} == {
        "lipschitz",
        "lipschitz.probabilities",
        "lipschitz.realised",
    }


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_layer_wise_bounds_serve_readouts_that_are_no_chain(norm: str) -> None:
    """A course's heads: no certificate by LipSDP, but norms layer by layer, verified with the slope that was found."""
    context = tiny_context(TinyCourse((1, 1), heads=False))
    measure = Lipschitz(method="layerwise", norm=norm)
    result = measure.evaluate(context)
    rows = {row[0]: row for row in result.tables["readouts"].rows}
    assert sorted(rows) == [0, 1, 2, 3] and all(row[3] == "layerwise" and row[1] <= row[2] for row in rows.values())
    found = result["lipschitz"]
    assert found.kind is Kind.UPPER and found.value == max(rows[t][2] for t in (1, 2, 3))
    assert result["lipschitz.probabilities"].value == 0.5 * found.value
    again = measure.verify(context, result)
    assert set(again) == {m.name for m in result.measurements}
    assert all(again[m.name] == pytest.approx(m.value, rel=1e-9) for m in result.measurements)
    realised = result["lipschitz.realised"]
    realised.witness["pair"][0] = realised.witness["pair"][1][::-1]
    assert measure.verify(context, result)["lipschitz.realised"] != pytest.approx(realised.value, rel=1e-3)


def test_layer_wise_bounds_say_where_there_are_none() -> None:
    model = TinyModel(1)
    model.module["head"] = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.LayerNorm(16), torch.nn.Linear(16, 3)
    ).eval()
    result = Lipschitz(method="layerwise").evaluate(tiny_context(model))
    assert result["lipschitz"].value is None and "no bound at depths [0, 1]" in result["lipschitz"].note
