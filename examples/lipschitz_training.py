"""Train a small network on the embedded digits with and without a penalty on its certified Lipschitz constant.

Run: python examples/lipschitz_training.py [--epochs 25] [--seeds 3] [--weights 0 0.01 0.03 0.1]

Per weight of the penalty, over the seeds: accuracy on held-out digits, the certified constant (an upper bound), and the
share of held-out digits that are classified rightly whatever l2 error of at most --radius is added to the picture
(pixels in [0, 1]; proven, a lower bound): all whose margin is above sqrt(2) * constant * radius.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from sklearn.datasets import load_digits
from stabilitykit_lipschitz import Penalty, lipschitz
from torch import nn


def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """1,347 training and 450 held-out pictures (N, 64) in [0, 1], and their classes."""
    pixels, classes = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(classes)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    return x[order[450:]], y[order[450:]], x[order[:450]], y[order[:450]]


def train(x: torch.Tensor, y: torch.Tensor, weight: float, seed: int, epochs: int) -> nn.Module:
    """Adam on cross-entropy + weight * (certified bound of the constant), batches of 128."""
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 10))
    bound = Penalty(net, tol=1e-2)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(128):
            loss = nn.functional.cross_entropy(net(x[batch]), y[batch])
            if weight:
                loss = loss + weight * bound()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return net


def measure(net: nn.Module, x: torch.Tensor, y: torch.Tensor, radius: float) -> tuple[float, float, float]:
    """(accuracy in percent, certified constant, percent of pictures proven right within ``radius``)."""
    constant = lipschitz(net, search_seconds=0.1).upper
    with torch.no_grad():
        logits = net(x).double()
    right = logits.gather(1, y[:, None])[:, 0]
    other = logits.scatter(1, y[:, None], -torch.inf).max(1).values
    margin = (right - other).numpy()
    return 100 * float((margin > 0).mean()), constant, 100 * float((margin > 2**0.5 * constant * radius).mean())


def main(arguments: list[str] | None = None) -> list[tuple[float, np.ndarray]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 0.01, 0.03, 0.1])
    parser.add_argument("--radius", type=float, default=0.3)
    args = parser.parse_args(arguments)
    x, y, held_x, held_y = digits()
    print(f"mean and range over {args.seeds} seeds; {len(held_x)} held-out digits, radius {args.radius:g}\n")
    print("| weight | accuracy, % | certified constant | proven within the radius, % | cpu s a training |")
    print("|---|---|---|---|---|")
    rows = []
    for weight in args.weights:
        began = time.process_time()
        nets = [train(x, y, weight, seed, args.epochs) for seed in range(args.seeds)]
        spent = (time.process_time() - began) / args.seeds
        found = np.array([measure(net, held_x, held_y, args.radius) for net in nets])
        cells = [f"{v.mean():.3g} ({v.min():.3g} to {v.max():.3g})" for v in found.T]
        print(f"| {weight:g} | " + " | ".join(cells) + f" | {spent:.2g} |", flush=True)
        rows.append((weight, found))
    return rows


if __name__ == "__main__":
    main()
