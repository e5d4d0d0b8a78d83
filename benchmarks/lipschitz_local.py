"""Local Lipschitz bounds beside eclipse-nn and cvxpy, and beside the slopes that sampling finds, in one run.

    python benchmarks/lipschitz_local.py [--only NAME] [--images N] [--out FILE]

Networks are fitted to Gaussian clusters; regions are l2 balls about test inputs. Every method gets the same balls of a
network in one process with one BLAS thread; times are processor seconds per ball, that of ours with reading the network
and its global bound shared out over the balls. Bounds are the mean over the balls. `realised` is the largest Jacobian
norm found in the ball by 200 samples and by our search (a lower bound of the truth). eclipse-nn (Acc, Fast and CF,
with the network's weights and biases) computes in float64 without accounting for rounding; `below` counts the balls
on which its value is below a realised slope; `-`: not run, for its activations, its size or because the package is not
installed. cvxpy solves our own matrix inequality of the region, certified by us.
`slope widths` is the mean width of the slope intervals from the second layer on, relative to what interval arithmetic
and norm products leave (without affine forms).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import math
import time
import warnings
from pathlib import Path
from typing import Any

NETS = {
    "relu 8-16-16-4": ([8, 16, 16, 4], "relu"),
    "tanh 8-16-16-4": ([8, 16, 16, 4], "tanh"),
    "relu 64-100-100-10": ([64, 100, 100, 10], "relu"),
    "tanh 64-100-100-10": ([64, 100, 100, 10], "tanh"),
    "silu 64-100-100-10": ([64, 100, 100, 10], "silu"),
    "sigmoid 64-100-100-10": ([64, 100, 100, 10], "sigmoid"),
    "elu 64-64x4-10": ([64, 64, 64, 64, 64, 10], "elu"),
    "gelu 64-100-100-10": ([64, 100, 100, 10], "gelu"),
    "relu 784-256-128-10": ([784, 256, 128, 10], "relu"),
    "tanh 784-256-128-10": ([784, 256, 128, 10], "tanh"),
}
RADII = (1e-6, 1e-2, 1e-1, 0.3, 1.0)
# Inputs and hidden neurons of the largest network given to cvxpy and to eclipse-nn's variants: beyond it a ball takes
# them tens of seconds.
MOST_CVXPY = 64
MOST_ECLIPSE = {"Acc": 64, "Fast": 320, "CF": 10**6}
# Of smooth activations (Fast: 25 s of processor time a ball of tanh 64-100-100-10).
MOST_SMOOTH = {"Acc": 64, "Fast": 64, "CF": 10**6}


def trained(sizes: list[int], activation: str) -> tuple[Any, Any]:
    """(module in float64, test inputs (100, n)), fitted to one Gaussian cluster per class; seeded."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    kinds = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU, "sigmoid": nn.Sigmoid, "elu": nn.ELU, "gelu": nn.GELU}
    layers = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), kinds[activation]())]
    model = nn.Sequential(*layers[:-1])
    centers = torch.randn(sizes[-1], sizes[0])
    optimiser = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(300):
        labels = torch.randint(sizes[-1], (128,))
        inputs = centers[labels] + 0.7 * torch.randn(128, sizes[0])
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimiser.step()
    labels = torch.randint(sizes[-1], (100,))
    return model.double(), (centers[labels] + 0.7 * torch.randn(100, sizes[0])).double().numpy()


def realised(model: Any, center: Any, radius: float, count: int = 200) -> float:
    """The largest Jacobian norm at ``count`` points of the ball, taken by torch."""
    import numpy as np
    import torch

    rng = np.random.default_rng(0)
    away = rng.standard_normal((count, len(center)))
    away *= radius * rng.random((count, 1)) ** 0.2 / np.linalg.norm(away, axis=1, keepdims=True)
    points = torch.from_numpy(np.concatenate([center[None], center + away]))
    jacobians = torch.func.vmap(torch.func.jacrev(model))(points)
    return float(torch.linalg.matrix_norm(jacobians.detach(), 2).max())


def ours(model: Any, balls: list, method: str) -> tuple[list, float]:
    """(intervals, processor seconds per ball)."""
    from stabilitykit_lipschitz import LocalBounds

    start = time.process_time()
    bounds = LocalBounds(model, method=method)
    found = bounds.all(balls)
    return found, (time.process_time() - start) / len(balls)


def eclipse(model: Any, activation: str, balls: list, algorithm: str) -> tuple[list[float], float] | None:
    """(values, processor seconds per ball), None where the package is not installed or knows no such activation."""
    try:
        from eclipse_nn.LipConstEstimator import LipConstEstimator
    except ImportError:
        return None
    linear = [m for m in model if hasattr(m, "weight")]
    biases = [m.bias.data.reshape(-1, 1) for m in linear]
    values = []
    start = time.process_time()
    for ball in balls:
        estimator = LipConstEstimator(weights=[m.weight.data for m in linear], biases=biases)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its solver says "may be inaccurate" of most stages
            try:
                value, _, _ = estimator.estimate_gen_local(ball.center, ball.radius, activation, algorithm)
            except (ValueError, ArithmeticError):
                value = math.nan
            except Exception as error:  # its solver's own errors
                if type(error).__module__.partition(".")[0] not in ("cvxpy", "numpy"):
                    raise
                value = math.nan
        values.append(float(value))
    return values, (time.process_time() - start) / len(balls)


def interval_share(model: Any, balls: list) -> float:
    """Mean width of the slope intervals from the second layer on, relative to that without affine forms."""
    import numpy as np
    from stabilitykit_lipschitz import propagation, regions
    from stabilitykit_lipschitz.extract import Reading

    network = Reading(model).network

    def width() -> float:
        return float(
            np.mean([(x.beta - x.alpha).mean() for b in balls for x in regions.tighten(network, b).layers[1:]])
        )

    narrow, kept = width(), propagation.affine
    try:
        propagation.affine = lambda *_: None  # type: ignore[assignment]
        return narrow / wide if (wide := width()) > 0 else 1.0
    finally:
        propagation.affine = kept


def rows(name: str, images: int) -> list[list[str]]:
    import numpy as np
    from stabilitykit_lipschitz import Ball

    sizes, activation = NETS[name]
    model, inputs = trained(sizes, activation)
    neurons = sum(sizes[:-1])
    lines = []
    for radius in RADII:
        balls = [Ball(x, radius) for x in inputs[:images]]
        auto, auto_time = ours(model, balls, "auto")
        centred, centred_time = ours(model, balls, "centred")
        low = [max(i.lower, realised(model, b.center, radius)) for i, b in zip(auto, balls)]
        for interval, least in zip([*auto, *centred], low * 2):
            assert least <= interval.upper * (1 + 1e-9), (name, radius, least, interval.upper)
        cells = [
            name,
            f"{radius:g}",
            f"{np.mean(low):.5g}",
            f"{np.mean([i.upper for i in auto]):.5g}",
            f"{auto_time:.3f}",
            f"{np.mean([i.upper for i in centred]):.5g}",
            f"{centred_time:.3f}",
        ]
        for algorithm in ("Acc", "Fast", "CF"):
            most = (MOST_ECLIPSE if activation == "relu" else MOST_SMOOTH)[algorithm]
            found = eclipse(model, activation, balls, algorithm) if neurons <= most else None
            cells.append(_eclipse(found, low))
        cells.append("-")
        if neurons <= MOST_CVXPY:
            solved, seconds = ours(model, balls, "cvxpy")
            cells[-1] = f"{np.mean([i.upper for i in solved]):.5g} ({seconds:.2f} s)"
        cells.append(f"{100 * interval_share(model, balls):.0f} %")
        lines.append(cells)
        print(" | ".join(cells), flush=True)
    return lines


def _eclipse(found: tuple[list[float], float] | None, low: list[float]) -> str:
    if found is None:
        return "-"
    values, seconds = found
    known = [v for v in values if not math.isnan(v)]
    if not known:
        return f"none ({seconds:.2f} s)"
    wrong = sum(v < least * (1 - 1e-6) for v, least in zip(values, low))
    failed = f", {len(values) - len(known)} of {len(values)} failed" if len(known) < len(values) else ""
    below = f", {wrong} below" if wrong else ""
    return f"{sum(known) / len(known):.5g} ({seconds:.2f} s{failed}{below})"


HEADER = [
    "network",
    "radius",
    "realised",
    "ours (auto)",
    "s per ball",
    "ours (centred)",
    "s per ball",
    "eclipse-nn Acc",
    "eclipse-nn Fast",
    "eclipse-nn CF",
    "cvxpy (Clarabel)",
    "slope widths",
]


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="networks whose name contains this")
    parser.add_argument("--images", type=int, default=5, help="balls per network and radius")
    parser.add_argument("--out", type=Path, help="a Markdown file to write")
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = [line for name in NETS if given.only in name for line in rows(name, given.images)]
    table = ["| " + " | ".join(line) + " |" for line in [HEADER, ["---"] * len(HEADER), *lines]]
    if given.out:
        assert __doc__
        usage, _, about = __doc__.partition("\n\nNetworks")
        given.out.write_text(
            f"# {usage.splitlines()[0]}\n\n`python benchmarks/lipschitz_local.py --images {given.images}`, "
            f"OMP_NUM_THREADS=1.\n\nNetworks{about}\n" + "\n".join(table) + "\n"
        )


if __name__ == "__main__":
    main()
