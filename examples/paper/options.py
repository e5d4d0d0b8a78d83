"""The command line of the reproduction."""

from __future__ import annotations

import argparse
from pathlib import Path

from paper_values import MODELS

QUICK = {
    "only": ["mnist_r18", "cifar_r18"],
    "seeds": [0],
    "epochs": 2,
    "train_limit": 400,
    "limit": 200,
    "probe_images": 300,
    "probe_steps": 20,
    "steps": [5, 20],
    "dependence_limit": 100,
    "width": 8,
    "train": True,
    "dependence": True,
}
"""What ``--quick`` takes: two small networks, a few hundred images, a few steps. Its numbers mean nothing."""


def arguments(given: list[str] | None = None, description: str = "") -> argparse.Namespace:
    """The options, those of ``--quick`` in place of the defaults where it is given."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist-root", type=Path, help="folder with the MNIST idx files (or raw/ inside)")
    parser.add_argument("--cifar-npz", type=Path, help="folder with train.npz and test.npz (arrays X, y)")
    parser.add_argument(
        "--checkpoints", type=Path, default=Path("checkpoints"), help="folder of NAME_sSEED.safetensors"
    )
    parser.add_argument(
        "--only", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL", help=f"some of {', '.join(MODELS)}"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of the trainings")
    parser.add_argument("--train", action="store_true", help="train what has no weights, go on with what is unfinished")
    parser.add_argument(
        "--recipe",
        choices=("augmented", "paper"),
        default="augmented",
        help="augmented: reaches the paper's accuracies; paper: its text to the letter, which does not on CIFAR-10",
    )
    parser.add_argument("--epochs", type=int, help="of --train; default: 30 (augmented), 100 (paper)")
    parser.add_argument("--limit", type=int, help="evaluate that many test images, default all")
    parser.add_argument(
        "--probe-steps", type=int, default=2500, help="steps of Adam (100 images each) of Table 2's probes"
    )
    parser.add_argument("--probe-images", type=int, help="train them on that many training images, default all")
    parser.add_argument("--no-probes", action="store_true", help="leave the probes of Table 2 out")
    parser.add_argument("--dependence", action="store_true", help="also measure how constants move with training")
    parser.add_argument(
        "--keep-epochs",
        nargs="*",
        type=int,
        default=[1, 2, 4, 8, 12, 17, 24, 50],
        help="of --train with --dependence: epochs whose weights stay in --checkpoints, and are measured too",
    )
    parser.add_argument("--steps", nargs="+", type=int, default=[125, 500, 2500], help="probe steps of --dependence")
    parser.add_argument("--dependence-limit", type=int, default=2000, help="test images of --dependence")
    parser.add_argument("--dependence-images", type=int, default=10000, help="training images of its probes")
    parser.add_argument("--finished", action="store_true", help="write what is measured so far, and measure no more")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs") / "paper", help="run folders; what is done stays done"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="small networks, few images and steps: exercises everything in minutes, on the embedded digits where no "
        "data is given; writes to --runs unless --out is given",
    )
    parser.set_defaults(width=None, train_limit=None)
    first = parser.parse_args(given)
    if first.quick:
        parser.set_defaults(**QUICK, out=first.runs / "results", dependence_images=QUICK["probe_images"])
        return parser.parse_args(given)
    return first
