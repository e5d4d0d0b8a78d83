"""The certificate decides: what is no function of one image fails its cells with that reason."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

import stabilitykit
from stabilitykit import Dataset, Model
from stabilitykit.evaluation.cautions import at_chance
from stabilitykit.evaluation.chain_check import ROUNDING
from stabilitykit.plugins.registry import Registry
from stabilitykit.reporting.page import render
from stabilitykit.reporting.rundata import RunData

SIDE, CLASSES, COUNT = 4, 3, 24


class Squares(Dataset):
    """Noise around one of three patterns."""

    name = "squares"

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._labels = np.arange(COUNT) % CLASSES
        patterns = random.random((CLASSES, 3, SIDE, SIDE))
        self._images = (0.8 * patterns[self._labels] + 0.1 * random.random((COUNT, 3, SIDE, SIDE))).astype(np.float32)

    def __len__(self) -> int:
        return COUNT

    @property
    def labels(self) -> np.ndarray:
        return self._labels

    @property
    def class_names(self) -> Sequence[str]:
        return ["a", "b", "c"]

    def images(self, indices: Sequence[int]) -> Sequence[np.ndarray]:
        return [self._images[i] for i in indices]

    def fingerprint(self) -> str:
        return "squares"


class Plain(Model):
    """x + tanh(W x) twice, a linear readout; subclasses do something that a certificate must see."""

    name = "plain"

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            size = 3 * SIDE * SIDE
            self._net = nn.ModuleList([nn.Linear(size, size), nn.Linear(size, size), nn.Linear(size, CLASSES)]).eval()

    @property
    def module(self) -> nn.Module:
        return self._net

    @property
    def num_blocks(self) -> int:
        return 2

    @property
    def num_classes(self) -> int:
        return CLASSES

    @property
    def state_shape(self) -> tuple[int, ...]:
        return (3 * SIDE * SIDE,)

    def initial_state(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.flatten(1)

    def block(self, t: int, state: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return state + torch.tanh(self._net[t](state))

    def readout(self, state: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return self._net[2](state)


class Noisy(Plain):
    def readout(self, state):
        return nn.functional.dropout(super().readout(state), 0.2, training=True)


class NoisyWithin(Plain):
    def block(self, t, state):
        return super().block(t, state) + 1e-3 * torch.randn_like(state)


class Stateful(Plain):
    calls = 0

    def readout(self, state):
        self.calls += 1
        return super().readout(state) + 0.01 * self.calls


class OtherEnd(Plain):
    def logits(self, inputs):
        return 1.01 * super().logits(inputs)


class OtherEndLater(Plain):
    """Right on the first batch only."""

    def logits(self, inputs):
        first = torch.from_numpy(np.stack(Squares().images([0]))).to(inputs)
        out = super().logits(inputs)
        return out if torch.equal(inputs[:1], first) or len(inputs) < 6 else out + 1


class Rounded(Plain):
    def logits(self, inputs):
        return super().logits(inputs) * (1 + 3e-7)


class BatchStatistics(Plain):
    def initial_state(self, inputs):
        flat = inputs.flatten(1)
        return flat - flat.mean(0)


class SlightBatchStatistics(Plain):
    def block(self, t, state):
        return super().block(t, state) + 1e-3 * state.mean(0)


class ByTheWholeBatch(Plain):
    """The factor is 2 for every batch of the data, and 1 for a black picture alone."""

    def initial_state(self, inputs):
        return inputs.flatten(1) * (2.0 if float(inputs.max()) > 0.2 else 1.0)


class Broken(Plain):
    def block(self, t, state):
        raise RuntimeError("no such block")


class Chaotic(Plain):
    """Rounding grows by 10^5 along depth: a batch moves readouts by more than the tolerance, in float32 only."""

    def block(self, t, state):
        return torch.sin(300 * super().block(t, state))


class Soft(Plain):
    def readout(self, state):
        return super().readout(state).softmax(1)


class LogSoft(Plain):
    def readout(self, state):
        return super().readout(state).log_softmax(1)


@functools.cache
def registry() -> Registry:
    return Registry.load()


def run(model: Model, **options):
    options |= {"cache": False, "batch_size": 8, "registry": registry()}
    return stabilitykit.evaluate(model, Squares(), "expansivity", **options)


def reasons(done) -> list[str]:
    return done.info["pairs"][0]["certificate"]["reasons"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Noisy, "something else each time"),
        (NoisyWithin, "something else each time"),
        (Stateful, "something else each time"),
        (OtherEnd, "chained blocks are not the model"),
        (OtherEndLater, "chained blocks are not the model"),
        (BatchStatistics, "move with the batch"),
        (SlightBatchStatistics, "move with the batch"),
        (ByTheWholeBatch, "move with the batch"),
        (Broken, "no such block"),
        (Soft, "gives probabilities"),
    ],
)
def test_what_fails_and_why(kind, words, capsys) -> None:
    done = run(kind())
    assert done.exit_code == 1 and words in done.cells[0].error["message"]
    assert done.cells[0].error["culprit"].startswith("model")
    assert words in capsys.readouterr().err and any(words in reason for reason in reasons(done))


@pytest.mark.parametrize("kind", [Plain, Rounded, LogSoft, Chaotic])
def test_what_passes(kind) -> None:
    done = run(kind())
    assert done.ok and reasons(done) == []


def test_rounding_is_told_from_dependence_by_float64() -> None:
    drift = run(Chaotic()).info["pairs"][0]["certificate"]["core"]["batch"]
    assert drift > ROUNDING, "the test must reach what it is about"


def test_going_on_marks_every_number() -> None:
    done = run(BatchStatistics(), uncertified=True)
    assert done.ok
    for measurement in done["expansivity"].measurements:
        assert measurement.note.startswith("UNCERTIFIED: its readouts move with the batch")
    assert done["expansivity"].notes[0].startswith("UNCERTIFIED")
    assert any(text.startswith("UNCERTIFIED") for text in done.info["pairs"][0]["warnings"])
    assert not any("UNCERTIFIED" in m.note for m in run(Plain(), uncertified=True)["expansivity"].measurements)


def test_probabilities_may_be_measured_as_they_are() -> None:
    as_they_are = run(Soft(), space="logits")["expansivity"]["expansive_constant.mean"].value
    right = run(Plain())["expansivity"]["expansive_constant.mean"].value
    assert as_they_are == pytest.approx(right, rel=1e-5)
    assert run(LogSoft())["expansivity"]["expansive_constant.mean"].value == pytest.approx(right, rel=1e-5)


def test_untrained_weights_and_chance_are_said_first(tmp_path, capsys) -> None:
    done = stabilitykit.evaluate(
        "resnet18:width=4", "digits", "expansivity", limit=40, cache=False, output=tmp_path / "run"
    )
    assert any("untrained" in text for text in done.info["pairs"][0]["warnings"])
    assert "weights are untrained" in capsys.readouterr().err
    page = render(RunData.read(tmp_path / "run"))
    assert page.index("weights are untrained") < page.index("<h2>Summary</h2>")
    trained = stabilitykit.evaluate("resnet18-digits", "digits", "expansivity", limit=40, cache=False)
    assert trained.info["pairs"][0]["warnings"] == []


class Forgotten(Plain):
    """Answers class a for everything."""

    def readout(self, state):
        return super().readout(state) * 0.01 + torch.tensor([5.0, 0.0, 0.0])


def test_an_accuracy_of_chance_is_said(capsys) -> None:
    done = run(Forgotten())
    assert any("is chance" in text for text in done.info["pairs"][0]["warnings"])
    assert "is chance" in capsys.readouterr().err
    assert not any("is chance" in t for t in run(Forgotten(), any_classes=True).info["pairs"][0]["warnings"])


class _Known:
    def __init__(self, labels, predictions) -> None:
        self.labels, self.predictions = np.asarray(labels), np.asarray(predictions)

    def __len__(self) -> int:
        return len(self.labels)


@pytest.mark.parametrize("seed", range(5))
def test_chance_of_independent_guesses(seed) -> None:
    random = np.random.default_rng(seed)
    labels, guesses = random.integers(0, 10, 400), random.integers(0, 4, 400)
    accuracy, chance, limit = at_chance(_Known(labels, guesses))
    mean = np.mean([(random.permutation(labels) == guesses).mean() for _ in range(300)])
    assert chance == pytest.approx(mean, abs=0.005) and accuracy < limit
    right = np.where(random.random(400) < 0.3, labels, guesses)
    accuracy, _, limit = at_chance(_Known(labels, right))
    assert accuracy > limit
