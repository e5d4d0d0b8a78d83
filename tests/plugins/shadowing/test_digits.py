"""The smallest jump of images classified with near certainty, and flags on numbers with few trustworthy digits."""

import dataclasses
import itertools

import numpy as np
import pytest
from stabilitykit_shadowing.digits import at_least
from stabilitykit_shadowing.property import Shadowing

from stabilitykit import Kind
from stabilitykit.dynamics.digits import SUBTRACTION
from stabilitykit.dynamics.trajectory import Trajectory
from stabilitykit.testing.fixtures import TinyModel, tiny_context
from tests.core.test_digits import exactly


def context_of(logits, monkeypatch):
    context = tiny_context(TinyModel(blocks=len(logits) - 1))
    trajectory = Trajectory(
        logits, context.trajectory.labels, context.trajectory.indices, "probabilities", context.trajectory.class_names
    )
    made = dataclasses.replace(context, make_trajectory=lambda: trajectory)
    monkeypatch.setattr(type(made), "logits", lambda self, rows: self.trajectory.logits[:, rows])
    return made


@pytest.fixture
def logits():
    """(4, 24, 3), float32: undecided before the first block, certain of class 0 after the last."""
    generator = np.random.default_rng(1)
    made = generator.normal(size=(4, 24, 3)).astype(np.float32)
    made[3, :, 0] += np.linspace(28, 40, 24, dtype=np.float32)
    return made


def test_the_smallest_jump_comes_from_logits(logits, monkeypatch):
    context = context_of(logits, monkeypatch)
    result = Shadowing().evaluate(context)
    jump = result["smallest_jump"]
    true = min(float(exactly(at[i], at[j])) for at in logits[1:] for i, j in itertools.combinations(range(24), 2))
    low, high = jump.interval
    assert jump.kind is Kind.UPPER and 0 < high == jump.value and low <= true <= high <= low + 2 * SUBTRACTION
    assert jump.witness["distances"][jump.witness["block"]] == jump.value
    assert (
        at_least(context, low + SUBTRACTION) == low and at_least(context, 0.0) == 0.0 and at_least(context, 0.1) == 0.1
    )
    assert Shadowing().verify(context, result)["smallest_jump"] == jump.value
    again = Shadowing().verify_sample(context, result)
    assert again["smallest_jump"] == jump.value and again["Sh_all.lower"] == result["Sh_all.lower"].value


def test_numbers_with_few_digits_are_flagged(logits, monkeypatch):
    plain = Shadowing().evaluate(context_of(logits, monkeypatch))
    assert all("digits" not in m.witness for m in plain.measurements if m.name.startswith(("eps", "delta", "Sh_p")))
    coarse = context_of(logits, monkeypatch)
    coarse = dataclasses.replace(coarse, extraction=dataclasses.replace(coarse.extraction, dtype="bfloat16"))
    found = Shadowing().evaluate(coarse)
    for name in ("Sh_profile", "Sh_exact", "eps.min", "delta.max"):
        assert found[name].witness["digits"] < 4 and "a bfloat16 pass" in found[name].note
        assert found[name].value == plain[name].value
