"""Reproduce the paper's Tables 1 to 5 and Figures 2 and 3 with MNIST and CIFAR-10, from nothing to results.

    python examples/paper/reproduce.py --mnist-root data/MNIST --cifar-npz data/cifar10 --train --seeds 0 1 2

trains what has no weights in --checkpoints (NAME_sSEED.safetensors, NAME one of mnist_r18, mnist_r50, cifar_r18,
cifar_r50), measures, and writes --out. Interrupted, the same command goes on: finished epochs and finished runs are
not made again. Without --train, trainings without weights are left out, and the results say so.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from agreement import lines
from classification import classification, table_1, untrained_norm
from constants import first_seed, probes_by_depth, table_2
from dependence import dependence, paper_row, runs_wanted
from images import class_names, images_of
from measure import FEW, HEAD, Wanted, measured
from nets import Net, nets, snapshots
from options import arguments
from paper_values import MODELS
from pictures import figures, table_3, tables_4_5
from training import train
from writing import write

import stabilitykit


def main(argv: list[str] | None = None) -> int:
    """Train what is asked for, measure, write the tables; 1 where a measurement failed, 2 where there was none."""
    given = arguments(argv, __doc__ or "")
    started = time.monotonic()
    trained, left_out = available(given)
    if not trained:
        say("nothing to do: " + "; ".join(f"{title}: {why}" for title, why in left_out.items()))
        return 2
    metrics = {}
    for net in trained:
        say(f"{net.title}: Table 1")
        metrics[net] = classification(net, given)
    wanted = [Wanted(net, HEAD, given.limit) for net in trained]
    if not given.no_probes:
        wanted += [Wanted(net, FEW, given.limit, given.probe_steps, given.probe_images) for net in trained]
    runs, failures = measured(wanted, given)
    tables: dict[str, list[dict[str, Any]]] = {
        "table_1": table_1(metrics),
        "table_2": table_2(runs, {net.name: untrained_norm(net, given.width) for net in trained}),
        "probes": probes_by_depth(runs),
    }
    if given.dependence:
        more, failed = measured(
            runs_wanted(trained, snapshots(given.checkpoints, given.only, given.seeds), given), given
        )
        failures += failed
        papers = [paper_row(name) for name in MODELS if any(net.name == name for net in trained)]
        tables["dependence"] = in_order([*dependence({**runs, **more}), *papers])
    shown = first_seed(runs)
    tables["table_3"] = table_3(shown, {name: class_names(name, given) for name in shown})
    tables["tables_4_5"] = tables_4_5(shown, given.out)
    drawn = figures(shown, given.out)
    drawn += sorted(f"strip-{name}.png" for name in shown if (given.out / "figures" / f"strip-{name}.png").exists())
    agreement = lines(tables["table_1"], tables["table_2"], tables.get("dependence", ()))
    write(given.out, tables, about(given, metrics, left_out, failures, drawn), agreement)
    for failure in failures:
        say(f"failed: {failure}")
    say(f"wrote {given.out / 'results.md'} after {time.monotonic() - started:.0f} s")
    return 1 if failures else 0


def available(given: argparse.Namespace) -> tuple[list[Net], dict[str, str]]:
    """The trainings whose weights are there, or have been made; the others by title with the reason."""
    found, left_out = [], {}
    for net in nets(given.checkpoints, given.only, given.seeds):
        if images_of(net.name, given) is None:
            left_out[net.title] = "no data given"
            continue
        if given.train:
            train(net, given)
        if net.weights.exists():
            found.append(net)
        else:
            left_out[net.title] = f"no weights {net.weights.name}; add --train"
    return found, left_out


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one model together, those of the paper last."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    return sorted(rows, key=lambda row: models.index(row["model"]))


def about(
    given: argparse.Namespace, metrics: dict[Net, Any], left_out: dict[str, str], failures: list[str], drawn: list[str]
) -> dict[str, Any]:
    """How the results were made; no path of this machine."""
    return {
        "quick": given.quick,
        "trainings": {net.title: {k: m[k] for k in ("epochs", "fingerprint", "n")} for net, m in metrics.items()},
        "left out": left_out,
        "failed": failures,
        "space": "probabilities",
        "probes of Table 2": None
        if given.no_probes
        else {"steps": given.probe_steps, "images a step": 100, "training images": given.probe_images or "all"},
        "stabilitykit": stabilitykit.__version__,
        "figures": drawn,
    }


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
