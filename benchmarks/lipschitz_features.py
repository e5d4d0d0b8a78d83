"""What each tool does with small networks of every kind, tried: it bounds, refuses with a reason, or is wrong.

    python benchmarks/lipschitz_features.py > FILE

"wrong" means that a slope of the network, found here by autograd at a real input, is above the number given; a number
that is not called wrong is not thereby proven.
Regions, norms and certificates are tried the same way, by the tool's own call; a tool without one has no call to try.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch import nn

from benchmarks.lipschitz_nets import STAGES, WIDTH, Act, Branch, Case
from benchmarks.lipschitz_others import READERS, why_not
from benchmarks.lipschitz_slopes import Place, by_autograd


def _chain(*middle: nn.Module, steep: float = 3.0) -> nn.Module:
    net = nn.Sequential(nn.Linear(4, WIDTH), *middle, nn.Linear(WIDTH, 3))
    with torch.no_grad():
        for weight in net.parameters():
            weight *= steep
    return net


def _staged(name: str) -> nn.Module:
    stage = STAGES[name](np.random.default_rng(0)).eval()
    width = stage(torch.zeros(2, WIDTH)).shape[1]
    return nn.Sequential(nn.Linear(4, WIDTH), stage, nn.Linear(width, 3))


FEATURES: dict[str, Callable[[], nn.Module]] = {
    "ReLU": lambda: _chain(nn.ReLU()),
    "3 layers of ReLU": lambda: _chain(nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)),
    "tanh": lambda: _chain(nn.Tanh()),
    "sigmoid": lambda: _chain(nn.Sigmoid()),
    "leaky ReLU, slope -2": lambda: _chain(nn.LeakyReLU(-2.0)),
    "GELU": lambda: _chain(nn.GELU(), steep=0.6),
    "SELU": lambda: _chain(nn.SELU()),
    "PReLU, slope 3": lambda: _chain(nn.PReLU(WIDTH, init=3.0)),
    "activation as a function": lambda: _chain(Act("leaky 4")),
    "swish by hand": lambda: _chain(Act("swish 3")),
    "no bias": lambda: nn.Sequential(nn.Linear(4, WIDTH, bias=False), nn.ReLU(), nn.Linear(WIDTH, 3)),
    "residual x + f(x)": lambda: _chain(Branch(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()), torch.add)),
    "scaled skip": lambda: _staged("scaled skip"),
    "BatchNorm": lambda: _staged("batch norm"),
    "convolution and pooling": lambda: _staged("conv"),
    "max pooling": lambda: _staged("max pool"),
    "LayerNorm": lambda: _staged("layer norm"),
    "GroupNorm": lambda: _staged("group norm"),
    "attention": lambda: _staged("attention"),
    "final softmax": lambda: nn.Sequential(*_chain(nn.ReLU()), nn.Softmax(1)),
    "steep forward of its own": lambda: _chain(Act("relu"), _Steep()),
    "scales 1e60, 1e-60": lambda: _scaled(1e60),
}


class _Steep(nn.Module):
    def forward(self, h: torch.Tensor) -> torch.Tensor:
        return 9 * h


def _scaled(factor: float) -> nn.Module:
    net = _chain(nn.ReLU()).double()
    with torch.no_grad():
        net[0].weight *= factor
        net[2].weight /= factor
    return net


# What `lipschitz` alone has a call for: name -> options.
OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "region: l2 ball": lambda: {"region": _regions().Ball(np.zeros(4), 0.1)},
    "region: box": lambda: {"region": _regions().Box(-np.ones(4), np.ones(4))},
    "region: data": lambda: {"region": _regions().Data(np.ones((2, 4)))},
    "norm of the input: l-infinity": lambda: {"norm": "inf"},
    "exact constant of one hidden layer": lambda: {"method": "exact"},
}


def _regions() -> Any:
    import stabilitykit_lipschitz

    return stabilitykit_lipschitz


def steepest(net: nn.Module) -> float:
    """The largest Jacobian norm found at real inputs."""
    rng = np.random.default_rng(0)
    anywhere = Place(
        "whole space", None, lambda n: 10.0 ** rng.uniform(-1, 2, (n, 1)) * rng.standard_normal((n, 4)), _id
    )
    return float(by_autograd(Case("", net, (4,), ""), anywhere, False, rng, []).value)


def _id(x: np.ndarray) -> np.ndarray:
    return x


def outcome(reader: Callable[[nn.Module, tuple[int, ...]], float], net: nn.Module, slope: float) -> str:
    try:
        value = reader(net, (4,))
    except Exception as error:
        return f"refuses: {type(error).__name__}: {' '.join(str(error).split())[:60]}".replace("|", "/")
    if not value >= slope * (1 - 1e-6):
        return f"**wrong**: {value:.4g}"
    return f"{value:.5g}"


def main() -> None:
    warnings.filterwarnings("ignore")
    missing = {name: why_not(package) for name, (package, _) in READERS.items()}
    for name, reason in missing.items():
        if reason:
            print(f"{name} was not tried, it does not import: {reason}.\n")
    tools = {name: read for name, (_, read) in READERS.items() if not missing[name]}
    print("| network | slope found | " + " | ".join(tools) + " |\n|" + "---|" * (len(tools) + 2))
    for name, make in FEATURES.items():
        torch.manual_seed(0)
        net = make().eval()
        slope = steepest(net)
        print(
            f"| {name} | {slope:.5g} | " + " | ".join(outcome(r, net, slope) for r in tools.values()) + " |", flush=True
        )
    torch.manual_seed(0)
    net = FEATURES["ReLU"]()
    print("\n| of ours | on the network ReLU |\n|---|---|")
    ours = READERS["ours"][1]
    for name, options in OPTIONS.items():
        print(f"| {name} | {outcome(lambda n, s, o=options: ours(n, s, **o()), net, 0.0)} |", flush=True)
    from stabilitykit_lipschitz import lipschitz, verify

    found = lipschitz(net)
    again = verify(net, found.multipliers, found.rho)
    print(f"| certificate, checked from multipliers alone | {again:.5g} |")


if __name__ == "__main__":
    main()
