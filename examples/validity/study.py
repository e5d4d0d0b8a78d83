"""What do the numbers predict? Train a population of networks, harm them, measure them, and compare.

    python examples/validity/study.py --cifar data/cifar10 --mnist data/MNIST --checkpoints data/checkpoints --train

trains what has no weights in --work, measures what has no results there, and writes tables (--out) and, with --page,
the tables and figures of docs/validity.md. Interrupted, the same command goes on. Run twice it writes the same bytes.
--quick does all of it with eight small networks on the embedded digits, in minutes; its numbers mean nothing.

Attacks need torchattacks (``pip install --no-deps torchattacks==3.5.1``); without it their columns stay empty.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import across
import harms
import torch
from charts_of_study import draw
from evidence_of_study import write_evidence
from member_results import is_measured, measured
from population import Member, members
from study_page import blocks, table, write_page, write_tables
from within import SHOWN, within

HERE = Path(__file__).resolve().parent
SIZES = {"pgd_images": 300, "ensemble_images": 200, "probe_steps": 100}
QUICK_SIZES = {"pgd_images": 60, "ensemble_images": 20, "probe_steps": 20}
PAIR = ("resnet20-standard", "resnet20-adversarial")


def main(argv: list[str] | None = None) -> int:
    """Everything, in order; 2 where there is no network."""
    options = arguments(argv)
    torch.set_num_threads(options.threads)  # sums depend on it, and so the last bits of every number
    found = members(options)
    for key, why in options.left_out.items():
        print(f"left out {key}: {why}", file=sys.stderr)
    if not found:
        print("no network to measure: give --quick, or --cifar or --mnist with --train", file=sys.stderr)
        return 2
    if (why := harms.without_attacks()) is not None:
        options.left_out["attacks"] = why
    sizes = QUICK_SIZES if options.quick else SIZES
    if options.finished:
        unfinished = [member for member in found if not is_measured(member, sizes, options.work)]
        options.left_out |= {member.key: "not measured yet" for member in unfinished}
        found = [member for member in found if member not in unfinished]
    results = {member.key: measured(member, sizes, options.work) for member in found}
    tables = across_tables(found, results) | within(found, options)
    write_tables(options.out, tables)
    if options.page is not None:
        figures = options.page.parent / "images"
        draw(figures, tables["networks"], tables["constants"], tables["correlations"], tables["hypotheses"])
        images = {"images": table(tables["images-verdicts"], SHOWN)}
        write_page(options.page, blocks(tables, options.left_out) | images)
    if options.write_evidence:
        write_evidence(tables)
    print(f"wrote {options.out}", file=sys.stderr)
    return 0


def across_tables(found: list[Member], results: dict[str, Any]) -> dict[str, across.Rows]:
    """The tables across networks, by name."""
    related = across.correlations(found, results)
    tables = {
        "networks": across.networks(found, results),
        "constants": across.constants(found, results),
        "missing": across.missing(found, results),
        "correlations": related,
        "verdicts": across.verdicts(related),
        "hypotheses": across.hypotheses(HERE / "hypotheses.toml", related),
        "transfer": across.transfer(related),
    }
    return {**tables, "pair": across.pair(PAIR, tables["networks"], tables["constants"])}


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, with an empty ``left_out`` to be filled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar", type=Path, help="folder with train.npz and test.npz (arrays X, y)")
    parser.add_argument("--mnist", type=Path, help="folder with the MNIST idx files (or raw/ inside)")
    parser.add_argument("--checkpoints", type=Path, help="folder of the files that --list names")
    parser.add_argument(
        "--list", type=Path, nargs="*", default=[HERE / "checkpoints.toml"], help="TOML files of further networks"
    )
    parser.add_argument("--train", action="store_true", help="train what has no weights")
    parser.add_argument("--work", type=Path, default=Path("runs") / "validity", help="what is done stays done here")
    parser.add_argument("--out", type=Path, help="folder of the CSV tables [default: WORK/tables]")
    parser.add_argument("--page", type=Path, help="page to fill the tables into; figures go to images/ beside it")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--finished", action="store_true", help="write what is measured so far, and measure no more")
    parser.add_argument("--quick", action="store_true", help="eight small networks on the embedded digits")
    parser.add_argument(
        "--write-evidence", action="store_true", help="write what reports and docs/numbers.md say each number predicts"
    )
    options = parser.parse_args(argv)
    if options.quick and options.write_evidence:
        parser.error(
            "--write-evidence tells users what numbers predict, and those of --quick mean nothing: leave one out"
        )
    options.out = options.out or options.work / "tables"
    options.train = options.train or (options.quick and not options.finished)
    options.left_out = {}
    return options


if __name__ == "__main__":
    raise SystemExit(main())
