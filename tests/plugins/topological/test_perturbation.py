import numpy as np
import pytest
import torch
from stabilitykit_topological.families import Perturbation, plan
from stabilitykit_topological.measure import respond
from stabilitykit_topological.perturbation import CURVE, BlockPerturbation

from stabilitykit import CellProblem, UsageProblem
from stabilitykit.dynamics.space import to_space
from stabilitykit.testing.fixtures import TinyDataset, TinyModel, tiny_context
from stabilitykit.testing.property import check_property


def rows_of(result, family):
    return [dict(zip(CURVE, row)) for row in result.tables["curve"].rows if row[0] == family]


def test_contract():
    checks = check_property(lambda: BlockPerturbation("gaussian+int8+reset", scales="0.05", samples=10))
    assert [c for c in checks if not c.ok] == []


def test_all_families_are_measured():
    result = BlockPerturbation(families="all", samples=0).evaluate(tiny_context())
    assert {row[0] for row in result.tables["curve"].rows} == {"gaussian", "bf16", "fp16", "int8", "pruning", "reset"}
    assert len(rows_of(result, "reset")) == 3 and len(rows_of(result, "gaussian")) == 2
    direct = [
        row["delta/eps"]
        for family in ("gaussian", "bf16", "fp16", "int8", "pruning", "reset")
        for row in rows_of(result, family)
    ]
    assert result["T_g.direct"].value == min(direct)
    sizes = [row["delta"] for row in rows_of(result, "gaussian")]
    assert sizes == sorted(sizes) and sizes[0] > 0
    assert all(row["eps"] <= row["eps by own orbit"] * (1 + 1e-12) for row in rows_of(result, "gaussian"))


def test_response_agrees_with_a_plain_loop():
    context = tiny_context(batch_size=24)
    model = context.model
    block = Perturbation("gaussian", 0.1).build(model, 0)
    found = respond(context, block, np.arange(24))
    values = context.trajectory.values
    with torch.inference_mode():
        h = model.initial_state(model.preprocess(context.dataset.images(range(24))))
        p = h
        targets = [to_space(model.readout(p).numpy(), "probabilities")]
        for t in range(model.num_blocks):
            at_true = (block(t, h).double() - model.block(t, h).double()).flatten(1).norm(dim=1)
            at_perturbed = (block(t, p).double() - model.block(t, p).double()).flatten(1).norm(dim=1)
            np.testing.assert_allclose(found.change[:, t], torch.maximum(at_true, at_perturbed).numpy(), rtol=1e-9)
            h, p = model.block(t, h), block(t, p)
            targets.append(to_space(model.readout(p).numpy(), "probabilities"))
    targets = np.stack(targets)
    apart = np.linalg.norm(values[:, None] - targets[:, :, None], axis=3).max(axis=0)
    np.testing.assert_allclose(found.eps, apart.min(axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.own, np.diag(apart), rtol=1e-12)
    np.testing.assert_array_equal(found.changed, targets[-1].argmax(1) != values[-1].argmax(1))
    # Lip(g) bounds the jumps by the change of state; softmax halves it.
    lip = float(torch.linalg.matrix_norm(model.head[1].weight.double(), 2)) / 2
    assert (found.jumps.max() <= lip * found.delta * (1 + 1e-9)) and found.jumps.max() > 0


def test_reset_changes_one_block_only():
    context = tiny_context()
    for t in range(3):
        found = respond(context, Perturbation("reset", float(t), t).build(context.model, 0), np.arange(24))
        changed = found.change.max(axis=0) > 0
        np.testing.assert_array_equal(changed, np.arange(3) == t)


def test_pruning_everything_gives_the_bias_alone():
    model = TinyModel()
    block = Perturbation("pruning", 1.0).build(model, 0)
    h = model.initial_state(model.preprocess(TinyDataset().images(range(2))))
    step = block(0, h) - h
    torch.testing.assert_close(step[0], step[1])
    half = Perturbation("pruning", 0.5).build(model, 0)
    assert not torch.equal(half(0, h), model.block(0, h))


def test_perturbing_leaves_the_model_and_global_randomness_alone():
    model = TinyModel()
    before = model.fingerprint()
    state = torch.random.get_rng_state()
    for perturbation in plan(model, ["gaussian", "bf16", "fp16", "int8", "pruning", "reset"], [0.1], [0.5])[0]:
        perturbation.build(model, 0)
    assert model.fingerprint() == before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_noise_follows_the_seed():
    model = TinyModel()
    h = model.initial_state(model.preprocess(TinyDataset().images(range(2))))
    one, same, other = (Perturbation("gaussian", 0.1).build(model, seed)(0, h) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


class Unnamed(TinyModel):
    """Does not say which modules its blocks have."""

    def block_modules(self, t):
        return ()


def test_models_that_do_not_name_their_blocks():
    result = BlockPerturbation(families="gaussian+reset", samples=8).evaluate(tiny_context(Unnamed()))
    assert rows_of(result, "gaussian") and not rows_of(result, "reset")
    assert any("block_modules" in note for note in result.notes)
    with pytest.raises(CellProblem, match="block_modules"):
        BlockPerturbation(families="reset").evaluate(tiny_context(Unnamed()))


def test_a_copy_that_still_runs_the_original_is_found_out():
    class Bound(TinyModel):
        """Its blocks are bound to the first instance: a deep copy changes nothing."""

        def __init__(self):
            super().__init__()
            first = self._module["blocks"]
            self.run = lambda t, state: state + first[t](state.flatten(1)).reshape(state.shape)

        def block(self, t, state):
            return self.run(t, state)

    with pytest.raises(CellProblem, match="very same blocks"):
        BlockPerturbation(families="gaussian").evaluate(tiny_context(Bound()))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"families": "gauss"}, "unknown family"),
        ({"scales": "a"}, "numbers"),
        ({"scales": "0"}, r"\(0, inf\]"),
        ({"fractions": "1.5"}, r"\(0, 1\]"),
    ],
)
def test_bad_options_are_named(options, words):
    with pytest.raises(UsageProblem, match=words):
        BlockPerturbation(**options).evaluate(tiny_context())
