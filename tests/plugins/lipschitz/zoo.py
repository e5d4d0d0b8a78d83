"""Small torch networks of every kind: layers, functional forms, wrappers, hooks, patched forwards, some that lie."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

WIDTH, INPUTS = 6, 4


class Between(nn.Module):
    """Linear, then ``act(self, h)``, then Linear; keyword arguments become attributes."""

    def __init__(self, act: Callable[[Any, torch.Tensor], torch.Tensor], **attributes: Any) -> None:
        super().__init__()
        self.a, self.b, self.act = nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, 3), act
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.act(self, self.a(x)))


def chain(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(INPUTS, WIDTH), *(middle or (nn.ReLU(),)), nn.Linear(WIDTH, 3))


class ReLU(nn.Module):
    """Named like torch's, nine times as steep."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 9 * torch.relu(x)


class Dropout(nn.Dropout):
    """A subclass of torch's that acts in eval mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x.tanh()


class Identity(nn.Identity):
    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return -3 * x


class Steep(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 5 * super().forward(x)


class Twice(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


class Swish(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.beta = nn.Parameter(torch.tensor(4.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.beta * x * torch.sigmoid(self.beta * x)


class Flag(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.relu() if self.training else 3 * x.relu()


class Gain(nn.Module):
    """A parametrisation."""

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return 4 * w


def _in_place(self: Any, h: torch.Tensor) -> torch.Tensor:
    F.leaky_relu_(h, 4.0)
    return h


def _in_place_on_views(self: Any, h: torch.Tensor) -> torch.Tensor:
    h[:, ::2].mul_(-5.0)
    h.view(-1, 2, 3)[:, 1].add_(h[:, :3])
    h[:, 0] = 1.0
    return h.clone().relu_()


def _tokens(self: Any, h: torch.Tensor) -> torch.Tensor:
    return F.gelu(F.linear(h.view(-1, 2, 3), self.w[:3, :3])).flatten(1)


def _sequence_first(self: Any, h: torch.Tensor) -> torch.Tensor:
    tokens = F.linear(h.view(-1, 2, 3).transpose(0, 1), self.w[:3, :3], self.w[0, :3])
    return F.gelu(tokens).transpose(0, 1).flatten(1)


def _hooked(kind: str) -> nn.Module:
    net = chain()
    if kind == "forward":
        net[0].register_forward_hook(lambda m, i, o: 7 * o)
    elif kind == "pre":
        net[2].register_forward_pre_hook(lambda m, i: (5 * i[0],))
    elif kind == "inner":
        net[1].register_forward_hook(lambda m, i, o: o + 2 * i[0])
    else:
        first = net[0]
        net[1].register_forward_hook(lambda m, i, o: o * first.weight.abs().sum())
    return net


def _patched(kind: str) -> nn.Module:
    net = chain(nn.Dropout(0.9), nn.ReLU())
    if kind == "method":
        net.forward = types.MethodType(lambda self, x: 3 * nn.Sequential.forward(self, x), net)
    elif kind == "closure":
        old = net.forward
        net.forward = lambda x: 3 * old(x)
    else:
        net[2].forward = lambda x: F.leaky_relu(x, 5.0)
    return net


def _stale() -> nn.Module:
    a, b = (nn.Sequential(nn.utils.weight_norm(nn.Linear(INPUTS, 8)), nn.ReLU(), nn.Linear(8, 3)) for _ in range(2))
    a[0].weight_g.data *= 20
    b.load_state_dict(a.state_dict())
    return b


def _with(change: Callable[[nn.Linear], Any]) -> nn.Module:
    net = chain()
    change(net[0])
    return net


def _shared() -> nn.Module:
    layer = nn.Linear(INPUTS, INPUTS)
    return nn.Sequential(layer, nn.ReLU(), layer, nn.Tanh(), layer)


def _calibrated(affine: bool) -> nn.Module:
    norm = nn.BatchNorm1d(WIDTH, affine=affine)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.1, 2)
    return chain(norm, nn.SiLU())


W = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0))
ACTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    **{
        name: getattr(F, name)
        for name in (
            *("relu", "gelu", "silu", "mish", "selu", "elu", "celu", "softplus", "softsign", "tanhshrink", "rrelu"),
            *(
                "logsigmoid",
                "hardswish",
                "hardsigmoid",
                "hardtanh",
                "relu6",
                "leaky_relu",
                "softshrink",
                "tanh",
                "sigmoid",
            ),
        )
    },
    "leaky 4": lambda h: F.leaky_relu(h, 4.0),
    "leaky -2": lambda h: F.leaky_relu(h, -2.0),
    "elu 3": lambda h: F.elu(h, 3.0),
    "elu -2": lambda h: F.elu(h, -2.0),
    "celu 0.2": lambda h: F.celu(h, 0.2),
    "gelu tanh": lambda h: F.gelu(h, approximate="tanh"),
    "softplus 3": lambda h: F.softplus(h, 3.0),
    "threshold": lambda h: F.threshold(h, 0.3, 0.3),
    "clamp": lambda h: h.clamp(-1, 2) + h.clamp(min=0) - h.clamp_max(1),
    "hardtanh wide": lambda h: F.hardtanh(h, -0.2, 5.0),
    "abs": torch.abs,
    "swish": lambda h: h * torch.sigmoid(h),
    "quick": lambda h: h * torch.sigmoid(1.702 * h),
    "prelu": lambda h: F.prelu(h, torch.linspace(-2, 2, WIDTH).to(h.dtype)),
}
# The nets below must be read exactly: what torch computes in eval mode is what is bounded.
READ: dict[str, Callable[[], nn.Module]] = {
    **{f"F.{name}": (lambda act=act: Between(lambda self, h: act(h))) for name, act in ACTS.items()},
    "own ReLU": lambda: chain(ReLU()),
    "own Dropout": lambda: chain(Dropout()),
    "own Identity": lambda: chain(Identity()),
    "own Swish": lambda: chain(Swish()),
    "own Linear": lambda: chain(Steep(WIDTH, WIDTH), nn.ReLU()),
    "own Sequential": lambda: Twice(*chain()),
    "train-mode branch": lambda: chain(Flag()),
    "Dropout": lambda: chain(nn.Dropout(0.7), nn.AlphaDropout(0.5), nn.ReLU()),
    "PReLU": lambda: chain(nn.PReLU(WIDTH, init=3.0)),
    "RReLU": lambda: chain(nn.RReLU(0.5, 2.0)),
    "BatchNorm": lambda: _calibrated(True),
    "BatchNorm without weights": lambda: _calibrated(False),
    "tied": _shared,
    "in place": lambda: Between(_in_place),
    "in place on views": lambda: Between(_in_place_on_views),
    **{f"{kind} hook": (lambda kind=kind: _hooked(kind)) for kind in ("forward", "pre", "inner", "closure")},
    **{f"patched {kind}": (lambda kind=kind: _patched(kind)) for kind in ("method", "closure", "inner")},
    "stale weight_norm": _stale,
    "weight_norm": lambda: _with(parametrizations.weight_norm),
    "spectral_norm": lambda: _with(parametrizations.spectral_norm),
    "old spectral_norm": lambda: _with(nn.utils.spectral_norm),
    "pruned": lambda: _with(lambda layer: prune.l1_unstructured(layer, "weight", 0.5)),
    "parametrised": lambda: _with(lambda layer: nn.utils.parametrize.register_parametrization(layer, "weight", Gain())),
    "x + f(x)": lambda: Between(lambda self, h: torch.relu(h + F.linear(h, self.w)), w=nn.Parameter(W.float())),
    "scaled skip": lambda: Between(lambda self, h: torch.add(h, h.tanh(), alpha=-2.5) - torch.sub(1.0, h, alpha=3)),
    "matrices": lambda: Between(
        lambda self, h: (self.w @ h.t()).t() + h @ self.w + (h @ self.w[0])[:, None], w=nn.Parameter(W.float())
    ),
    "einsum": lambda: Between(lambda self, h: torch.einsum("bn,mn->bm", h, self.w).relu(), w=nn.Parameter(W.float())),
    "tokens": lambda: Between(_tokens, w=nn.Parameter(W.float())),
    "sequence first": lambda: Between(_sequence_first, w=nn.Parameter(W.float())),
    "cat": lambda: Between(lambda self, h: torch.cat([h[:, :3].relu(), h.new_ones(len(h), 1), h[:, 4:]], 1)),
    "pad": lambda: Between(lambda self, h: F.pad(h[:, :4].tanh(), (1, 1), value=2.0)),
    "moved": lambda: Between(lambda self, h: h.flip(1).roll(2, 1)[:, [3, 2, 1, 0, 4, 5]].relu()),
    "mean": lambda: Between(lambda self, h: (h - h.mean(1, keepdim=True)).relu()),
    "conv": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)),
        nn.Conv2d(1, 3, 2, padding=1),
        nn.SELU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(3, 2),
    ),
    "scripted": lambda: torch.jit.script(chain()),
    "half": lambda: chain().half(),
    "checkpointed": lambda: Between(lambda self, h: torch.utils.checkpoint.checkpoint(F.relu, h, use_reentrant=False)),
}


def _trying(h: torch.Tensor) -> torch.Tensor:
    try:
        return 100 * h if float(h.max()) > 1e9 else h
    except Exception:
        return h


def _trying_numpy(h: torch.Tensor) -> torch.Tensor:
    try:
        return 100 * h if h.detach().numpy().max() > 1e9 else h
    except Exception:
        return h


def _counted(self: Any, h: torch.Tensor) -> torch.Tensor:
    self.calls = getattr(self, "calls", 0) + 1
    return h * self.calls


def _counted_buffer(self: Any, h: torch.Tensor) -> torch.Tensor:
    self.calls.add_(1)
    return h * (self.calls > 100).double()


class Sevenfold(torch.Tensor):
    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs or {})
        return result * 7 if func is F.linear else result


def _weighted_by(kind: type[torch.Tensor]) -> nn.Module:
    net = chain()
    net[0].weight = nn.Parameter(net[0].weight.data.as_subclass(kind))
    return net


def _backward_hook() -> nn.Module:
    net = chain()
    net[1].register_full_backward_hook(lambda m, gi, go: tuple(7 * g for g in gi))
    return net


def _act(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], nn.Module]:
    return lambda: Between(lambda self, h: function(h))


# These must be refused: (network, a word of the reason).
REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "branch on values": (_act(lambda h: h if h[0, 0] > 1e9 else 3 * h), "decides by values"),
    "branch on item": (_act(lambda h: h if h[0, 0].item() > 1e9 else 3 * h), "decides by values"),
    "branch in try": (_act(_trying), "no Lipschitz rule"),
    "numpy in try": (_act(_trying_numpy), "reads numbers"),
    "tolist": (_act(lambda h: torch.tensor(h.tolist())), "reads numbers"),
    "where": (_act(lambda h: torch.where(h > 50, 9 * h, h)), "decides by values"),
    "product": (_act(lambda h: h * h.tanh()), "multiplies two tensors"),
    "division": (_act(lambda h: h / (1 + h.sigmoid())), "divides"),
    "maximum": (_act(lambda h: torch.maximum(h, -h)), "no Lipschitz rule"),
    "round": (_act(torch.round), "no Lipschitz rule"),
    "half precision inside": (_act(lambda h: h.half().double()), "step function"),
    "torch noise": (_act(lambda h: h * torch.rand(1)), "random"),
    "numpy noise": (_act(lambda h: h * np.random.rand()), "does not compute"),
    "dropout in eval mode": (_act(F.dropout), "random"),
    "batch mean": (_act(lambda h: h - h.mean(0, keepdim=True)), "samples of a batch"),
    "batch flip": (_act(lambda h: h + h.flip(0)), "samples of a batch"),
    "batch size": (_act(lambda h: 3 * h if len(h) == 1 else h), "does not compute"),
    "BatchNorm without statistics": (lambda: chain(nn.BatchNorm1d(WIDTH, track_running_stats=False)), "whole batch"),
    "counter": (lambda: Between(_counted), "does not compute"),
    "counting buffer": (lambda: Between(_counted_buffer, calls=torch.zeros(())), "outlives"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(WIDTH), nn.Linear(WIDTH, 3)), "lazy"),
    "tensor subclass": (lambda: _weighted_by(Sevenfold), "Sevenfold"),
    "complex": (lambda: nn.Linear(INPUTS, 2, dtype=torch.complex64), "complex64"),
    "meta": (lambda: nn.Linear(INPUTS, 2, device="meta"), "meta"),
    "backward hook": (_backward_hook, "gradients"),
    "two outputs": (lambda: Pair(), "expected one tensor"),
}


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(INPUTS, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.a(x), x


# No finite constant: the bound is infinite, with the reason.
STEEP: dict[str, Callable[[], nn.Module]] = {
    "softplus that jumps": _act(lambda h: F.softplus(h, 1.0, 1.0)),
    "threshold that jumps": _act(lambda h: F.threshold(h, 0.0, 1.0)),
    "celu below zero": _act(lambda h: F.celu(h, -1.0)),
}


def assemble(seed: int) -> nn.Module:
    """A random network of one to three random stages, some wrapped, hooked, patched or in train mode."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    names = [name for name in READ if name not in ("half", "scripted")]
    stages: list[nn.Module] = []
    for _ in range(int(rng.integers(1, 4))):
        kind = rng.integers(0, 8)
        act = list(ACTS.values())[rng.integers(len(ACTS))]
        stage = READ[names[rng.integers(len(names))]]() if kind < 4 else Between(lambda self, h, act=act: act(h))
        for weight in stage.parameters():
            weight.data *= float(10.0 ** rng.uniform(-0.7, 0.7))
        gain = float(rng.uniform(-4, 4))
        if kind == 5:
            stage.register_forward_hook(lambda m, i, o, gain=gain: gain * o)
        elif kind == 6:
            stage = Twice(stage)
        elif kind == 7:
            stage = nn.Sequential(stage, nn.Dropout(), ReLU())
        with torch.no_grad():
            width = stage.eval()(torch.zeros(2, INPUTS)).shape[1]
        stage.train()
        stages += [stage, nn.Linear(width, INPUTS)]
    return nn.Sequential(*stages[:-1])
