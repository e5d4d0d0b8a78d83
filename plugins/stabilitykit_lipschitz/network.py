"""The network LipSDP sees: affine maps between slope-restricted layers, in numpy, without torch.

State 0 is the input x (n numbers). Layer l (1, 2, ...) computes z = sum_k W_lk y_k + b over any earlier states k and
then y_l = activation(z). The output is sum_k C_k y_k + c. Skips are simply further keys k.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from stabilitykit_lipschitz.normalisation import Normalisation
from stabilitykit_lipschitz.slopes import Activation


@dataclass(frozen=True)
class Layer:
    """One slope-restricted layer.

    blocks: {state k: float64 array (N, size of state k)}; bias: (N,); alpha, beta: (N,) slope bounds;
    shared: True when only the whole layer is bounded (normalisation layers, LipSDP-Layer): one multiplier then
    constrains sum_i (dy_i - alpha dz_i)(dy_i - beta dz_i) <= 0.
    """

    blocks: dict[int, np.ndarray]
    bias: np.ndarray
    activation: Activation | Normalisation
    alpha: np.ndarray
    beta: np.ndarray
    shared: bool = False
    name: str = ""

    @property
    def size(self) -> int:
        return len(self.bias)


@dataclass(frozen=True)
class Network:
    """inputs: n; layers in order; outputs: {state k: (K, size of state k)}; offset: (K,).

    input_shape: the shape the model expects for one sample. factor: what follows the output (1/2 after softmax).
    errors: {(layer index or L+1 for the output, state k): Frobenius bound on the rounding done while folding}.
    assumptions: sentences under which the slopes hold (normalisation layers on a region).
    """

    inputs: int
    layers: tuple[Layer, ...]
    outputs: dict[int, np.ndarray]
    offset: np.ndarray
    input_shape: tuple[int, ...] = ()
    factor: float = 1.0
    errors: dict[tuple[int, int], float] = field(default_factory=dict)
    assumptions: tuple[str, ...] = ()

    @property
    def classes(self) -> int:
        return len(self.offset)

    @property
    def hidden(self) -> int:
        return sum(layer.size for layer in self.layers)

    @property
    def weights(self) -> int:
        """Multiplications of one forward pass."""
        return sum(w.size for blocks in [*(x.blocks for x in self.layers), self.outputs] for w in blocks.values())

    @property
    def sizes(self) -> list[int]:
        """Size of every state: [n, N_1, ..., N_L]."""
        return [self.inputs, *(layer.size for layer in self.layers)]

    def states(self, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """(pre-activations per layer, states 0..L) for x of shape (B, n), float64."""
        states = [np.asarray(x, dtype=np.float64)]
        pre = []
        for layer in self.layers:
            z = layer.bias + sum(states[k] @ w.T for k, w in layer.blocks.items())
            pre.append(z)
            states.append(layer.activation.value(z))
        return pre, states

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Outputs before `factor`'s softmax, (B, K), for x of shape (B, n)."""
        _, states = self.states(x)
        return self.offset + sum(states[k] @ c.T for k, c in self.outputs.items())

    def allowance(self, x: np.ndarray) -> np.ndarray:
        """How far another way of computing the outputs in float64 may be away, (B, K), generously (1e-10 of all terms,
        carried through the layers)."""
        _, states = self.states(x)
        lost = [1e-10 * np.abs(states[0])]
        for layer, state in zip(self.layers, states[1:]):
            size = np.abs(layer.bias) + sum(np.abs(states[k]) @ np.abs(w).T for k, w in layer.blocks.items())
            before = sum(lost[k] @ np.abs(w).T for k, w in layer.blocks.items())
            steep = np.maximum(np.abs(layer.alpha), np.abs(layer.beta))
            lost.append(steep * (before + 1e-10 * size) + 1e-10 * np.abs(state) + layer.activation.blur)
        size = np.abs(self.offset) + sum(np.abs(states[k]) @ np.abs(c).T for k, c in self.outputs.items())
        return 1e-10 * size + sum(lost[k] @ np.abs(c).T for k, c in self.outputs.items())

    def rough(self) -> float:
        """A loose bound of the Lipschitz constant that costs one pass over the weights; inf or nan beyond float64."""
        gains = [1.0]
        for layer in self.layers:
            steep = float(np.maximum(np.abs(layer.alpha), np.abs(layer.beta)).max(initial=0.0))
            gains.append(steep * sum(float(np.linalg.norm(w)) * gains[k] for k, w in layer.blocks.items()))
        return sum(float(np.linalg.norm(c)) * gains[k] for k, c in self.outputs.items())

    def push(self, slopes: list, direction: np.ndarray) -> np.ndarray:
        """J v by forward differentiation: direction (B, n) -> (B, K), slopes from `slopes_at`."""
        tangent = [direction]
        for layer, slope in zip(self.layers, slopes):
            tangent.append(slope.push(sum(tangent[k] @ w.T for k, w in layer.blocks.items())))
        return sum(tangent[k] @ c.T for k, c in self.outputs.items())

    def pull(self, slopes: list, cotangent: np.ndarray) -> np.ndarray:
        """J' u by reverse differentiation: cotangent (B, K) -> (B, n)."""
        sizes = self.sizes
        grads = [np.zeros((len(cotangent), s)) for s in sizes]
        for k, c in self.outputs.items():
            grads[k] += cotangent @ c
        for index in range(len(self.layers), 0, -1):
            back = slopes[index - 1].pull(grads[index])
            for k, w in self.layers[index - 1].blocks.items():
                grads[k] += back @ w
        return grads[0]

    def slopes_at(self, x: np.ndarray) -> list:
        """Derivatives of every layer at x (B, n): objects with push and pull, both (B, N) -> (B, N)."""
        pre, _ = self.states(x)
        return [layer.activation.linearise(z) for layer, z in zip(self.layers, pre)]

    def with_slopes(self, bounds: list[tuple[np.ndarray, np.ndarray]]) -> Network:
        """The same network with other (alpha, beta) per layer."""
        layers = tuple(replace(layer, alpha=a, beta=b) for layer, (a, b) in zip(self.layers, bounds))
        return replace(self, layers=layers)


def dense(weights: list[np.ndarray], biases: list[np.ndarray] | None, activation: Activation) -> Network:
    """A plain chain W_L ... activation(W_1 x + b_1): weights (N_l, N_{l-1}), the last one is the output layer."""
    mats = [np.asarray(w, dtype=np.float64) for w in weights]
    if biases is None:
        biases = [np.zeros(len(w)) for w in mats]
    layers = []
    for index, (w, b) in enumerate(zip(mats[:-1], biases[:-1])):
        alpha, beta = activation.bounds(len(w))
        bias = np.asarray(b, dtype=np.float64)
        layers.append(Layer({index: w}, bias, activation, alpha, beta, name=f"layer {index + 1}"))
    offset = np.asarray(biases[-1], dtype=np.float64)
    return Network(mats[0].shape[1], tuple(layers), {len(layers): mats[-1]}, offset, (mats[0].shape[1],))
