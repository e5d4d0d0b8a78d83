"""Augmentation, schedules, averages and precision of a training, each against its definition written out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stabilitykit import UsageProblem
from stabilitykit.training.augmentation import Augmented
from stabilitykit.training.recipe import RECIPES, Recipe, held_out
from stabilitykit.training.steps import Stepper
from stabilitykit.training.training import train
from tests.core.test_training import ALL, DATA, HELD_OUT, RECIPE, Net, Stripes, bits

EVERYTHING = dataclasses.replace(
    RECIPE, augment=("flip", "crop"), schedule="onecycle", amp="bfloat16", weight_decay=1e-2, average=0.9
)


@pytest.mark.parametrize("schedule", ["onecycle", "cosine"])
def test_a_resumed_training_with_everything_on_ends_with_the_same_bits(tmp_path: Path, schedule: str) -> None:
    recipe = dataclasses.replace(EVERYTHING, schedule=schedule)
    watched = (HELD_OUT, np.arange(30))

    class Stop(Exception):
        pass

    class Killer:
        def batch(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
            if (epoch, step) == (3, 2):
                raise Stop

        def epoch(self, record, seconds: float) -> None:
            pass

    straight, resumed, again = Net(), Net(), Net()
    expected = train(straight, DATA, ALL, recipe, validation=watched, output=tmp_path / "a.safetensors")
    with pytest.raises(Stop):
        train(resumed, DATA, ALL, recipe, validation=watched, output=tmp_path / "b.safetensors", watcher=Killer())
    torch.rand(5)
    done = train(again, DATA, ALL, recipe, validation=watched, output=tmp_path / "b.safetensors", resume=True)
    assert bits(again) == bits(straight) and done.history == expected.history
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"augment": ()},
        {"schedule": "constant"},
        {"amp": "float32"},
        {"weight_decay": 0.0},
        {"average": 0.0},
        {"epochs": 3},  # the end of a schedule moves every step before it
    ],
)
def test_every_choice_changes_the_weights_and_forbids_resuming(tmp_path: Path, change: dict) -> None:
    model, other = Net(), Net()
    train(model, DATA, ALL, EVERYTHING, output=tmp_path / "a.safetensors")
    changed = dataclasses.replace(EVERYTHING, **change)
    train(other, DATA, ALL, changed)
    assert bits(model) != bits(other)
    with pytest.raises(UsageProblem, match=f"differs in (.* )?recipe.{next(iter(change))} "):
        train(Net(), DATA, ALL, changed, output=tmp_path / "a.safetensors", resume=True)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 99),
    epoch=st.integers(1, 9),
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    order=st.permutations(range(6)),
)
def test_augmented_images_are_flipped_and_shifted_ones(
    seed: int, epoch: int, height: int, width: int, order: list[int]
) -> None:
    data = Stripes(6)
    data._pixels = np.random.default_rng(seed).random((6, 2, height, width), dtype=np.float32) + 1.0
    augmented = Augmented(data, ("flip", "crop"), seed, epoch)
    found = dict(zip(order, augmented.images(order)))
    for index, image in enumerate(Augmented(data, ("flip", "crop"), seed, epoch).images(range(6))):
        assert image.dtype == np.float32 and np.array_equal(image, found[index])
        down, right = height // 8, width // 8
        padded = np.pad(data._pixels[index], ((0, 0), (down, down), (right, right)))
        windows = [padded[:, y : y + height, x : x + width] for y in range(2 * down + 1) for x in range(2 * right + 1)]
        mirrored = np.pad(data._pixels[index][:, :, ::-1], ((0, 0), (down, down), (right, right)))
        windows += [
            mirrored[:, y : y + height, x : x + width] for y in range(2 * down + 1) for x in range(2 * right + 1)
        ]
        assert any(np.array_equal(image, window) for window in windows)


def test_every_shift_and_both_sides_are_equally_likely() -> None:
    data = Stripes(3600)
    data._pixels = np.zeros((3600, 1, 17, 16), dtype=np.float32)
    data._pixels[:, 0, 8, 5] = 1.0
    images = np.stack(Augmented(data, ("flip", "crop"), 3, 1).images(range(3600)))[:, 0]
    _, rows, columns = np.nonzero(images)
    assert len(rows) == 3600
    # 5 shifts down, 5 to the right, from column 5 or, mirrored, 10: each cell is Poisson of mean 72.
    counts = np.zeros((5, 10))
    for row, column in zip(rows, columns):
        counts[row - 6, column - 3 if column < 8 else column - 8 + 5] += 1
    assert counts.sum() == 3600 and counts.min() > 72 - 5 * 72**0.5 and counts.max() < 72 + 5 * 72**0.5
    other = np.stack(Augmented(data, ("flip", "crop"), 3, 2).images(range(3600)))[:, 0]
    assert (images != other).any(axis=(1, 2)).mean() > 0.9
    plain = np.stack(Augmented(data, (), 3, 1).images(range(9)))
    assert np.array_equal(plain, data._pixels[:9])


def test_steps_are_those_of_torch_written_out() -> None:
    recipe = Recipe(epochs=2, lr=0.1, schedule="onecycle", weight_decay=0.3, average=0.75)
    module, reference = nn.Linear(3, 2), nn.Linear(3, 2)
    reference.load_state_dict(module.state_dict())
    stepper = Stepper(module, recipe, 5)
    optimizer = torch.optim.AdamW(reference.parameters(), lr=0.1, weight_decay=0.3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, epochs=2, steps_per_epoch=5)
    mean = None
    x = torch.randn(10, 4, 3)
    for batch in x:
        stepper.step(module(batch).square().sum())
        optimizer.zero_grad()
        reference(batch).square().sum().backward()
        optimizer.step()
        schedule.step()
        weight = reference.weight.detach().clone()
        mean = weight if mean is None else 0.75 * mean + 0.25 * weight
        assert torch.equal(module.weight, reference.weight)
    with stepper.averaged():
        assert torch.allclose(module.weight, mean, atol=1e-6) and not module.training
    assert torch.equal(module.weight, reference.weight)


@settings(deadline=None)
@given(st.integers(3, 200), st.integers(0, 50), st.integers(0, 2**31))
def test_held_out_images_are_a_part_by_seed(count: int, hold_out: int, seed: int) -> None:
    indices = np.random.default_rng(seed).permutation(1000)[:count]
    recipe = Recipe(hold_out=hold_out, seed=seed)
    if count - hold_out < 2:
        with pytest.raises(UsageProblem, match=f"--hold-out {hold_out}"):
            held_out(indices, recipe)
        return
    rest, watched = held_out(indices, recipe)
    assert len(watched) == hold_out and sorted([*rest, *watched]) == sorted(indices)
    assert np.array_equal(held_out(indices, recipe)[1], watched)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(augment=("turn",)),
        Recipe(schedule="warm"),
        Recipe(amp="int4"),
        Recipe(weight_decay=-1.0),
        Recipe(average=1.0),
        Recipe(hold_out=-1),
    ],
)
def test_what_is_no_recipe_is_refused(recipe: Recipe) -> None:
    with pytest.raises(UsageProblem):
        recipe.check()


def test_named_recipes_are_recipes_and_records_are_read_back() -> None:
    for options in RECIPES.values():
        recipe = Recipe(**options)
        recipe.check()
        assert Recipe.of({**dataclasses.asdict(recipe), "augment": list(recipe.augment), "other": 1}) == recipe
    assert Recipe.of({"epochs": 7, "lr": 0.5}) == Recipe(epochs=7, lr=0.5)
