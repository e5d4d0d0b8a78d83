"""Two groups of processes over loopback, as two machines: what each rank sends and reads against docs/scale.md.

    python benchmarks/several_machines.py [--images 5000 20000] [--write benchmarks/results/several_machines.md]

Each group is a torchrun of its own with one process, over recorded readouts (10 depths, 10 classes, float32 in a file,
float64 on the way), and runs `expansivity`. What a rank reads by system calls (Linux) is libraries, plugins and the
file; a run of 100 images says how much of it is not the file. Then the process of one group is killed (SIGKILL) while
the other waits for it: seconds until that one's torchrun has ended, and what its process said.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from stabilitykit.search.synthetic import softmax_trajectory

DEPTHS, CLASSES = 10, 10
# Images of the run that shows what is read beside the file.
FEW = 100
LOST = """\
import os, signal, sys, time
from stabilitykit.base.errors import StabilityKitError
from stabilitykit.machine.distributed import join_world
world = join_world("cpu")
world.all_gather(1)
if world.rank == 1:
    print("killed at", time.time(), file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
try:
    world.all_gather(2)
except StabilityKitError as error:
    print("said at", time.time(), error, file=sys.stderr)
    sys.exit(1)
"""


def groups(folder: Path, arguments: list[str]) -> list[tuple[str, int]]:
    """(stderr, exit code) of both groups."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "STABILITYKIT_DISTRIBUTED_TRAFFIC": "1"}
    started = []
    for rank in range(2):
        launcher = ["--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1"]
        launcher += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "torch.distributed.run", *launcher, *arguments],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
        )
    return [(process.communicate()[1], process.returncode) for process in started]


def run(images: int) -> tuple[list[tuple[int, int, int]], float]:
    """((sent, received, read) bytes by rank, seconds) of a run of two ranks."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        values, labels = softmax_trajectory(images, DEPTHS, CLASSES, seed=1)
        np.savez(folder / "t.npz", values=np.log(np.maximum(values, np.float32(1e-30))), labels=labels)
        command = ["-m", "stabilitykit", "evaluate", "--trajectories", "t.npz", "-q", "--no-cache", "-o", "run"]
        start = time.monotonic()
        ended = groups(folder, [*command, "-p", "expansivity:curve=0,nearest=never"])
        wall = time.monotonic() - start
    counts = []
    for rank, (errors, code) in enumerate(ended):
        told = re.search(rf"rank {rank} of 2: sent (\d+) bytes, received (\d+) bytes, read (\d+) bytes", errors)
        if code or told is None:
            raise SystemExit(errors)
        counts.append((int(told[1]), int(told[2]), int(told[3])))
    return counts, wall


def measure(images: int, few: list[tuple[int, int, int]]) -> list[str]:
    """Two rows, one a rank; ``few`` is what :func:`run` gave for FEW images."""
    counts, wall = run(images)
    sends, reads = 8 * DEPTHS * CLASSES * images // 2, (4 * DEPTHS * CLASSES + 8) * (images - FEW)
    rows = []
    for rank, ((sent, received, read), (_, _, other)) in enumerate(zip(counts, few, strict=True)):
        rows.append(
            f"| {images:,} | {rank} | {sent:,} | {received:,} | {sends:,} | {sent / sends:.4f} | {read:,} | "
            f"{read - other:,} | {reads:,} | {(read - other) / reads:.4f} | {wall:.0f} | {os.getloadavg()[0]:.0f} |"
        )
        print(rows[-1], flush=True)
    return rows


def lost() -> str:
    """What the survivor said, and when."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "lost.py").write_text(LOST)
        (survivor, code), (killed, _) = groups(folder, ["lost.py"])
    at, said = re.search(r"killed at ([\d.]+)", killed), re.search(r"said at ([\d.]+) (.*)", survivor)
    if at is None or said is None:
        raise SystemExit(survivor + killed)
    return f"Exit {code}, {float(said[1]) - float(at[1]):.1f} s after the kill: `{said[2]}`"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[5_000, 20_000])
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    message = lost()
    print(message, flush=True)
    few = run(FEW)[0]
    rows = [row for count in given.images for row in measure(count, few)]
    if given.write:
        command = " ".join(["python benchmarks/several_machines.py", *sys.argv[1:]])
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(
            f"# Two machines over loopback\n\n`{command}`. Models: a rank sends 8 D K N / 2 bytes of trajectory, the "
            "rest are answers and messages of the run; of a file of readouts it reads all (4 D K + 8) N bytes, once. "
            f"Beside the file: libraries and plugins, as a run of {FEW} images reads them.\n\n"
            "| images | rank | sent | received | model | sent / model | read | of the file | model | file / model | "
            "wall s | load |\n"
            "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
            + "\n".join(rows)
            + f"\n\nA killed rank: {message}\n"
        )


if __name__ == "__main__":
    main()
