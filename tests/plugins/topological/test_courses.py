"""Perturbed blocks and Theorem 1 on a network whose states change their shape; what an audit costs."""

import itertools

import numpy as np
import pytest
import torch
from stabilitykit_adapters.blocks import COLUMNS, Blocks
from stabilitykit_expansivity.expansivity import Expansivity
from stabilitykit_lipschitz.property import Lipschitz
from stabilitykit_shadowing.property import Shadowing
from stabilitykit_topological.families import Perturbation, plan
from stabilitykit_topological.measure import respond, responses
from stabilitykit_topological.perturbation import BlockPerturbation
from stabilitykit_topological.theorem import Topological

from stabilitykit import CellProblem, Kind
from stabilitykit.dynamics.space import to_space
from stabilitykit.testing.cost import Products, products_of_a_forward
from stabilitykit.testing.course import TinyCourse, TinyToken
from stabilitykit.testing.fixtures import TinyDataset, tiny_context
from stabilitykit.testing.model import check_model
from stabilitykit.testing.property import check_property


def context_of(model):
    def make(dataset=None, **more):
        return tiny_context(model(), dataset, **more)

    return make


@pytest.mark.parametrize("model", [TinyCourse, TinyToken], ids=["course", "token"])
def test_the_tiny_models_keep_the_contract(model):
    assert [c for c in check_model(model(), TinyDataset().images(range(4))) if not c.ok] == []


@pytest.mark.parametrize("model", [TinyCourse, TinyToken], ids=["course", "token"])
@pytest.mark.parametrize(
    "build",
    [lambda: BlockPerturbation("gaussian+int8+reset", scales="0.05", samples=10), Blocks, Expansivity, Lipschitz],
    ids=["perturbation", "blocks", "expansivity", "lipschitz"],
)
def test_properties_keep_the_contract(build, model):
    checks = check_property(build, make_context=context_of(model))
    assert [c for c in checks if not c.ok] == []


@pytest.mark.parametrize("only", [None, 0, 1, 2, 4])
@pytest.mark.parametrize("stages", [(2, 2), (1, 0, 1)], ids=["two", "two transitions in a row"])
def test_response_agrees_with_a_plain_loop(stages, only):
    """No state is shared, every readout is run: what is known to be equal must be."""
    model = TinyCourse(stages)
    if only is not None and only >= model.num_blocks:
        return
    context = tiny_context(model, batch_size=24)
    system = Perturbation("gaussian", 0.1) if only is None else Perturbation("reset", float(only), only)
    block = system.build(model, 0)
    (found,) = responses(context, [system], np.arange(24))
    with torch.inference_mode():
        h = model.initial_state(model.preprocess(context.dataset.images(range(24))))
        p = h
        targets = [to_space(model.readout_at(0, p).numpy(), "probabilities")]
        for t in range(model.num_blocks):
            sizes, shares = [], []
            for state in (h, p):
                true = model.block(t, state)
                size = (block(t, state).double() - true.double()).flatten(1).norm(dim=1)
                sizes.append(size)
                shares.append(size / true.double().flatten(1).norm(dim=1))
            np.testing.assert_array_equal(found.change[:, t], torch.maximum(*sizes).numpy())
            np.testing.assert_array_equal(found.relative[:, t], torch.maximum(*shares).numpy())
            true, h, p = model.block(t, p), model.block(t, h), block(t, p)
            here, there = (to_space(model.readout_at(t + 1, s).numpy(), "probabilities") for s in (p, true))
            np.testing.assert_array_equal(found.jumps[:, t], np.sqrt(np.square(there - here).sum(axis=1)))
            targets.append(here)
    targets = np.stack(targets)
    apart = np.linalg.norm(context.trajectory.values[:, None] - targets[:, :, None], axis=3).max(axis=0)
    np.testing.assert_allclose(found.eps, apart.min(axis=1), rtol=1e-12)
    np.testing.assert_array_equal(found.changed, targets[-1].argmax(1) != context.trajectory.values[-1].argmax(1))


def test_systems_together_show_what_each_shows_alone():
    context = tiny_context(TinyCourse(), batch_size=5)
    systems, _ = plan(context.model, ["gaussian", "fp16", "int8", "reset"], [0.05], [])
    rows = np.arange(1, 20, 2)
    for system, found in zip(systems, responses(context, systems, rows), strict=True):
        block = system.build(context.model, context.seed)
        alone = respond(context, block, rows, only=system.block)
        for name in vars(alone):
            np.testing.assert_array_equal(getattr(found, name), getattr(alone, name), err_msg=system.label)


def test_a_system_that_cannot_be_measured_costs_the_others_nothing():
    class Broken:
        label, block = "broken", None

        def build(self, model, seed):
            return lambda t, state: model.block(t, state) * (float("nan") if t else 1.0)

    context = tiny_context(TinyCourse())
    broken, fine = responses(context, [Broken(), Perturbation("int8")], np.arange(24))
    assert isinstance(broken, CellProblem) and "leaves the finite numbers" in str(broken)
    assert fine.eps.shape == (24,)


def test_witnesses_and_tables_name_blocks():
    result = BlockPerturbation(samples=8).evaluate(tiny_context(TinyCourse()))
    names = TinyCourse().block_names
    for m in result.measurements:
        if "block" in m.witness:
            assert m.witness["at"] == names[m.witness["block"]]
    assert {row[-1] for row in result.tables["blocks"].rows} == set(names)
    resets = [row for row in result.tables["curve"].rows if row[0] == "reset"]
    assert [row[-1] for row in resets] == list(names)


# ---- Theorem 1


def theorem_of(model):
    context = tiny_context(model)
    context.results = {"shadowing": Shadowing().evaluate(context), "lipschitz": Lipschitz().evaluate(context)}
    return context.results["lipschitz"], Topological().evaluate(context), context


def test_every_readout_of_a_course_is_bounded_once_and_theorem_1_takes_the_largest():
    model = TinyCourse((1, 1))
    lipschitz, theorem, context = theorem_of(model)
    rows = [dict(zip(lipschitz.tables["readouts"].columns, row)) for row in lipschitz.tables["readouts"].rows]
    assert [row["depth"] for row in rows] == [0, 1, 2, 3]
    assert [row["at"] for row in rows] == ["before any block", *model.block_names]
    assert rows[0]["certified upper"] == rows[1]["certified upper"] != rows[2]["certified upper"]
    assert rows[2]["certified upper"] == rows[3]["certified upper"]
    largest = max(row["certified upper"] for row in rows[1:])
    assert lipschitz["lipschitz"].value == largest and lipschitz["lipschitz"].kind is Kind.UPPER
    assert "largest over depths 1 and later" in lipschitz["lipschitz"].note
    # the slope between images is never above the bound of their depth
    with torch.inference_mode():
        state = model.initial_state(model.preprocess(context.dataset.images(range(24))))
        for t, row in enumerate(rows):
            g, h = model.readout_at(t, state).double(), state.double().flatten(1)
            slopes = torch.pdist(g) / torch.pdist(h)
            assert float(slopes.max()) <= row["certified upper"]
            if t < model.num_blocks:
                state = model.block(t, state)
    lower = theorem["T_g.lower"]
    assert lower.kind is Kind.LOWER
    assert lower.value == context.results["shadowing"]["Sh_exact"].value / (0.5 * largest)
    assert "largest at depth" in lower.note
    again = Lipschitz().verify(context, lipschitz)
    assert again["lipschitz"] == pytest.approx(largest, rel=1e-6)


def test_depths_without_a_certificate_are_named_and_bound_nothing():
    lipschitz, theorem, _ = theorem_of(TinyCourse(heads=False))
    names = TinyCourse().block_names
    found = lipschitz["lipschitz"]
    assert found.kind is Kind.LOWER
    assert f"no certified bound of Lip(g) at depths 0-2 (before any block to {names[1]})" in found.note
    table = [dict(zip(lipschitz.tables["readouts"].columns, row)) for row in lipschitz.tables["readouts"].rows]
    assert [row["method"] == "no certified bound" for row in table] == [True] * 3 + [False] * 3
    assert all(row["certified upper"] is None for row in table[:3])
    part = lipschitz["lipschitz.certified"]
    assert part.value == table[3]["certified upper"] and part.kind is Kind.UPPER and "no bound of all" in part.note
    assert theorem["T_g.lower"].value is None
    assert "no certified bound of Lip(g) at depths 0-2" in theorem["T_g.lower"].note


def test_only_depth_0_without_a_certificate_leaves_the_theorem_its_bound():
    class Late(TinyCourse):
        def head_at(self, t):
            return None if t == 0 else super().head_at(t)

    lipschitz, theorem, _ = theorem_of(Late())
    assert lipschitz["lipschitz"].kind is Kind.UPPER and theorem["T_g.lower"].kind is Kind.LOWER
    assert any("at depth 0 (before any block)" in note for note in lipschitz.notes)


# ---- blocks


def test_blocks_of_a_course_by_brute_force():
    model = TinyCourse()
    context = tiny_context(model, batch_size=24)
    result = Blocks(sample=24).evaluate(context)
    rows = [dict(zip(COLUMNS, row)) for row in result.tables["blocks"].rows]
    assert [row["name"] for row in rows] == ["before any block", *model.block_names]
    assert [row["kind"] for row in rows] == ["", *model.steps]
    with torch.inference_mode():
        inputs = model.preprocess(context.dataset.images(range(24)))
        final = model.logits(inputs).argmax(dim=1)
        for t, step in enumerate(model.steps):
            row = rows[t + 1]
            if step == "transition":
                assert row["left_out_changes"] is row["left_out_moves"] is row["relative_change"] is None
                continue
            state = model.initial_state(inputs)
            for s in range(model.num_blocks):
                state = state if s == t else model.block(s, state)
            assert row["left_out_changes"] == float((model.readout(state).argmax(dim=1) != final).double().mean())
    weightiest = result["weightiest_block.left_out_changes"]
    assert weightiest.value == max(r["left_out_changes"] for r in rows if r["left_out_changes"] is not None)
    assert weightiest.witness["at"] == model.block_names[weightiest.witness["block"] - 1]
    assert "4 of 5" in weightiest.note


def test_blocks_of_a_network_that_changes_shape_at_every_step():
    result = Blocks().evaluate(tiny_context(TinyCourse((0, 0))))
    assert result["weightiest_block.left_out_changes"].value is None


def test_no_image_is_decided_at_a_blind_depth():
    context = tiny_context(TinyToken())
    blocks, expansivity = Blocks().evaluate(context), Expansivity().evaluate(context)
    assert [row[-1] for row in blocks.tables["blocks"].rows] == [True, False, False, False]
    assert min(row[2] for row in blocks.tables["prediction_depth"].rows) >= 1
    assert expansivity["expansive_constant.min"].value > 0
    assert expansivity["expansive_constant.min"].witness["left_out"] == [0]


# ---- cost

AUDIT = {
    "expansivity": Expansivity,
    "shadowing": Shadowing,
    "lipschitz": Lipschitz,
    "perturbation": BlockPerturbation,
    "blocks": Blocks,
}


def test_a_default_audit_of_100_images_runs_few_forwards():
    """15 blocks in three stages, as ResNet-32; what the core adds is measured by benchmarks/audit_cost.py."""
    model = TinyCourse((5, 4, 4))
    context = tiny_context(model, TinyDataset(count=100), batch_size=100)
    one = products_of_a_forward(model, model.preprocess(context.dataset.images(range(10))))
    cost = {}
    with Products() as products:
        for name, build in AUDIT.items():
            before = products.count
            build().evaluate(context)
            cost[name] = (products.count - before) / one / 100
    assert cost["shadowing"] == 0 and cost["expansivity"] < 3
    assert cost["perturbation"] < 14 and cost["blocks"] < 4
    assert sum(cost.values()) < 20


def test_a_reset_costs_what_follows_its_block():
    model = TinyCourse((5,))
    context = tiny_context(model, batch_size=24)
    assert context.trajectory.depth == 5  # extracted here
    block = products_of_block(model)
    costs = []
    for t in range(5):
        with Products() as products:
            responses(context, [Perturbation("reset", float(t), t)], np.arange(24))
        costs.append(products.count / 24 / block)
    assert [round(a - b) for a, b in itertools.pairwise(costs)] == [1] * 4
    assert costs[-1] < 8  # stem, five true blocks, the last one reset, readouts


def products_of_block(model):
    with Products() as products, torch.inference_mode():
        model.block(0, torch.zeros(1, *model.shape_at(0)))
    return products.count
