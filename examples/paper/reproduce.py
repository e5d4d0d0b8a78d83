"""Reproduce the paper's Tables 1-5 and Figures 2-3 with real MNIST and CIFAR-10.

    python examples/paper/reproduce.py --mnist-root data/MNIST --cifar-npz data/cifar10 --checkpoints weights

Weights found in --checkpoints (mnist_r18.safetensors, mnist_r50..., cifar_r18..., cifar_r50...) are used; with --train
the missing ones are trained there first (--recipe augmented: flips and crops; paper: its text to the letter). A model
without weights is left out, and the results say so. CIFAR-10 is read from train.npz and test.npz (arrays X, y).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from paper_values import MODELS, TITLES
from tables import figures, table_1, table_2, table_3, tables_4_5, write

import stabilitykit
from stabilitykit.cli import run as run_cli

PROPERTIES = ["expansivity", "shadowing", "lipschitz", "topological"]
CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist-root", type=Path, help="folder with the MNIST idx files (or raw/ inside)")
    parser.add_argument("--cifar-npz", type=Path, help="folder with train.npz and test.npz")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="folder of weights")
    parser.add_argument("--train", action="store_true", help="train models whose weights are missing")
    parser.add_argument(
        "--recipe",
        choices=("augmented", "paper"),
        default="augmented",
        help="augmented: reaches the paper's accuracies; paper: its text to the letter, which does not on CIFAR-10",
    )
    parser.add_argument("--epochs", type=int, help="default: 30 (augmented), 100 (paper)")
    parser.add_argument("--seed", type=int, default=0, help="of training and evaluation")
    parser.add_argument(
        "--only", nargs="+", choices=MODELS, default=list(MODELS), metavar="MODEL", help=f"some of {', '.join(MODELS)}"
    )
    parser.add_argument(
        "--readout",
        choices=("head", "probe"),
        default="head",
        help="head: one g for all depths; probe: a linear layer trained per depth",
    )
    parser.add_argument("--limit", type=int, help="evaluate that many test images (for a quick look)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results")
    parser.add_argument("--runs", type=Path, default=Path("runs") / "paper", help="where the run folders go")
    return parser.parse_args()


def data_of(name: str, given: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """(training, test) dataset specs of a model; None when its data was not given."""
    if name.startswith("mnist"):
        if given.mnist_root is None:
            return None
        first, last = (
            {"name": "mnist", "options": {"root": str(given.mnist_root), "split": split}} for split in ("train", "test")
        )
        return first, last
    if given.cifar_npz is None:
        return None
    return (
        {"name": "npz", "options": {"path": str(given.cifar_npz / "train.npz")}},
        {"name": "npz", "options": {"path": str(named_classes(given.cifar_npz / "test.npz", given.runs))}},
    )


def named_classes(path: Path, folder: Path) -> Path:
    """``path``, or a copy with the names of CIFAR-10's classes where the file has none."""
    import io

    import numpy as np

    from stabilitykit.base.files import write_atomic

    with np.load(path, allow_pickle=False) as opened:
        if "class_names" in opened.files:
            return path
        copy = folder / f"cifar10-{path.name}"
        if not copy.exists():
            stream = io.BytesIO()
            np.savez(stream, class_names=np.array(CIFAR_CLASSES), **{key: opened[key] for key in opened.files})
            write_atomic(copy, stream.getvalue())
    return copy


def train(name: str, given: argparse.Namespace, weights: Path) -> None:
    """`stabilitykit train`, going on where an interrupted training stopped."""
    data = data_of(name, given)
    assert data is not None
    (first, last) = (f"{d['name']}:" + ",".join(f"{k}={v}" for k, v in d["options"].items()) for d in data)
    weights.parent.mkdir(parents=True, exist_ok=True)
    code = run_cli(
        [
            "train",
            architecture(name),
            "-d",
            first,
            "--test",
            last,
            "--recipe",
            given.recipe,
            # A mirrored digit is none.
            *(["--augment", "crop"] if given.recipe == "augmented" and name.startswith("mnist") else []),
            *(["--epochs", str(given.epochs)] if given.epochs else []),
            "--seed",
            str(given.seed),
            "--device",
            given.device,
            "-o",
            str(weights),
            "--resume",
        ]
    )
    if code:
        raise SystemExit(code)


def architecture(name: str) -> str:
    return "resnet18" if name.endswith("18") else "resnet50"


def trained_epochs(weights: Path) -> Any:
    """Number of the epoch whose weights these are, from the file's header."""
    import json

    from safetensors import safe_open

    with safe_open(str(weights), framework="numpy") as opened:
        header = opened.metadata() or {}
    try:
        return json.loads(header["stabilitykit"])["epoch"]
    except (KeyError, TypeError, ValueError):
        return "not recorded"


def classification(name: str, weights: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Table 1 of one model on its test images."""
    from stabilitykit.evaluation.subject import choose_indices
    from stabilitykit.machine.device import choose_device
    from stabilitykit.plugins.registry import Registry
    from stabilitykit.training.metrics import classification_metrics, predict

    registry = Registry.load()
    model = registry.create("model", {"name": architecture(name), "options": {"checkpoint": str(weights)}})
    data = data_of(name, given)
    assert data is not None
    dataset = registry.create("dataset", data[1])
    device = choose_device(given.device)
    model.module.to(device).eval()
    indices = choose_indices(len(dataset), given.limit, given.seed)
    return {
        **classification_metrics(*predict(model, dataset, indices, device=device)),
        "epochs": trained_epochs(weights),
        "seed": given.seed,
        "fingerprint": model.fingerprint()[:16],
    }


def main() -> int:
    """Train what is asked for, evaluate, write the tables."""
    given = arguments()
    runs: dict[str, Path] = {}
    metrics: dict[str, dict[str, Any]] = {}
    left_out = {}
    failed = False
    for name in given.only:
        weights = given.checkpoints / f"{name}.safetensors"
        data = data_of(name, given)
        if data is None:
            left_out[name] = "no data given"
            continue
        if given.train:
            train(name, given, weights)
        if not weights.exists():
            left_out[name] = f"no weights {weights.name}; add --train"
            continue
        print(f"{TITLES[name]}: evaluating", file=sys.stderr)
        metrics[name] = classification(name, weights, given)
        folder = given.runs / f"{name}-{given.readout}-{metrics[name]['fingerprint']}-{given.limit or 'all'}"
        done = stabilitykit.evaluate(
            {"name": architecture(name), "options": {"checkpoint": str(weights)}},
            data[1],
            PROPERTIES,
            readout=given.readout,
            seed=given.seed,
            limit=given.limit,
            device=given.device,
            output=folder,
            resume=folder.exists(),
            probe_dataset=data[0] if given.readout == "probe" else None,
        )
        for cell in done.cells:
            if not cell.ok:
                failed = True
                print(f"failed: {cell.property} of {name}: {cell.error['message']}", file=sys.stderr)
        runs[name] = folder
    if not runs:
        print("nothing to do: " + "; ".join(f"{k}: {v}" for k, v in left_out.items()), file=sys.stderr)
        return 2
    classes = {name: [str(d) for d in range(10)] if name.startswith("mnist") else list(CIFAR_CLASSES) for name in runs}
    given.out.mkdir(parents=True, exist_ok=True)
    tables = {
        "table_1": table_1(metrics),
        "table_2": table_2(runs, given.readout),
        "table_3": table_3(runs, classes),
        "tables_4_5": tables_4_5(runs, given.out),
    }
    drawn = figures(runs, given.out) + sorted(p.name for p in (given.out / "figures").glob("strip-*.png"))
    write(
        given.out,
        tables,
        {
            "models": {
                TITLES[n]: {k: m[k] for k in ("epochs", "seed", "fingerprint", "n", "accuracy")}
                for n, m in metrics.items()
            },
            "left out": {TITLES[n]: why for n, why in left_out.items()},
            "readout": given.readout,
            "space": "probabilities",
            "stabilitykit": stabilitykit.__version__,
            "figures": drawn,
        },
    )
    print(f"wrote {given.out / 'results.md'}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
