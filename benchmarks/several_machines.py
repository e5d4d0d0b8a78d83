"""Two groups of processes over loopback, as two machines: what each rank sends and reads against docs/scale.md.

    python benchmarks/several_machines.py [--images 20000 60000] [--write benchmarks/results/several_machines.md]

Each group is a torchrun of its own with one process, over recorded readouts (10 depths, 10 classes, float32 in a file,
float64 on the way), and runs `expansivity`. What a rank reads by system calls (Linux; files, not sockets) is libraries,
compiled kernels, plugins and the file: two sizes say what an image adds. Then the process of one group is killed
(SIGKILL) while the other waits for it: seconds until that one's torchrun has ended, and what its process said.
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


def table(sizes: list[int]) -> list[str]:
    """Two rows a size, one a rank; from the second size on with what was read more than for the one before."""
    rows, before = [], None
    for images in sizes:
        counts, wall = run(images)
        sends = 8 * DEPTHS * CLASSES * images // 2
        for rank, (sent, received, read) in enumerate(counts):
            more = ["", ""]
            if before is not None:
                grown = (4 * DEPTHS * CLASSES + 8) * (images - before[0])
                more = [f"{read - before[1][rank][2]:,}", f"{grown:,}"]
            cells = [
                f"{images:,}",
                rank,
                f"{sent:,}",
                f"{received:,}",
                f"{sends:,}",
                f"{sent / sends:.4f}",
                f"{read:,}",
            ]
            rows.append("| " + " | ".join(map(str, [*cells, *more, f"{wall:.0f}", f"{os.getloadavg()[0]:.0f}"])) + " |")
            print(rows[-1], flush=True)
        before = images, counts
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
    parser.add_argument("--images", type=int, nargs="+", default=[20_000, 60_000])
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    message = lost()
    print(message, flush=True)
    rows = table(given.images)
    if given.write:
        command = " ".join(["python benchmarks/several_machines.py", *sys.argv[1:]])
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text(
            f"# Two machines over loopback\n\n`{command}`. Models: a rank sends 8 D K N / 2 bytes of trajectory, the "
            "rest are answers and messages of the run; of a file of readouts it reads all (4 D K + 8) N bytes, once. "
            "Beside the file it reads libraries, compiled kernels and plugins.\n\n"
            "| images | rank | sent | received | model | sent / model | read | more than the row of that rank before | "
            "the file grew by | wall s | load |\n"
            "|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n"
            + "\n".join(rows)
            + f"\n\nA killed rank: {message}\n"
        )


if __name__ == "__main__":
    main()
