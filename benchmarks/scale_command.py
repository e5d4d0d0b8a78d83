"""Time and memory of the command where a run is large: images, classes, depths, cells, plugins.

    python benchmarks/scale_command.py [--images 1000000] [--mapped 50000] [--classes 1000] [--depths 500]
        [--cells 5000] [--plugins 300] [--recorded RECORDED.npz] [--only images classes ...]
        [--write benchmarks/results/scale_command.md]

Every case is the command in a process of its own, over recorded readouts made by this script: no network runs. Peak
memory is that of its largest process; "data" is what the readouts take in float64. CPU seconds are of all its
processes, and compare even on a machine that others use; the load beside them says how busy it was. With --recorded
the images are those of benchmarks/realistic_sets.py, probabilities as they are, fitted to that file; else of
`stabilitykit.search.synthetic`.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stabilitykit.search.synthetic import softmax_trajectory

HEADER = (
    "| case | wall s | CPU s | load | peak MiB | data MiB | peak beside data | exit |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|"
)
PLAIN = "expansivity:curve=0,nearest=never"
# The recorded file that realistic images are fitted to.
RECORDED: Path | None = None


def recorded(folder: Path, images: int, depths: int, classes: int) -> list[str]:
    """Arguments for readouts of that size; a file of float32 logits is written."""
    values, labels = softmax_trajectory(images, depths, classes, seed=1)
    np.maximum(values, np.float32(1e-30), out=values)
    np.savez(folder / "readouts.npz", values=np.log(values, out=values), labels=labels)
    return command_for(folder)


def command_for(folder: Path) -> list[str]:
    return ["evaluate", "--trajectories", str(folder / "readouts.npz"), "--no-cache", "-o", str(folder / "run")]


def images(folder: Path, count: int) -> tuple[str, list[str]]:
    if RECORDED is None:
        arguments = recorded(folder, count, 10, 10)
    else:
        from realistic_sets import realistic

        values, labels = realistic(RECORDED, count)
        np.savez(folder / "readouts.npz", values=values, labels=labels)
        arguments = command_for(folder)
    kind = "synthetic logits" if RECORDED is None else "realistic probabilities"
    return f"{count:,} images x 10 x 10 ({kind}), report", [*arguments, "-p", "expansivity", "--report"]


def mapped(folder: Path, count: int) -> tuple[str, list[str]]:
    arguments = [*recorded(folder, count, 13, 1000), "-p", f"{PLAIN},table_rows=1000"]
    return f"{count:,} images x 13 x 1,000 classes, no report", [*arguments, "-q"]


def classes(folder: Path, count: int) -> tuple[str, list[str]]:
    arguments = [*recorded(folder, 5 * count, 5, count), "-p", PLAIN, "--report"]
    return f"{count:,} classes, {5 * count:,} images x 5 depths, report", arguments


def depths(folder: Path, count: int) -> tuple[str, list[str]]:
    arguments = [*recorded(folder, 1000, count + 1, 10), "-p", "expansivity", "-p", "shadowing", "--report"]
    return f"T = {count}, 1,000 images, 10 classes, two properties, report", arguments


def cells(folder: Path, count: int) -> tuple[str, list[str]]:
    asked = [
        part for number in range(count) for part in ("-p", f"expansivity:curve=0,nearest=never,table_rows={number + 1}")
    ]
    return f"{count:,} cells, 40 images, report", [*recorded(folder, 40, 3, 4), *asked, "--report", "-q"]


def plugins(folder: Path, count: int) -> tuple[str, list[str]]:
    """So many distributions with one property each, found by their entry points."""
    for number in range(count):
        name = f"stabilitykit_many_{number}"
        (folder / f"{name}.py").write_text(
            "from stabilitykit import Component, Property, PropertyResult, hookimpl\n"
            "class Nothing(Property):\n    def evaluate(self, context):\n        return PropertyResult([])\n"
            "@hookimpl\ndef stabilitykit_properties():\n"
            f"    return [Component('property', 'nothing-{number}', '{name}:Nothing', 'Measure nothing')]\n"
        )
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[stabilitykit]\nmany{number} = {name}\n")
    return f"{count} plugins, 40 images", [*recorded(folder, 40, 3, 4), "-p", PLAIN, "-q"]


CASES: dict[str, Callable[[Path, int], tuple[str, list[str]]]] = {
    "images": images,
    "mapped": mapped,
    "classes": classes,
    "depths": depths,
    "cells": cells,
    "plugins": plugins,
}


def measure(name: str, size: int) -> str:
    """One row; the case runs in a child of this process that does nothing else, so that its peak is its own."""
    with tempfile.TemporaryDirectory(prefix="scale-") as made:
        folder = Path(made)
        case, arguments = CASES[name](folder, size)
        with np.load(folder / "readouts.npz") as data, data.zip.open("values.npy") as stream:
            np.lib.format.read_magic(stream)
            held = 8 * np.prod(np.lib.format.read_array_header_1_0(stream)[0], dtype=np.int64) / 2**20
        start = time.monotonic()
        script = [sys.executable, __file__, "--command", *arguments]
        done = subprocess.run(
            script, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(folder)}, check=False
        )
        wall = time.monotonic() - start
        code, cpu, peak = done.stdout.rsplit("\n", 2)[-2].split()
        if code != "0":
            print(done.stderr[-2000:], file=sys.stderr)
    return (
        f"| {case} | {wall:.1f} | {float(cpu):.1f} | {os.getloadavg()[0]:.0f} | {float(peak):.0f} | {held:.0f} | "
        f"{float(peak) - held:.0f} | {code} |"
    )


def run_command(arguments: list[str]) -> None:
    """Run the command and print its exit code, CPU seconds and peak memory (MiB)."""
    done = subprocess.run([sys.executable, "-m", "stabilitykit", *arguments], stdout=subprocess.DEVNULL, check=False)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{done.returncode} {used.ru_utime + used.ru_stime} {used.ru_maxrss / 1024}")


def main() -> None:
    if sys.argv[1:2] == ["--command"]:
        return run_command(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"images": 1_000_000, "mapped": 50_000, "classes": 1000, "depths": 500, "cells": 5000, "plugins": 300}
    for name, size in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--recorded", type=Path, help="logits and labels to fit realistic images to")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    global RECORDED
    RECORDED = given.recorded
    rows = []
    for name in given.only:
        rows.append(measure(name, getattr(given, name)))
        print(rows[-1], flush=True)
        if given.write:
            command = " ".join(["python benchmarks/scale_command.py", *sys.argv[1:]])
            given.write.parent.mkdir(parents=True, exist_ok=True)
            given.write.write_text(
                f"# The command where a run is large\n\n`{command}`; {os.cpu_count()} cores, Python "
                f"{platform.python_version()}. Load: processes that wanted a core at the end of the case; wall seconds "
                "of a busy machine say little, CPU seconds do.\n\n" + "\n".join([HEADER, *rows]) + "\n"
            )


if __name__ == "__main__":
    main()
