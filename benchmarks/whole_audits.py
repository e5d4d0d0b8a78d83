"""Audits of whole networks through the command line: public CIFAR-10 checkpoints, and untrained networks of timm.

    OMP_NUM_THREADS=1 python benchmarks/whole_audits.py FOLDER TEST.npz CHECKPOINTS [--only NAME ...] [--table]

FOLDER keeps the runs: one that is complete is not repeated. TEST.npz holds images as X and labels as y, CHECKPOINTS is
the folder of the four files ``nets.py`` describes. ``--table`` audits nothing. Writes
benchmarks/results/whole_audits.md from what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TABLE = HERE / "results" / "whole_audits.md"
SIDE = "96"
SOME = ("expansivity", "shadowing", "lipschitz", "topological", "precision")
NETWORKS = {
    "resnet18": "--size",
    "resnet50": "--size",
    "vit_tiny_patch16_224": "--img-size",
    "convnext_tiny": "--size",
    "swin_tiny_patch4_window7_224": "--img-size",
    "efficientnet_b0": "--size",
    "vgg11": "--size",
}
"""Name in timm -> the option that says how large its images are."""
CHECKPOINTS = {
    "cifar10_resnet20.th": "resnet20",
    "cifar10_resnet32.th": "resnet32",
    "cifar10_resnet20_standard.pth": "strided20",
    "cifar10_resnet20_adversarial.pth": "strided20",
}
COLUMNS = (
    "network",
    "readout",
    "properties",
    "N",
    "accuracy of the network",
    "accuracy of the readout at depth T",
    "T",
    "steps",
    "blind depths",
    "exact",
    "Def. 1 max",
    "Def. 1 min",
    "Sh_exact",
    "Lip(g), largest certified",
    "T_g.lower",
    "flips bf16",
    "forwards, head readouts",
    "CPU s",
)
HEADER = ("| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|")
WORDS = """# Audits of whole networks

`python benchmarks/whole_audits.py FOLDER TEST.npz CHECKPOINTS`: `stabilitykit audit` on CIFAR-10 test images. The four
checkpoints are trained: once on all images (g-expansivity, for the accuracy), once with every property. The networks
of timm are untrained (seed 0, 10 classes, images of {side}x{side}): their rows show that every block is walked and
exact, their numbers are about random networks; those whose residual branches begin at zero have readouts that stand
still until the last transition.

Accuracy of the network: of its own decisions, whatever the readout. At depth T head and lens are the network's own
classifier; the probe is another one, trained on the images of the row, so that its accuracy is in sample (so are lens
and probe at all other depths). Properties: which one, or how many (11: all that a default audit measures; 5:
{some}). CPU s is of the whole command, loading and training of
readouts included: compare it only between rows with equal properties and N. Forwards, head readouts: what a trajectory
with every head readout costs, predicted from products; lens and probe rows have no such number.

Exact: states and logits of the chained steps are the network's own, bit for bit. Lip(g): the largest certified bound
of a readout, where one can be certified; T_g.lower is undefined where one readout has none. Empty: not asked for, or
not there. Flips: share of the network's decisions that bf16 changes.

The rows were measured at several revisions of the code; resnet18 with head, measured at two of
them, agrees in every value of the five properties. A property that failed is named in its row.

"""


@dataclass(frozen=True)
class Audit:
    """One command.

    Attributes:
        name: of its folder.
        network, readout: as the table shows them.
        arguments: of ``stabilitykit audit``.
    """

    name: str
    network: str
    readout: str
    arguments: tuple[str, ...]


def audits(images: Path, checkpoints: Path, limit: int, small: int) -> list[Audit]:
    """All of them: every checkpoint on ``limit`` images with all properties, and on all images for its accuracy;
    every untrained network with each readout and the properties of the table."""
    data = ("-d", f"npz:{images}")
    found = []
    for file, builder in CHECKPOINTS.items():
        stem = file.replace(".", "_")
        base = (f"module:nets:{builder}", "--input", "3x32x32", "--normalise", "imagenet", *data)
        base += ("--checkpoint", str(checkpoints / file))
        found.append(Audit(f"{stem}-all", file, "head", (*base, "-p", "expansivity")))
        found.append(Audit(f"{stem}-head", file, "head", (*base, "--limit", str(limit))))
    some = tuple(part for name in SOME for part in ("-p", name))
    for readout in ("head", "probe", "lens"):
        for name, option in NETWORKS.items():
            if name == "vgg11" and readout == "head":
                continue  # a chain without skips has none
            base = (f"timm:{name}", "--num-classes", "10", option, SIDE, *data, "--limit", str(small))
            found.append(Audit(f"{name}-{readout}", name, readout, (*base, "--readout", readout, *some)))
    return found


def run(audit: Audit, folder: Path) -> None:
    """The command, its words and its processor seconds, in ``folder``."""
    target = folder / audit.name
    noted = folder / f"{audit.name}.seconds"
    if noted.exists():
        return
    shutil.rmtree(target, ignore_errors=True)  # of an interrupted one: the seconds are to be of all of it
    command = [sys.executable, "-m", "stabilitykit", "audit", *audit.arguments]
    command += ["-q", "--no-cache", "-o", str(target)]
    environment = os.environ | {"PYTHONPATH": str(HERE), "COLUMNS": "160"}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    with open(folder / f"{audit.name}.txt", "w") as out:
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, env=environment, check=False).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{audit.name}: exit {code}, {seconds:.0f} CPU s, {time.monotonic() - began:.0f} s", flush=True)
    if code in (0, 1):  # 1: a property failed, which its row says
        noted.write_text(f"{seconds:.1f}")


def row(audit: Audit, folder: Path) -> str | None:
    """Its row, None where it did not end."""
    noted = folder / f"{audit.name}.seconds"
    if not noted.exists():
        return None
    pair = json.loads((folder / audit.name / "run.json").read_text())["pairs"][0]
    measured: dict[str, dict[str, Any]] = {}
    tables: dict[str, dict[str, Any]] = {}
    properties, failed = [], []
    for path in sorted((folder / audit.name / "cells").iterdir()):
        cell = json.loads(path.read_text())
        properties.append(cell["property"])
        if cell["status"] != "ok":
            failed.append(f"{cell['property']} failed: {cell['error']['message'].split(' (')[0]}")
            continue
        result = cell["result"]
        measured |= {m["name"]: m for m in result["measurements"]}
        tables |= result["tables"]

    def value(name: str, form: str = ".4g") -> str:
        if name not in measured:
            return ""
        number = measured[name]["value"]
        return "undefined" if number is None else format(number, form)

    course = pair["record"]["model"]["details"]["run"]
    kinds = course.get("steps") or ["residual"] * course["T"]
    at = tables["depth"]["columns"].index("blind") if "blind" in tables["depth"]["columns"] else None
    blind = [str(line[0]) for line in tables["depth"]["rows"] if at is not None and line[at]]
    certified = [line[2] for line in tables.get("readouts", {"rows": []})["rows"]]
    largest = max((bound for bound in certified if bound is not None), default=None)
    certificate = pair["certificate"]
    own = value("accuracy", ".4f") if audit.readout != "probe" else ""
    if "formats" in tables:
        formats = tables["formats"]
        own = format(formats["rows"][0][formats["columns"].index("accuracy_before")], ".4f")
    cells = (
        audit.network,
        audit.readout,
        "; ".join([str(len(properties)) if len(properties) > 1 else properties[0], *failed]),
        str(pair["record"]["n"]),
        own,
        value("accuracy", ".4f") + (" in sample" if audit.readout == "probe" else ""),
        str(course["T"]),
        ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds)),
        " ".join(blind) or "none",
        "yes" if certificate["bit_exact"] else f"within {certificate['max_abs_difference']:.1e}",
        value("expansive_constant.max"),
        value("expansive_constant.min"),
        value("Sh_exact"),
        "" if not certified else "none" if largest is None else f"{largest:.4g}",
        value("T_g.lower"),
        value("flips.bf16", ".3g"),
        f"{course['cost_forwards']:.2f}" if audit.readout == "head" else "",
        f"{float(noted.read_text()):.0f}",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("checkpoints", type=Path)
    parser.add_argument("--only", nargs="+", default=[], help="audits whose name begins like one of these")
    parser.add_argument("--limit", type=int, default=200, help="images of the audits of checkpoints")
    parser.add_argument("--small", type=int, default=24, help="images of the audits of untrained networks")
    parser.add_argument("--table", action="store_true", help="audit nothing, write the table")
    given = parser.parse_args()
    wanted = audits(given.images.resolve(), given.checkpoints.resolve(), given.limit, given.small)
    if not given.table:
        given.folder.mkdir(parents=True, exist_ok=True)
        for audit in wanted:
            if not given.only or audit.name.startswith(tuple(given.only)):
                run(audit, given.folder)
    rows = [line for line in (row(audit, given.folder) for audit in wanted) if line is not None]
    TABLE.write_text(WORDS.format(side=SIDE, some=", ".join(SOME)) + "\n".join([*HEADER, *rows]) + "\n")


if __name__ == "__main__":
    main()
