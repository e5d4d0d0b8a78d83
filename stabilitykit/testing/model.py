"""Contract checks of a Model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stabilitykit.base.errors import describe
from stabilitykit.dynamics.model import Model, state_parts
from stabilitykit.testing.checks import Broken, Check, Checklist, require, require_plain

if TYPE_CHECKING:
    import torch

# Shapes tried, in this order, when the author passes no images.
CANDIDATES = ((3, 32, 32), (1, 28, 28), (3, 224, 224), (3, 4, 4), (1, 8, 8))
BATCH = 4
# A network's float32 output moves by about 1e-6 of its scale with the batch size; 100 times that is a mistake.
TOLERANCE = 1e-4


def check_model(model: Model, images: Sequence[np.ndarray] | None = None) -> list[Check]:
    """Contract checks of ``model``.

    Arguments:
        images: at least 2 images (C, H, W), float32 in [0, 1], that the model accepts; default: seeded random ones
            of the first usual size that it takes.
    """
    import torch

    found = Checklist()
    with found.check("is a stabilitykit.Model"):
        require(isinstance(model, Model), f"it is {type(model).__name__}; derive from stabilitykit.Model")
    if found.failed:
        return found.checks
    with found.check("evaluation mode"):
        training = [name or "(root)" for name, part in model.module.named_modules() if part.training]
        require(not training, f"{training[0] if training else ''} is in training mode; call .eval() in __init__")
    with found.check("finite weights"):
        bad = [
            n
            for n, p in model.module.state_dict().items()
            if p.is_floating_point() and not bool(torch.isfinite(p).all())
        ]
        require(not bad, f"{', '.join(bad[:3])} hold NaN or infinite values")
    inputs: torch.Tensor | None = None
    with found.check("preprocess gives one float32 batch"):
        inputs = _inputs(model, images)
        require(
            inputs.ndim == 4 and inputs.dtype == torch.float32,
            f"it gives {inputs.dtype} of shape {tuple(inputs.shape)}; expected float32 (B, C, H, W)",
        )
        require(bool(torch.isfinite(inputs).all()), "it gives NaN or infinite numbers for images in [0, 1]")
    if inputs is None:
        return found.checks
    with torch.inference_mode():
        _check_dynamics(model, inputs, found)
    with found.check("fingerprint is stable and survives a deep copy"):
        print_ = model.fingerprint()
        require(isinstance(print_, str) and print_ == model.fingerprint(), "two calls give different fingerprints")
        require(
            copy.deepcopy(model).fingerprint() == print_,
            "copy.deepcopy(model) has another fingerprint; keep all weights in `module`",
        )
    with found.check("fingerprint changes with the weights"):
        _check_fingerprint(copy.deepcopy(model))
    with found.check("blocks name modules of the model"):
        parts = set(model.module.modules())
        for t in range(model.num_blocks):
            require(
                all(part in parts for part in model.block_modules(t)),
                f"block_modules({t}) returns a module that is no part of `module`",
            )
    with found.check("describe and preprocessing are plain data"):
        require_plain(model.describe(), "describe()")
        require_plain(model.preprocessing, "preprocessing")
    return found.checks


def _check_fingerprint(twin: Model) -> None:
    """Broken unless a change of the first, the middle and the last weight shows. ``twin`` is a copy: it is changed."""
    import torch

    state = twin.module.state_dict()
    weights = [(name, t) for name, t in state.items() if isinstance(t, torch.Tensor) and t.numel()]
    for name, tensor in (weights[k] for k in sorted({0, len(weights) // 2, len(weights) - 1}) if weights):
        before, first = twin.fingerprint(), (0,) * tensor.ndim
        with torch.no_grad():
            tensor[first] = not tensor[first]
        require(
            twin.fingerprint() != before, f"{name} can change unseen; the cache would give another network's numbers"
        )


def _check_dynamics(model: Model, inputs: torch.Tensor, found: Checklist) -> None:
    import torch

    states: list[Any] = []
    before = model.fingerprint()
    with found.check("at least one block and two classes"):
        require(model.num_blocks >= 1, f"num_blocks is {model.num_blocks}")
        require(model.num_classes >= 2, f"num_classes is {model.num_classes}")
    with found.check("states keep their size, except by transitions"):
        states.append(model.initial_state(inputs))
        for t in range(model.num_blocks):
            states.append(model.block(t, _copy(states[-1])))
        sizes = [_numel(state) for state in states]
        named, steps = list(model.block_names), list(model.steps)
        require(len(named) == len(steps) == model.num_blocks, f"{len(named)} names and {len(steps)} kinds of blocks")
        fits = all(a == b or step == "transition" for a, b, step in zip(sizes, sizes[1:], steps))
        require(fits, f"numbers per image along depth: {sizes}; only a transition may lead to another R^n")
        for t, state in enumerate(states):
            shape = tuple(state_parts(state)[0].shape[1:])
            require(
                shape == tuple(model.shape_at(t)), f"shape_at({t}) is {tuple(model.shape_at(t))}, h_{t} has {shape}"
            )
        require(all(bool(torch.isfinite(p).all()) for s in states for p in state_parts(s)), "a state is not finite")
    if len(states) != model.num_blocks + 1:
        return
    with found.check("readout gives (B, K) finite logits at every depth"):
        for t, state in enumerate(states):
            logits = model.readout_at(t, _copy(state))
            expected = (len(inputs), model.num_classes)
            require(tuple(logits.shape) == expected, f"depth {t}: {tuple(logits.shape)}, expected {expected}")
            require(bool(torch.isfinite(logits).all()), f"depth {t}: NaN or infinite logits")
    with found.check("blocks and readout leave their input alone"):
        for t, state in enumerate(states):
            kept = state_parts(_copy(state))
            model.readout_at(t, state)
            require(_equal(kept, state), f"readout changes state {t} in place; use x + y, not x += y, inplace=False")
            if t < model.num_blocks:
                model.block(t, state)
                require(_equal(kept, state), f"block {t} changes its input in place; use inplace=False")
    with found.check("the same input gives the same output"):
        first, second = _trajectory(model, inputs), _trajectory(model, inputs)
        require(torch.equal(first, second), f"two runs differ by {_gap(first, second):.3g}; is dropout active?")
    with found.check("images do not influence one another"):
        together, alone = _trajectory(model, inputs)[:, :1], _trajectory(model, inputs[:1])
        scale = max(1.0, float(together.abs().max()))
        require(
            _gap(together, alone) <= TOLERANCE * scale,
            f"alone and in a batch differ by {_gap(together, alone):.3g}; is a batch statistic computed?",
        )
    with found.check("the blocks are the model"):
        evidence = model.certify(inputs)
        require_plain(evidence, "certify()")
        gap, scale = float(evidence["max_abs_difference"]), max(1.0, float(model.logits(inputs).abs().max()))
        require(gap <= TOLERANCE * scale, f"readout(h_T) and logits differ by {gap:.3g}; define blocks of the model")
    with found.check("head, if given, is the readout"):
        for t, state in enumerate(states):
            head = model.head_at(t)
            if head is not None and not isinstance(state, tuple):
                gap = _gap(head(state), model.readout_at(t, state))
                require(
                    gap <= TOLERANCE,
                    f"depth {t}: head and readout differ by {gap:.3g}; return None if g is no one module",
                )
    with found.check("running it changes no weight"):
        require(model.fingerprint() == before, "weights or buffers changed; a batch norm in training mode?")


def _inputs(model: Model, images: Sequence[np.ndarray] | None) -> torch.Tensor:
    import torch

    if images is not None:
        return model.preprocess(list(images)[:BATCH])
    refused = ""
    for shape in CANDIDATES:
        generator = np.random.default_rng(0)
        batch = [generator.random(shape, dtype=np.float32) for _ in range(BATCH)]
        try:
            inputs = model.preprocess(batch)
            with torch.inference_mode():
                model.initial_state(inputs)
            return inputs
        except Exception as error:
            refused = refused or describe(error)
    raise Broken(f"it takes none of the sizes {CANDIDATES} (first: {refused}); pass images=")


def _copy(state: Any) -> Any:
    return tuple(part.clone() for part in state) if isinstance(state, tuple) else state.clone()


def _numel(state: Any) -> int:
    return sum(part[0].numel() for part in state_parts(state))


def _equal(kept: Sequence[torch.Tensor], state: Any) -> bool:
    import torch

    return all(torch.equal(a, b) for a, b in zip(kept, state_parts(state), strict=True))


def _trajectory(model: Model, inputs: torch.Tensor) -> torch.Tensor:
    import torch

    state = model.initial_state(inputs)
    logits = [model.readout_at(0, state)]
    for t in range(model.num_blocks):
        state = model.block(t, state)
        logits.append(model.readout_at(t + 1, state))
    return torch.stack(logits)


def _gap(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).abs().max())
