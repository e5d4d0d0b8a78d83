"""Training: Adam and cross-entropy (paper section 3), seeded, checkpointed every epoch, resumable bit for bit.

What else a training may do is in :mod:`stabilitykit.training.recipe`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional as F

from stabilitykit.base.errors import CellProblem, DataProblem, UsageProblem
from stabilitykit.dynamics.dataset import Dataset
from stabilitykit.dynamics.model import Model
from stabilitykit.dynamics.trajectory import batches
from stabilitykit.training.augmentation import Augmented
from stabilitykit.training.checkpoints import fit_weights, load_pickled, save_pickled, save_weights
from stabilitykit.training.metrics import classification_metrics, predict
from stabilitykit.training.recipe import Recipe
from stabilitykit.training.steps import Stepper

STATE_VERSION = 1


@dataclass
class Epoch:
    """What one epoch gave: number (from 1), mean training loss and accuracy, the same on validation images."""

    number: int
    loss: float
    accuracy: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


@dataclass
class Training:
    """A training, running or finished. ``kept``: number of the epoch whose weights the model has in the end."""

    history: list[Epoch] = field(default_factory=list)
    kept: int = 0
    stopped_early: bool = False


class Watcher(Protocol):
    """Told what happens, for progress bars."""

    def batch(self, epoch: int, step: int, steps: int, loss: float, accuracy: float) -> None:
        """After every step: mean loss and accuracy of the epoch so far."""

    def epoch(self, record: Epoch, seconds: float) -> None:
        """After every epoch, its checkpoint being on disk."""


def train(
    model: Model,
    dataset: Dataset,
    indices: np.ndarray,
    recipe: Recipe,
    *,
    validation: tuple[Dataset, np.ndarray] | None = None,
    device: torch.device | str = "cpu",
    output: Path | None = None,
    keep: Collection[int] = (),
    resume: bool = False,
    identity: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    watcher: Watcher | None = None,
) -> Training:
    """Train ``model`` in place on ``dataset[indices]``; it is left in eval mode.

    After every epoch the weights go to ``output`` (safetensors) and everything needed to go on to
    :func:`state_path`, both atomically: a kill at any moment costs at most the running epoch, and a resumed
    training ends with the very bits of one never interrupted (same machine, same number of threads).

    Arguments:
        indices: (n,) integers: the images to train on.
        validation: a dataset and the integers (m,) of its images to measure on after every epoch.
        keep: numbers of epochs, from 1, whose weights also go to :func:`epoch_path` and stay there.
        identity: plain data that a resumed training must agree on (model options, data fingerprints).
        metadata: plain data stored in the header of ``output``.

    Raises:
        UsageProblem: nothing to train, an unusable recipe, a state of another training to resume from.
        CellProblem: the loss became NaN or infinite.
    """
    _check(model, dataset, recipe, validation, len(indices))
    device = torch.device(device)
    module = model.module.to(device)
    stepper = Stepper(module, recipe, _steps(len(indices), recipe.batch_size))
    labels = np.asarray(dataset.labels)
    training, best = Training(), None
    identity = {**(identity or {}), "recipe": recipe.identity()}
    torch.manual_seed(recipe.seed)
    if resume and output is not None and state_path(output).exists():
        best = _restore(
            load_pickled(state_path(output)), state_path(output), model, stepper, training, identity, device
        )
    while len(training.history) < recipe.epochs:
        if recipe.patience is not None and _stalled(training, recipe.patience):
            training.stopped_early = True
            break
        started, number = time.monotonic(), len(training.history) + 1
        order = np.random.Generator(np.random.PCG64([recipe.seed, number])).permutation(indices)
        record = _epoch(model, dataset, labels, order, number, recipe, stepper, device, watcher)
        # What is watched and kept are the averaged weights; training goes on from those of the last step.
        with stepper.averaged():
            if validation is not None:
                truth, logits = predict(model, *validation, batch_size=recipe.batch_size, device=device)
                result = classification_metrics(truth, logits)
                record.validation_loss, record.validation_accuracy = result["loss"], result["accuracy"]
            training.history.append(record)
            if recipe.patience is None or _best(training) == number:
                best = {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}
            if output is not None and number in keep:
                # Before the state: a training that is killed in between makes this epoch, and the file, again.
                _save(epoch_path(output, number), module.state_dict(), number, training, recipe, metadata)
        training.kept = _best(training) if recipe.patience is not None else number
        if output is not None:
            # The state goes first: it holds the weights too, so a kill between the two files loses nothing.
            kept = best if recipe.patience is not None or recipe.average else None
            save_pickled(state_path(output), _state(model, stepper, training, kept, identity, device))
            _save(output, best, training.kept, training, recipe, metadata)
        if watcher is not None:
            watcher.epoch(record, time.monotonic() - started)
    if best is not None:
        fit_weights(module, best, model.name)
    training.kept = _best(training) if recipe.patience is not None else len(training.history)
    module.eval()
    if output is not None and training.history:
        _save(output, module.state_dict(), training.kept, training, recipe, metadata)
    return training


def state_path(output: Path) -> Path:
    """Where the optimizer, the generators and the history of a training to ``output`` are kept."""
    return output.with_name(output.name.removesuffix(".safetensors") + ".state.pt")


def epoch_path(output: Path, number: int) -> Path:
    """Where the weights of epoch ``number`` (from 1) of a training to ``output`` are kept."""
    return output.with_name(f"{output.name.removesuffix('.safetensors')}.epoch-{number}.safetensors")


def _epoch(
    model: Model,
    dataset: Dataset,
    labels: np.ndarray,
    order: np.ndarray,
    number: int,
    recipe: Recipe,
    stepper: Stepper,
    device: torch.device,
    watcher: Watcher | None,
) -> Epoch:
    steps = _steps(len(order), recipe.batch_size)
    order = order[: steps * recipe.batch_size]
    if recipe.augment:
        dataset = Augmented(dataset, recipe.augment, recipe.seed, number)
    model.module.train()
    total, right, seen = 0.0, 0, 0
    for step, (rows, inputs) in enumerate(batches(model, dataset, order, recipe.batch_size, device), 1):
        target = torch.from_numpy(labels[order[rows]]).to(device)
        with stepper.precision(device):
            logits = model.logits(inputs)
        loss = F.cross_entropy(logits.float(), target)
        stepper.step(loss)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise CellProblem(
                f"training {model.name} diverged: loss {value} in epoch {number}, step {step}; "
                f"try a lower --lr than {recipe.lr:g} and --resume from the last good epoch"
            )
        total, seen = total + value * len(target), seen + len(target)
        right += int((logits.detach().argmax(dim=1) == target).sum())
        if watcher is not None:
            watcher.batch(number, step, steps, total / seen, right / seen)
    return Epoch(number, total / seen, right / seen)


def _steps(images: int, batch_size: int) -> int:
    """Steps of an epoch; a last batch of one image is left out."""
    return max(images // batch_size + (images % batch_size > 1), 1)


def _check(
    model: Model, dataset: Dataset, recipe: Recipe, validation: tuple[Dataset, np.ndarray] | None, count: int
) -> None:
    if not any(p.requires_grad for p in model.module.parameters()):
        raise UsageProblem(f"model {model.name} has no parameters to train")
    recipe.check(watched=validation is not None)
    if count < 2:
        raise UsageProblem(f"training takes at least 2 images; got {count}")
    for data in (dataset, *(validation or ())[:1]):
        if len(data.class_names) != model.num_classes:
            raise UsageProblem(
                f"dataset {data.name} has {len(data.class_names)} classes, model {model.name} "
                f"{model.num_classes}; build the model with num_classes={len(data.class_names)}"
            )


def _best(training: Training) -> int:
    """Number of the first epoch with the lowest validation loss."""
    return min(training.history, key=lambda e: (e.validation_loss, e.number)).number


def _stalled(training: Training, patience: int) -> bool:
    return bool(training.history) and len(training.history) - _best(training) >= patience


def _save(
    output: Path,
    state: Mapping[str, torch.Tensor] | None,
    epoch: int,
    training: Training,
    recipe: Recipe,
    metadata: Mapping[str, Any] | None,
) -> None:
    # No times or dates: equal trainings give equal files.
    record = {
        **(metadata or {}),
        "recipe": asdict(recipe),
        "epoch": epoch,
        "history": [asdict(e) for e in training.history],
    }
    save_weights(output, state or {}, record)


def _state(
    model: Model,
    stepper: Stepper,
    training: Training,
    best: Mapping[str, torch.Tensor] | None,
    identity: Mapping[str, Any],
    device: torch.device,
) -> dict[str, Any]:
    return {
        "version": STATE_VERSION,
        "identity": dict(identity),
        "history": [asdict(e) for e in training.history],
        "weights": dict(model.module.state_dict()),
        "best": None if best is None else dict(best),
        **stepper.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def _restore(
    state: Any,
    path: Path,
    model: Model,
    stepper: Stepper,
    training: Training,
    identity: Mapping[str, Any],
    device: torch.device,
) -> dict[str, torch.Tensor] | None:
    """Put model, optimizer, generators and history back; the best weights so far, if any are kept."""
    if not isinstance(state, dict) or state.get("version") != STATE_VERSION:
        raise DataProblem(f"{path} is no training state of this version; remove it to start over")
    theirs: dict[str, Any] = state["identity"]
    theirs = {**theirs, "recipe": {**Recipe().identity(), **theirs["recipe"]}}
    different = _differences(theirs, identity)
    if different:
        raise UsageProblem(
            f"cannot resume from {path}: that training differs in {', '.join(different)}; "
            "give the same options or another --output"
        )
    fit_weights(model.module, state["weights"], model.name)
    stepper.load_state_dict(state)
    torch.set_rng_state(state["rng"])
    if device.type == "cuda" and state["cuda_rng"] is not None:
        torch.cuda.set_rng_state(state["cuda_rng"], device)
    training.history = [Epoch(**record) for record in state["history"]]
    best: dict[str, torch.Tensor] | None = state["best"]
    return best


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*theirs, *ours}):
        a, b = theirs.get(key), ours.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += _differences(a, b, f"{prefix}{key}.")
        elif (list(a) if isinstance(a, tuple) else a) != (list(b) if isinstance(b, tuple) else b):
            found.append(f"{prefix}{key} ({a} there, {b} here)")
    return found
