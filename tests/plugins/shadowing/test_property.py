import dataclasses

import numpy as np
import pytest
import torch
from stabilitykit_shadowing import exact, exact_result, stabilitykit_properties
from stabilitykit_shadowing.property import Shadowing
from stabilitykit_shadowing.refine import refine_batch
from stabilitykit_shadowing.states import NoiseFamily, PrecisionFamily, state_orbits

import stabilitykit.dynamics.trajectory
from stabilitykit import CellProblem, Kind
from stabilitykit.dynamics.readout import HeadReadout
from stabilitykit.dynamics.space import to_space
from stabilitykit.dynamics.trajectory import batch_logits
from stabilitykit.testing.fixtures import TinyDataset, TinyModel, tiny_context
from stabilitykit.testing.property import check_property

FAMILIES = [
    {},
    {"same_class": True},
    {"unvisited": True},
    {"start_tracer": False},
    {"exact": False},
    {"chains": True},
    {"family": "noise"},
    {"family": "precision", "format": "bf16"},
    {"family": "precision", "format": "int8"},
    {"family": "precision", "format": "fp16", "tracers": "refined", "refine_orbits": 0},
    {"tracers": "refined", "refine_orbits": 5, "refine_steps": 4},
]


@pytest.mark.parametrize("options", FAMILIES, ids=str)
def test_property_keeps_the_contract(options):
    checks = check_property(lambda: Shadowing(**options), options=options)
    assert [c for c in checks if not c.ok] == []


def test_schema_builds_the_property():
    (component,) = stabilitykit_properties()
    assert isinstance(component.load()(**component.option_values({})), Shadowing)


def test_headline_witnesses_attain_their_values():
    context = tiny_context()
    result = Shadowing().evaluate(context)
    values = context.trajectory.values
    for name in ("Sh_profile", "Sh_paper", "Sh_best"):
        measurement = result[name]
        assert measurement.kind == Kind.ESTIMATE
        witness = measurement.witness
        rows = context.rows_of(witness["eps_orbit"]["indices"])
        tracer = context.rows_of([witness["eps_orbit"]["tracer"]])[0]
        apart = np.linalg.norm(values[np.arange(len(rows)), rows] - values[:, tracer], axis=1)
        assert apart.max() == pytest.approx(witness["eps"], rel=1e-12)
        np.testing.assert_allclose(apart, witness["distances"], rtol=1e-12)
        if name != "Sh_profile" or witness["delta_orbit"]:
            path = context.rows_of(witness["delta_orbit"]["indices"])
            jumps = [np.linalg.norm(values[t + 1, path[t]] - values[t + 1, path[t + 1]]) for t in range(len(path) - 1)]
            assert max(jumps) == pytest.approx(witness["delta"], rel=1e-12)
            assert measurement.value == pytest.approx(witness["delta"] / witness["eps"], rel=1e-12)
    assert result["Sh_all.lower"].value <= result["Sh_all.upper"].value <= result["Sh_profile"].value * (1 + 1e-12)
    jump = result["smallest_jump"]
    i, j = context.rows_of(jump.witness["indices"])
    apart = np.linalg.norm(values[:, :, None] - values[:, None], axis=3)
    apart[:, np.arange(len(apart[0])), np.arange(len(apart[0]))] = np.inf
    assert apart[jump.witness["block"], i, j] == pytest.approx(apart[1:].min(), rel=1e-12)
    assert jump.value == pytest.approx(apart[1:].min(), rel=2e-12) and jump.value <= apart[1:].min()
    assert (result["Sh_all.lower"].kind, result["Sh_all.upper"].kind) == (Kind.LOWER, Kind.UPPER)
    assert len(result.tables["orbits"].rows) > 0 and len(result.tables["profile"].rows) > 0


def test_exact_value_lies_in_its_bracket_and_its_orbit_escapes():
    context = tiny_context()
    result = Shadowing().evaluate(context)
    exact = result["Sh_exact"]
    assert exact.kind == Kind.EXACT and exact.interval is None and exact.n == len(context.indices)
    assert result["Sh_all.lower"].value <= exact.value <= result["Sh_all.upper"].value * (1 + 1e-12)
    orbit, values = exact.witness["delta_orbit"], context.trajectory.values
    path = context.rows_of(orbit["indices"])
    jumps = [np.linalg.norm(values[t + 1, path[t]] - values[t + 1, path[t + 1]]) for t in range(len(path) - 1)]
    assert max(jumps) / exact.witness["eps"] == pytest.approx(exact.value, rel=1e-12)
    errors = np.linalg.norm(values - values[np.arange(len(path)), path][:, None], axis=2).max(axis=0)
    assert errors.min() > exact.witness["eps"] and errors.min() == pytest.approx(orbit["eps"], rel=1e-12)
    assert f"{result['Sh_profile'].value / exact.value:.3g} times" in exact.note
    table = result.tables["exact"]
    assert len(table.rows) > 2
    for eps, low, high, proven, family, _ in table.rows:
        assert proven == "yes" and low == high <= family * (1 + 1e-12) and eps > 0
    assert [row[1] for row in table.rows] == sorted(row[1] for row in table.rows)


def test_an_altered_exact_witness_is_found():
    context = tiny_context()
    result = Shadowing().evaluate(context)
    exact = result["Sh_exact"]
    assert Shadowing().verify(context, result)["Sh_exact"] == pytest.approx(exact.value, rel=1e-12)

    def verified(**changes):
        witness = dict(exact.witness) | changes
        others = [m for m in result.measurements if m.name != "Sh_exact"]
        altered = dataclasses.replace(exact, witness=witness)
        return Shadowing().verify(context, dataclasses.replace(result, measurements=[*others, altered]))["Sh_exact"]

    assert "traced within" in verified(eps=exact.witness["delta_orbit"]["eps"] * 1.001)
    assert verified(eps=exact.witness["eps"] * 0.99) != pytest.approx(exact.value, rel=1e-9)
    orbit = dict(exact.witness["delta_orbit"])
    other = next(int(i) for i in context.indices if i not in orbit["indices"])
    changed = verified(delta_orbit=orbit | {"indices": [*orbit["indices"][:-1], other]})
    assert changed != pytest.approx(exact.value, rel=1e-9)


def test_without_proof_the_lower_end_is_given_with_its_interval(monkeypatch):
    proven = Shadowing().evaluate(tiny_context())["Sh_exact"].value
    for name, value, words in (
        ("NODES", 0, "not decided within 0 nodes"),
        ("SET_BYTES", 1, "images take"),
        ("PAIR_WORK", 1, "distances take"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(exact_result if name == "NODES" else exact, name, value)
            context = tiny_context()
            result = Shadowing().evaluate(context)
            found = result["Sh_exact"]
            if name == "NODES" and found.kind == Kind.EXACT:
                continue  # needed no node
            assert found.kind == Kind.LOWER and words in found.note
            assert found.value == found.interval[0] <= proven <= found.interval[1]
            prop = Shadowing()
            assert prop.verify(context, result)["Sh_exact"] is None
            assert prop.verify_sample(context, result)["Sh_exact"] == found.value


def test_float32_copies_make_no_exact_claims(monkeypatch):
    plain = Shadowing().evaluate(tiny_context())
    monkeypatch.setattr(stabilitykit.dynamics.trajectory, "FLOAT64_LIMIT", 0)
    rounded = Shadowing().evaluate(tiny_context())
    assert {m.kind for m in rounded.measurements} == {Kind.ESTIMATE}
    for name in ("eps.min", "delta.max", "smallest_jump"):
        assert plain[name].kind is not Kind.ESTIMATE and "float32" in rounded[name].note
        assert rounded[name].value == pytest.approx(plain[name].value, abs=2.0**-23)
    assert {m.kind for m in Shadowing().evaluate(tiny_context(space="logits")).measurements} > {Kind.EXACT, Kind.LOWER}


def test_low_precision_orbits_are_pseudo_orbits_of_the_true_network():
    """Readouts and jumps against a plain loop over single images."""
    context = tiny_context(batch_size=24)
    family = PrecisionFamily(context, "bf16")
    orbits = state_orbits(family)
    model = context.model
    with torch.inference_mode():
        inputs = model.preprocess(context.dataset.images(range(24)))
        state = model.initial_state(inputs)
        for t in range(model.num_blocks):
            true = model.block(t, state)
            state = family.blocks.block(t, state)
            one, other = (to_space(model.readout(s).numpy(), "probabilities") for s in (true, state))
            np.testing.assert_allclose(orbits.jumps[:, t], np.linalg.norm(one - other, axis=1), rtol=1e-12)
            np.testing.assert_array_equal(orbits.readouts[:, t + 1], other)
    assert 0 < orbits.delta.max() < 0.05
    np.testing.assert_array_equal(orbits.readouts[:, 0], context.trajectory.values[0])


def test_noise_of_an_image_depends_on_the_image_alone():
    """A tenth of the images in other batches has the same kicks (float64 weights: batches move nothing)."""
    model = TinyModel(double=True)
    whole = state_orbits(NoiseFamily(tiny_context(model, batch_size=24), 0.05))
    parts = state_orbits(NoiseFamily(tiny_context(model, batch_size=5), 0.05))
    np.testing.assert_allclose(parts.readouts, whole.readouts, atol=1e-6)
    np.testing.assert_allclose(parts.jumps, whole.jumps, atol=1e-6)
    some = state_orbits(NoiseFamily(tiny_context(model, batch_size=5), 0.05), np.array([3, 17]))
    np.testing.assert_array_equal(some.jumps, parts.jumps[[3, 17]])
    other = state_orbits(NoiseFamily(tiny_context(model, batch_size=24, seed=1), 0.05))
    assert np.abs(other.jumps - whole.jumps).max() > 1e-4


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("tracers", ["data", "refined"])
def test_no_noise_gives_true_orbits_to_the_last_bit(double, tracers):
    """In float64 too: readouts of perturbed orbits keep the precision of the trajectories they are compared with."""
    context = tiny_context(TinyModel(double=double))
    assert state_orbits(NoiseFamily(context, 0.0)).delta.max() == 0
    result = Shadowing(family="noise", noise_scale=0.0, tracers=tracers).evaluate(context)
    assert result["eps.max"].value == 0
    assert result["Sh_profile"].value is None and "exactly" in result["Sh_profile"].note


def test_no_noise_gives_true_orbits_under_autocast():
    """The perturbed orbit runs in the precision of extraction, so it differs by its perturbation alone."""
    context = tiny_context()
    context.extraction = dataclasses.replace(context.extraction, dtype="bfloat16")
    logits = np.concatenate(
        [batch_logits(context.model, context.readout, inputs, torch.bfloat16) for _, inputs in context.batches()],
        axis=1,
    )
    values = to_space(logits, "probabilities")
    orbits = state_orbits(NoiseFamily(context, 0.0))
    np.testing.assert_array_equal(orbits.readouts, np.moveaxis(values, 0, 1))
    assert np.abs(values - context.trajectory.values).max() > 1e-4


def test_refined_tracers_never_raise_eps_and_lower_some():
    context = tiny_context()
    data = Shadowing(family="noise", noise_scale=0.05, bracket=False).evaluate(context)
    refined = Shadowing(family="noise", noise_scale=0.05, tracers="refined", refine_orbits=0, bracket=False).evaluate(
        context
    )
    assert refined["eps.max"].value <= data["eps.max"].value
    assert refined["eps.min"].value < data["eps.min"].value
    assert refined["eps.min"].kind == Kind.UPPER and data["eps.min"].kind == Kind.EXACT
    assert refined["delta.min"].value == data["delta.min"].value


def test_refined_eps_is_the_tracing_error_of_a_true_orbit():
    model, dataset = TinyModel(), TinyDataset()
    inputs = model.preprocess(dataset.images(range(4)))
    targets = state_orbits(NoiseFamily(tiny_context(), 0.1), np.arange(4)).readouts
    start = np.full(4, np.inf)
    found = refine_batch(model, HeadReadout(model), "probabilities", inputs, targets, np.full(4, 2.0), steps=40)
    np.testing.assert_array_equal(found.distances.max(axis=1), found.eps)
    assert (found.eps < np.minimum(start, 2.0)).all() and (found.moved > 0).all()
    # A target that is a true orbit already cannot be improved, and stays as it was.
    true = np.moveaxis(tiny_context(batch_size=24).trajectory.values[:, :4], 0, 1)
    still = refine_batch(model, HeadReadout(model), "probabilities", inputs, true, np.zeros(4), steps=3)
    np.testing.assert_array_equal(still.eps, 0)
    np.testing.assert_array_equal(still.moved, 0)


def test_model_is_left_alone():
    context = tiny_context()
    before = context.model.fingerprint()
    Shadowing(family="precision", format="int8", tracers="refined", refine_orbits=3, refine_steps=2).evaluate(context)
    assert context.model.fingerprint() == before
    assert all(p.grad is None and not p.requires_grad for p in context.model.module.parameters())


def test_same_class_with_one_image_per_class_says_why():
    result = Shadowing(same_class=True).evaluate(tiny_context(dataset=TinyDataset(count=3, classes=3)))
    assert result["Sh_profile"].value is None and "another image of its class" in result["Sh_profile"].note
    result = Shadowing(unvisited=True).evaluate(tiny_context(dataset=TinyDataset(count=3)))
    assert result["Sh_paper"].value is None and "has not visited" in result["Sh_paper"].note


def test_too_little_to_shadow_is_one_clear_line():
    with pytest.raises(CellProblem, match="at least two images"):
        Shadowing().evaluate(tiny_context(dataset=TinyDataset(count=1, classes=1)))


def test_logits_space_and_tuple_states():
    class TwoParts(TinyModel):
        """The tiny model with its state cut in two."""

        def initial_state(self, inputs):
            return self._split(super().initial_state(inputs))

        def block(self, t, state):
            return self._split(super().block(t, self._join(state)))

        def readout(self, state):
            return super().readout(self._join(state))

        @staticmethod
        def _split(state):
            return state[:, :1].clone(), state[:, 1:].clone()

        @staticmethod
        def _join(state):
            return torch.cat(state, dim=1)

    for options in FAMILIES[4:]:
        one = Shadowing(**options).evaluate(tiny_context(space="logits"))
        two = Shadowing(**options).evaluate(tiny_context(TwoParts(), space="logits"))
        assert two["Sh_paper"].value == pytest.approx(one["Sh_paper"].value, rel=1e-3)
