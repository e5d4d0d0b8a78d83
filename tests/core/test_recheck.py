"""The recheck inside a run: from model and data alone, in few batches, and it says what does not come out again."""

from dataclasses import replace

import numpy as np
import pytest

import stabilitykit
from stabilitykit import Kind, Measurement, PropertyResult
from stabilitykit.dynamics.extraction import Extraction
from stabilitykit.evaluation import acceptance
from stabilitykit.evaluation.property import Property
from stabilitykit.evaluation.rerun import SAME_MACHINE, Rerun, own_batches, packed_batches, witness_images
from stabilitykit.testing.fixtures import TinyDataset, TinyModel


class Norms(Property):
    """The norm of every image's last readout, one measurement each, times ``factor`` when computed again."""

    name = "norms"
    factor = 1.0

    def evaluate(self, context):
        values = context.trajectory.values[-1]
        return PropertyResult(
            [
                Measurement(
                    f"norm {i}", float(np.linalg.norm(v)), Kind.EXACT, len(values), witness={"indices": [int(i)]}
                )
                for i, v in zip(context.indices, values, strict=True)
            ]
        )

    def verify(self, context, result):
        return {
            m.name: float(np.linalg.norm(context.readouts(context.rows_of(m.witness["indices"]))[-1, 0])) * self.factor
            for m in result.measurements
        }


class Counting(TinyModel):
    """Counts the batches it is run on."""

    batches = 0

    def initial_state(self, inputs):
        type(self).batches += 1
        return super().initial_state(inputs)


def measured(prop, batch_size=4, **options):
    Counting.batches = 0
    run = stabilitykit.evaluate(
        Counting(seed=0), TinyDataset(seed=0), prop, batch_size=batch_size, device="cpu", **options
    )
    return run[prop.name].measurements


def test_residuals_are_zero_in_packed_batches(monkeypatch):
    monkeypatch.setattr(acceptance, "FEWEST_IMAGES", 4)
    found = [m.recheck for m in measured(Norms(), cache=False)]
    assert found == [0.0] * 4 + [None] * 20


def test_a_recheck_runs_a_bounded_number_of_images(monkeypatch):
    monkeypatch.setattr(acceptance, "FEWEST_IMAGES", 2)
    found = measured(Norms(), batch_size=1, cache=False)
    assert [m.recheck is not None for m in found] == [True] * 2 + [False] * 22
    everything = Counting.batches
    measured(NotRechecked(), batch_size=1, cache=False)
    assert everything == Counting.batches + 2
    assert acceptance.allowed_images(10_000) <= 1000


def test_a_part_of_a_batch_moves_numbers_by_rounding_alone(capsys):
    found = measured(Norms(), batch_size=100, cache=False, limit=20)
    assert all(m.recheck <= 1e-5 for m in found)
    assert "when it is computed again" not in capsys.readouterr().err


class NotRechecked(Norms):
    """Offers no recomputation."""

    def verify(self, context, result):
        return {}


class WithoutTrajectory(Norms):
    """Computes again where the extracted or cached trajectory cannot be had."""

    def verify(self, context, result):
        return super().verify(replace(context, make_trajectory=None), result)


def test_the_recheck_needs_no_trajectory():
    assert all(m.recheck < 1e-6 for m in measured(WithoutTrajectory(), batch_size=100, cache=False))


@pytest.mark.parametrize(("factor", "warned"), [(1 + 1e-2, True), (1 + 1e-4, False)])
def test_a_number_that_does_not_come_out_again_is_named(factor, warned, capsys):
    prop = Norms()
    prop.factor = factor
    found = measured(prop, batch_size=24, cache=False)
    assert all(m.recheck == pytest.approx(abs(factor - 1) * m.value, rel=1e-2) for m in found)
    assert ("when it is computed again" in capsys.readouterr().err) is warned


@pytest.mark.parametrize("total", [1, 7, 40, 43])
def test_packed_batches_hold_the_rows_in_batches_of_the_right_size(total):
    rows = np.flatnonzero(np.random.default_rng(total).random(total) < 0.5)
    packed, own = packed_batches(rows, total, 8), own_batches(rows, total, 8)
    for batches in (packed, own):
        assert np.isin(rows, np.concatenate(batches) if batches else []).all()
        assert all(b.min() >= 0 and b.max() < total and len(set(b.tolist())) <= len(b) for b in batches)
    assert {len(b) for b in packed} <= {min(8, total)}
    assert len(packed) == -(-len(rows) // min(8, total))
    for batch in own:
        assert (np.diff(batch) == 1).all() and batch[0] % 8 == 0


def test_images_of_a_witness_are_found_at_any_depth():
    witness = {"indices": [3, 4], "eps_orbit": {"indices": [5], "tracer": 6, "start": 3}, "eps": 9.0, "block": 8}
    assert witness_images(Measurement("m", 1.0, Kind.EXACT, 1, witness=witness)) == [3, 4, 5, 6]


@pytest.mark.parametrize("tolerance", [SAME_MACHINE, (1e-3, 1e-6)])
def test_how_near_a_number_computed_again_must_be(tolerance):
    """Another batch size or machine moves the last bits: then the witness of a number need not be equal to the last."""
    from types import SimpleNamespace

    from stabilitykit_expansivity.recompute import constants

    moved = np.array([[[0.0], [0.0]], [[0.0], [0.25 * (1 + 1e-6)]]])  # equal at the closest moment, else moved
    again = SimpleNamespace(
        rerun=Rerun(tolerance=tolerance),
        rows_of=np.asarray,
        logits=lambda rows: moved[:, rows],
        space="logits",
        extraction=Extraction(space="logits"),
    )
    witness = {"indices": [0, 1], "distances": [0.0, 0.25], "block": 0}
    found = constants(again, PropertyResult([Measurement("expansive_constant.min", 0.0, Kind.EXACT, 2, "", witness)]))
    refused = "the witness's distances are [0, 0.25], not [0, 0.25]"
    assert found["expansive_constant.min"] == (refused if tolerance == SAME_MACHINE else 0)


@pytest.mark.parametrize("batch_size", [4, 60])
def test_a_recheck_compares_as_its_batches_allow(batch_size, monkeypatch):
    seen = []

    class Seeing(Norms):
        def verify(self, context, result):
            seen.append(context.rerun.tolerance)
            return super().verify(context, result)

    stabilitykit.evaluate(
        TinyModel(seed=0), TinyDataset(seed=0, count=60), Seeing(), batch_size=batch_size, device="cpu", cache=False
    )
    assert seen == [SAME_MACHINE if batch_size == 4 else (acceptance.SUSPICIOUS, acceptance.SMALLEST)]
