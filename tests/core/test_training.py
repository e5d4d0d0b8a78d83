"""Training learns, is a function of its seed, and resumes to the very bits of an uninterrupted run."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from stabilitykit import CellProblem, Dataset, Model, UsageProblem
from stabilitykit.training.checkpoints import load_weights
from stabilitykit.training.metrics import classification_metrics, predict
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.training import Epoch, epoch_path, state_path, train


class Stripes(Dataset):
    """Noisy images whose brighter half tells the class: learnable in a few steps."""

    name = "stripes"

    def __init__(self, count: int = 90, seed: int = 0, noise: float = 0.2) -> None:
        rng = np.random.default_rng(seed)
        self._labels = np.arange(count) % 3
        pixels = rng.random((count, 1, 6, 6), dtype=np.float32) * noise
        for i, label in enumerate(self._labels):
            pixels[i, 0, 2 * label : 2 * label + 2] += 1 - noise
        self._pixels = pixels

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    @property
    def class_names(self) -> list[str]:
        return ["top", "middle", "bottom"]

    def images(self, indices) -> np.ndarray:
        return self._pixels[np.asarray(indices)]

    def fingerprint(self) -> str:
        return "stripes"


class Net(Model):
    """Two blocks with BatchNorm and dropout: everything whose state a resumed run must find again."""

    name = "net"

    def __init__(self, seed: int = 0, classes: int = 3) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._module = nn.ModuleDict(
                {
                    "blocks": nn.ModuleList(
                        nn.Sequential(nn.Linear(36, 36), nn.BatchNorm1d(36), nn.Dropout(0.3)) for _ in range(2)
                    ),
                    "head": nn.Linear(36, classes),
                }
            ).eval()
        self._classes = classes

    module = property(lambda self: self._module)
    num_blocks = property(lambda self: 2)
    num_classes = property(lambda self: self._classes)
    state_shape = property(lambda self: (36,))

    def initial_state(self, inputs):
        return inputs.flatten(1)

    def block(self, t, state):
        return state + self._module["blocks"][t](state).relu()

    def readout(self, state):
        return self._module["head"](state)


DATA, HELD_OUT = Stripes(), Stripes(30, seed=1)
ALL = np.arange(len(DATA))
RECIPE = Recipe(epochs=4, batch_size=16, lr=1e-2, seed=5)


def bits(model: Model) -> str:
    return model.fingerprint()


def accuracy(model: Model) -> float:
    return classification_metrics(*predict(model, HELD_OUT, np.arange(30)))["accuracy"]


def test_it_learns_and_reports_what_it_did() -> None:
    model = Net()
    before = accuracy(model)
    done = train(model, DATA, ALL, dataclasses.replace(RECIPE, epochs=12), validation=(HELD_OUT, np.arange(30)))
    assert accuracy(model) > max(0.9, before)
    assert not model.module.training and done.kept == 12
    assert [e.number for e in done.history] == list(range(1, 13))
    assert done.history[-1].loss < done.history[0].loss
    assert done.history[-1].validation_accuracy == pytest.approx(accuracy(model))


def test_the_first_step_is_adam_on_cross_entropy() -> None:
    """One full-batch step without dropout, against PyTorch written out."""
    model, reference = Net(), Net()
    for net in (model, reference):
        for part in net.module.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
    train(model, DATA, ALL, Recipe(epochs=1, batch_size=len(DATA), lr=1e-2))
    reference.module.train()
    optimizer = torch.optim.Adam(reference.module.parameters(), lr=1e-2)
    logits = reference.logits(torch.from_numpy(DATA.images(ALL)))
    loss = nn.functional.cross_entropy(logits, torch.from_numpy(DATA.labels))
    loss.backward()
    optimizer.step()
    for (name, a), (_, b) in zip(model.module.named_parameters(), reference.module.named_parameters()):
        # Adam's first step is lr * sign(gradient): where a gradient is mere rounding noise its sign is undecided.
        sure = b.grad.abs() > 1e-6
        assert torch.allclose(a[sure], b[sure], atol=1e-5), name


def test_equal_seeds_give_equal_bits() -> None:
    first, second, other = Net(), Net(), Net()
    train(first, DATA, ALL, RECIPE)
    torch.rand(7)  # the state of the global generator before must not matter
    train(second, DATA, ALL, RECIPE)
    train(other, DATA, ALL, dataclasses.replace(RECIPE, seed=6))
    assert bits(first) == bits(second) != bits(other)


@settings(deadline=None, max_examples=8)
@given(stops=st.lists(st.integers(1, 3), max_size=3, unique=True))
def test_resumed_equals_uninterrupted(tmp_path_factory, stops: list[int]) -> None:
    folder = tmp_path_factory.mktemp("train")
    validation = (HELD_OUT, np.arange(30))
    straight = Net()
    expected = train(straight, DATA, ALL, RECIPE, validation=validation, output=folder / "a.safetensors")
    for epochs in [*sorted(stops), RECIPE.epochs]:
        torch.rand(3)
        resumed = Net()
        done = train(
            resumed,
            DATA,
            ALL,
            dataclasses.replace(RECIPE, epochs=epochs),
            validation=validation,
            output=folder / "b.safetensors",
            resume=True,
        )
        assert done.history == expected.history[:epochs]
    assert bits(resumed) == bits(straight)
    assert (folder / "a.safetensors").read_bytes() == (folder / "b.safetensors").read_bytes()


class Stop(Exception):
    pass


class Killer:
    """Raises in the middle of an epoch."""

    def batch(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        assert 1 <= step <= steps and np.isfinite(loss) and 0 <= accuracy <= 1
        if epoch == 3 and step == 2:
            raise Stop

    def epoch(self, record: Epoch, seconds: float) -> None:
        assert seconds >= 0


def test_an_interrupted_epoch_is_run_again(tmp_path: Path) -> None:
    straight, broken, resumed = Net(), Net(), Net()
    train(straight, DATA, ALL, RECIPE)
    with pytest.raises(Stop):
        train(broken, DATA, ALL, RECIPE, output=tmp_path / "a.safetensors", watcher=Killer())
    _, metadata = load_weights(tmp_path / "a.safetensors")
    assert metadata["epoch"] == 2
    train(resumed, DATA, ALL, RECIPE, output=tmp_path / "a.safetensors", resume=True)
    assert bits(resumed) == bits(straight)


def test_checkpoint_says_where_it_comes_from(tmp_path: Path) -> None:
    model = Net()
    train(model, DATA, ALL, RECIPE, output=tmp_path / "a.safetensors", metadata={"model": {"options": {"x": 1}}})
    state, metadata = load_weights(tmp_path / "a.safetensors")
    assert state.keys() == model.module.state_dict().keys()
    assert metadata["recipe"]["lr"] == RECIPE.lr and metadata["model"]["options"] == {"x": 1}
    assert [e["number"] for e in metadata["history"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_kept_epochs_are_what_shorter_trainings_end_with(tmp_path: Path, average: float) -> None:
    """With a constant learning rate the first epochs do not know how many follow. Killed in epoch 3, then resumed."""
    recipe, output = dataclasses.replace(RECIPE, average=average), tmp_path / "a.safetensors"
    with pytest.raises(Stop):
        train(Net(), DATA, ALL, recipe, output=output, keep=(1, 3, 9), watcher=Killer())
    train(Net(), DATA, ALL, recipe, output=output, keep=(1, 3, 9), resume=True)
    assert not epoch_path(output, 2).exists() and not epoch_path(output, 9).exists()
    for number in (1, 3):
        shorter = Net()
        train(shorter, DATA, ALL, dataclasses.replace(recipe, epochs=number))
        state, metadata = load_weights(epoch_path(output, number))
        assert metadata["epoch"] == number == len(metadata["history"])
        for name, tensor in shorter.module.state_dict().items():
            assert torch.equal(state[name], tensor), name


def test_an_epoch_is_kept_before_its_state_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill between the two writes must not lose the epoch that was to be kept."""
    output = tmp_path / "a.safetensors"

    def killed(*_: object) -> None:
        raise Stop

    monkeypatch.setattr("stabilitykit.training.training.save_pickled", killed)
    with pytest.raises(Stop):
        train(Net(), DATA, ALL, RECIPE, output=output, keep=(1,))
    assert epoch_path(output, 1).exists() and not state_path(output).exists()


def test_patience_keeps_the_best_epoch(tmp_path: Path) -> None:
    """Held-out labels are shuffled, so training soon makes the validation loss worse."""
    worse = copy.deepcopy(HELD_OUT)
    worse._labels = np.random.default_rng(0).permutation(worse._labels)
    validation = (worse, np.arange(30))
    recipe = dataclasses.replace(RECIPE, epochs=40, patience=3)
    model = Net()
    done = train(model, DATA, ALL, recipe, validation=validation, output=tmp_path / "a.safetensors")
    losses = [e.validation_loss for e in done.history]
    assert done.stopped_early and len(losses) < 40
    assert done.kept == int(np.argmin(losses)) + 1 == len(losses) - 3
    reached = classification_metrics(*predict(model, *validation))["loss"]
    assert reached == pytest.approx(min(losses), rel=1e-5)
    again = Net()
    resumed = train(again, DATA, ALL, recipe, validation=validation, output=tmp_path / "a.safetensors", resume=True)
    assert bits(again) == bits(model) and resumed.history == done.history and resumed.stopped_early


@pytest.mark.parametrize("change", [{"lr": 1e-3}, {"batch_size": 8}, {"seed": 9}])
def test_another_recipe_does_not_resume(tmp_path: Path, change: dict) -> None:
    train(Net(), DATA, ALL, dataclasses.replace(RECIPE, epochs=1), output=tmp_path / "a.safetensors")
    with pytest.raises(UsageProblem, match=f"differs in recipe.{next(iter(change))}"):
        train(Net(), DATA, ALL, dataclasses.replace(RECIPE, **change), output=tmp_path / "a.safetensors", resume=True)


def test_damaged_state_is_one_line(tmp_path: Path) -> None:
    output = tmp_path / "a.safetensors"
    train(Net(), DATA, ALL, dataclasses.replace(RECIPE, epochs=1), output=output)
    state_path(output).write_bytes(state_path(output).read_bytes()[:900])
    with pytest.raises(UsageProblem, match="truncated or corrupt"):
        train(Net(), DATA, ALL, RECIPE, output=output, resume=True)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (Recipe(epochs=0), "at least 1"),
        (Recipe(lr=float("nan")), "lr is positive"),
        (Recipe(lr=-1), "lr is positive"),
        (Recipe(lr=1e38), "at most 1000"),
        (Recipe(patience=2), "--hold-out or --validation"),
    ],
)
def test_unusable_recipes(recipe: Recipe, words: str) -> None:
    with pytest.raises(UsageProblem, match=words):
        train(Net(), DATA, ALL, recipe)


def test_classes_must_fit_and_something_must_be_trainable() -> None:
    with pytest.raises(UsageProblem, match="num_classes=3"):
        train(Net(classes=4), DATA, ALL, RECIPE)
    frozen = Net()
    frozen.module.requires_grad_(False)
    with pytest.raises(UsageProblem, match="no parameters to train"):
        train(frozen, DATA, ALL, RECIPE)


def test_divergence_is_reported(tmp_path: Path) -> None:
    model = Net()
    with torch.no_grad():
        model.module["head"].weight.mul_(1e38)
    with pytest.raises(CellProblem, match=r"diverged: loss (nan|inf) in epoch 1, step 1"):
        train(model, DATA, ALL, RECIPE, output=tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_last_batch_of_one_image_is_left_out() -> None:
    done = train(Net(), DATA, ALL[:33], dataclasses.replace(RECIPE, epochs=1))  # 16 + 16 + 1, BatchNorm in training
    assert len(done.history) == 1
