"""Random torch networks for ``lipschitz_fuzz.py``. A new layer kind is one entry of STAGES, an activation one of ACTS.

``wired`` nets (chains with skips, weights of any scale) can also be evaluated by mpmath, beyond float64's range and
digits; ``staged`` nets are made of every kind of layer and are evaluated by torch in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath as mp
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

Rng = np.random.Generator


def _logistic(z: Any) -> Any:
    return 1 / (1 + mp.exp(-z)) if abs(z) < 2000 else mp.mpf(z > 0)


def _softplus(z: Any) -> Any:
    return mp.log1p(mp.exp(z)) if abs(z) < 2000 else max(z, mp.mpf(0))


def _exponential(z: Any) -> Any:
    return mp.expm1(z) if z > -2000 else mp.mpf(-1)


def _tanh(z: Any) -> Any:
    return mp.tanh(z) if abs(z) < 2000 else mp.sign(z)


def _normal(z: Any) -> Any:
    return mp.ncdf(z) if abs(z) < 60 else mp.mpf(z > 0)


def _clip(z: Any, low: float, high: float) -> Any:
    return min(max(z, mp.mpf(low)), mp.mpf(high))


SELU_A, SELU_S = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
GELU_K = float(np.sqrt(2 / np.pi))
# name: (torch's, mpmath's), both R -> R.
ACTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "identity": (lambda h: h, lambda z: z),
    "relu": (torch.relu, lambda z: max(z, mp.mpf(0))),
    "leaky": (F.leaky_relu, lambda z: z if z > 0 else mp.mpf(0.01) * z),
    "leaky 4": (lambda h: F.leaky_relu(h, 4.0), lambda z: z if z > 0 else 4 * z),
    "leaky -2": (lambda h: F.leaky_relu(h, -2.0), lambda z: z if z > 0 else -2 * z),
    "abs": (torch.abs, abs),
    "tanh": (torch.tanh, _tanh),
    "sigmoid": (torch.sigmoid, _logistic),
    "gelu": (F.gelu, lambda z: z * _normal(z)),
    "gelu tanh": (
        lambda h: F.gelu(h, approximate="tanh"),
        lambda z: z * (1 + _tanh(mp.mpf(GELU_K) * (z + mp.mpf(0.044715) * z**3))) / 2,
    ),
    "silu": (F.silu, lambda z: z * _logistic(z)),
    "mish": (F.mish, lambda z: z * _tanh(_softplus(z))),
    "elu": (F.elu, lambda z: z if z > 0 else _exponential(z)),
    "elu 3": (lambda h: F.elu(h, 3.0), lambda z: z if z > 0 else 3 * _exponential(z)),
    "celu 0.2": (lambda h: F.celu(h, 0.2), lambda z: z if z > 0 else mp.mpf(0.2) * _exponential(z / mp.mpf(0.2))),
    "selu": (F.selu, lambda z: mp.mpf(SELU_S) * (z if z > 0 else mp.mpf(SELU_A) * _exponential(z))),
    "softplus": (F.softplus, _softplus),
    "logsigmoid": (F.logsigmoid, lambda z: -_softplus(-z)),
    "softsign": (F.softsign, lambda z: z / (1 + abs(z))),
    "tanhshrink": (F.tanhshrink, lambda z: z - _tanh(z)),
    "softshrink": (F.softshrink, lambda z: mp.sign(z) * max(abs(z) - mp.mpf(0.5), mp.mpf(0))),
    "hardtanh": (F.hardtanh, lambda z: _clip(z, -1, 1)),
    "relu6": (F.relu6, lambda z: _clip(z, 0, 6)),
    "hardsigmoid": (F.hardsigmoid, lambda z: _clip(z / 6 + mp.mpf(0.5), 0, 1)),
    "hardswish": (F.hardswish, lambda z: z * _clip(z + 3, 0, 6) / 6),
    "threshold": (lambda h: F.threshold(h, 0.3, 0.3), lambda z: max(z, mp.mpf(0.3))),
    "swish 3": (lambda h: h * torch.sigmoid(3.0 * h), lambda z: z * _logistic(3 * z)),
}


class Act(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return ACTS[self.name][0](h)


@dataclass
class Case:
    """One network. shape: of one sample. typical: size of inputs at which something happens. only: depths of
    float64 do not matter where ``exactly`` is given: mpmath numbers (n,) -> (K,)."""

    family: str
    module: nn.Module
    shape: tuple[int, ...]
    text: str
    typical: float = 1.0
    exactly: Callable[[list[Any]], list[Any]] | None = None

    @property
    def inputs(self) -> int:
        return int(np.prod(self.shape))


class Wired(nn.Module):
    """State l is act(sum over earlier states k of W_lk y_k + b); the last one is the output, without activation."""

    def __init__(self, layers: list[tuple[dict[int, torch.Tensor], torch.Tensor, str]]) -> None:
        super().__init__()
        self.weights = nn.ParameterDict({f"{l}_{k}": w for l, (ws, _, _) in enumerate(layers) for k, w in ws.items()})
        self.biases = nn.ParameterList([b for _, b, _ in layers])
        self.plan = [(sorted(ws), act) for ws, _, act in layers]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        states = [x]
        for l, (reads, act) in enumerate(self.plan):
            z = self.biases[l] + sum(F.linear(states[k], self.weights[f"{l}_{k}"]) for k in reads)
            states.append(ACTS[act][0](z))
        return states[-1]

    def exactly(self, x: list[Any]) -> list[Any]:
        states = [x]
        for l, (reads, act) in enumerate(self.plan):
            z = [mp.mpf(b) for b in self.biases[l].tolist()]
            for k in reads:
                for i, row in enumerate(self.weights[f"{l}_{k}"].tolist()):
                    z[i] += mp.fdot((w, s) for w, s in zip(map(mp.mpf, row), states[k]) if w)
            states.append([ACTS[act][1](v) for v in z])
        return states[-1]


def _weights(rng: Rng, rows: int, columns: int) -> np.ndarray:
    w = rng.standard_normal((rows, columns)) / np.sqrt(columns)
    style = rng.integers(0, 10)
    if style == 0:
        w *= rng.random(w.shape) < 0.3
    elif style == 1:
        w *= 10.0 ** rng.uniform(-4, 4, (rows, 1))
    elif style == 2:
        w[rng.random(rows) < 0.4] = 0.0
        w[:, rng.random(columns) < 0.4] = 0.0
    elif style == 3:
        w = np.outer(rng.standard_normal(rows), rng.standard_normal(columns))
    elif style == 4 and rows > 1:
        w[1] = w[0]
    elif style == 5:
        w = np.abs(w)
    return w


def wired(rng: Rng) -> Case:
    """0 to 4 hidden layers of 1 to 8 neurons, skips in a third; half of them with scales between 1e-150 and 1e150."""
    depth, extreme, skips = int(rng.integers(0, 5)), rng.random() < 0.5, rng.random() < 0.35
    sizes = [int(s) for s in rng.integers(1, rng.choice([3, 9]), depth + 1)] + [int(rng.integers(1, 5))]
    names = list(ACTS)
    one = str(rng.choice(names)) if rng.random() < 0.5 else ""
    layers: list[Any] = []
    exponents = rng.uniform(-150, 150, depth + 1) if extreme else rng.uniform(-2, 2, depth + 1) * (rng.random() < 0.5)
    if extreme and rng.random() < 0.7:  # scales that cancel along the chain: the constant is of middling size
        exponents[1:] = np.where(np.arange(depth) % 2 == 0, -exponents[0], exponents[0])
    for l in range(depth + 1):
        reads = [l] + [k for k in range(l) if skips and rng.random() < 0.5]
        scale = 10.0 ** exponents[l]
        ws = {k: torch.from_numpy(_weights(rng, sizes[l + 1], sizes[k]) * scale) for k in reads}
        bias = rng.standard_normal(sizes[l + 1]) * float(rng.choice([0.0, 0.3, 3.0]))
        layers.append((ws, torch.from_numpy(bias), "identity" if l == depth else one or str(rng.choice(names))))
    if not extreme and rng.random() < 0.5:
        layers = [({k: w.float().double() for k, w in ws.items()}, b.float().double(), a) for ws, b, a in layers]
    net = Wired(layers)
    text = f"sizes {sizes}, acts {[a for _, _, a in layers[:-1]]}, scales 1e{[round(float(e)) for e in exponents]}"
    return Case("wired", net, (sizes[0],), text, 10.0 ** -float(np.clip(exponents[0], -150, 150)), net.exactly)


class Branch(nn.Module):
    """combine(h, body(h))."""

    def __init__(self, body: nn.Module, combine: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.body, self.combine = body, combine

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.combine(h, self.body(h))


class Apply(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.function(h)


class Weighted(nn.Module):
    """function(h, w)."""

    def __init__(self, w: torch.Tensor, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.w, self.function = nn.Parameter(w), function

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return self.function(h, self.w)


class Attention(nn.Module):
    """One head of softmax attention over tokens of 3 coordinates, width 6 = two tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(3, 3)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        t = h.view(-1, 2, 3)
        return F.scaled_dot_product_attention(self.q(t), self.k(t), self.v(t)).flatten(1)


def _calibrated(norm: Any) -> nn.Module:
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.1, 2)
    nn.init.normal_(norm.weight)
    return norm


WIDTH = 6


def _image(*layers: nn.Module) -> nn.Module:
    """Layers on maps of shape (1, 2, 3)."""
    return nn.Sequential(nn.Unflatten(1, (1, 2, 3)), *layers, nn.Flatten())


def _mlp(rng: Rng) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 5), Act(str(rng.choice(list(ACTS)))), nn.Linear(5, WIDTH))


# Every stage maps (B, 6) to (B, any).
STAGES: dict[str, Callable[[Rng], nn.Module]] = {
    "mlp": _mlp,
    "activation": lambda rng: Act(str(rng.choice(list(ACTS)))),
    "residual": lambda rng: Branch(_mlp(rng), torch.add),
    "scaled skip": lambda rng: Branch(_mlp(rng), lambda h, f: torch.add(f, h, alpha=-2.5)),
    "concatenation": lambda rng: Branch(_mlp(rng), lambda h, f: torch.cat([h[:, 3:], f, h.new_ones(len(h), 1)], 1)),
    "batch norm": lambda rng: _calibrated(nn.BatchNorm1d(WIDTH)),
    "layer norm": lambda rng: nn.LayerNorm(WIDTH),
    "rms norm": lambda rng: nn.RMSNorm(WIDTH, eps=0.1),
    "group norm": lambda rng: nn.GroupNorm(2, WIDTH),
    "instance norm": lambda rng: _image(nn.Conv2d(1, 2, 1), nn.InstanceNorm2d(2, affine=True)),
    "conv": lambda rng: _image(nn.Conv2d(1, 2, 2, padding=1), Act(str(rng.choice(list(ACTS)))), nn.AvgPool2d(2)),
    "conv stride": lambda rng: _image(nn.Conv2d(1, 3, (1, 2), stride=(1, 2)), Act("relu")),
    "conv batch norm": lambda rng: _image(nn.Conv2d(1, 2, 3, padding=1), _calibrated(nn.BatchNorm2d(2)), Act("silu")),
    "functional conv": lambda rng: Weighted(
        torch.randn(2, 1, 2, 2), lambda h, w: F.conv2d(h.view(-1, 1, 2, 3), w).flatten(1).relu()
    ),
    "average pool": lambda rng: _image(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d((1, 2))),
    "max pool": lambda rng: _image(nn.Conv2d(1, 2, 2, padding=1), nn.MaxPool2d(2)),
    "overlapping max pool": lambda rng: _image(nn.MaxPool2d((1, 2), stride=1)),
    "prelu": lambda rng: nn.Sequential(nn.PReLU(WIDTH, init=float(rng.uniform(-2, 3))), nn.Linear(WIDTH, 4)),
    "clamp": lambda rng: Apply(lambda h: h.clamp(-1, 2) + h.clamp(min=0.5) - h.clamp_max(1)),
    "matrix": lambda rng: Weighted(torch.randn(WIDTH, 4), torch.matmul),
    "centred": lambda rng: Apply(lambda h: (h - h.mean(1, keepdim=True)).relu()),
    "moved": lambda rng: Apply(lambda h: h.flip(1).roll(2, 1)[:, [3, 2, 1, 0, 4, 4]].tanh()),
    "padded": lambda rng: Apply(lambda h: F.pad(h[:, :4].tanh(), (1, 1), value=2.0)),
    "attention": lambda rng: Attention(),
}
LAST: dict[str, Callable[[], nn.Module]] = {"softmax": lambda: nn.Softmax(1), "log softmax": lambda: nn.LogSoftmax(1)}


def staged(rng: Rng) -> Case:
    """One to three stages of any kind with linear layers between, weights scaled by up to 1e3; sometimes a softmax."""
    torch.manual_seed(int(rng.integers(2**31)))
    names = [str(n) for n in rng.choice(list(STAGES), int(rng.integers(1, 4)))]
    parts: list[nn.Module] = [nn.Linear(4, WIDTH)] if rng.random() < 0.7 else []
    shape = (4,) if parts else (WIDTH,)
    for name in names:
        stage = STAGES[name](rng).eval()
        with torch.no_grad():
            width = stage(torch.randn(2, WIDTH)).shape[1]
        parts += [stage, nn.Linear(width, WIDTH)]
    parts[-1] = nn.Linear(width, int(rng.integers(1, 5)))
    if rng.random() < 0.15:
        names.append(str(rng.choice(list(LAST))))
        parts.append(LAST[names[-1]]())
    net = nn.Sequential(*parts).eval()
    for weight in net.parameters():
        weight.data *= float(10.0 ** rng.uniform(-1, 1)) * (1e3 if rng.random() < 0.05 else 1.0)
    text = " -> ".join(names) + f", inputs {shape[0]}"
    return Case("staged", net if rng.random() < 0.5 else net.double(), shape, text)


FAMILIES: dict[str, Callable[[Rng], Case]] = {"wired": wired, "staged": staged}
