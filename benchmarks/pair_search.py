"""Time, peak memory and error of the pair search against brute force by other libraries.

    python benchmarks/pair_search.py --output benchmarks/results/pair_search.md

Every method runs in its own process on the same trajectory, after a warm-up on up to 20,000 images, so that
imports, compilation and thread pools are not counted. Memory is what the process grew by at its peak.
The other libraries answer the same question: for every two classes the smallest distance of their images, reduced
over depths. scipy does so for min, max and mean, the others for min. They measure pairs of different classes only, and
the overall answer is the least of their matrix, so one run counts for both. A run that would exceed --seconds stops
after some tiles and is scaled to all pairs ("~"). Path s is how long our search takes at least on as many idle cores,
counted in processor time (counted_threads.py): other load does not spoil it.

With --state FILE every figure is kept there once it is known, and a run that was ended goes on from it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from counted_threads import counted
from realistic_sets import realistic

from stabilitykit.search import REDUCTIONS, brute_force_closest_pairs, closest_pair, closest_pairs
from stabilitykit.search.synthetic import softmax_trajectory

TILE = 1000
# Images of a set's sample that is compared with brute force.
CHECKED = 2000
# Figures of the runs before, and where they are kept; None: nowhere.
KNOWN: dict[str, dict] = {}
STATE: Path | None = None
# Of our own methods; None: all cores.
THREADS: int | None = None


FOLDS = {"min": np.minimum, "max": np.maximum, "mean": np.add}


def tiles(groups: np.ndarray) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """(class, class, images, images) for all tiles of pairs of two different classes; groups (images,) integers."""
    of_class = [np.flatnonzero(groups == c) for c in range(int(groups.max()) + 1)]
    for a, b in itertools.combinations(range(len(of_class)), 2):
        for row in range(0, len(of_class[a]), TILE):
            for column in range(0, len(of_class[b]), TILE):
                yield a, b, of_class[a][row : row + TILE], of_class[b][column : column + TILE]


def by_tiles(distance: Callable[[np.ndarray, np.ndarray], np.ndarray], reduction: str):
    """A brute-force search of the class matrix that calls `distance` on every tile and depth.

    Its answer is (least of the matrix, share of pairs done).
    """

    def search(values: np.ndarray, groups: np.ndarray, seconds: float) -> tuple[float, float]:
        classes = int(groups.max()) + 1
        matrix = np.full((classes, classes), np.inf)
        counts = np.bincount(groups)
        done, every = 0, (counts.sum() ** 2 - (counts**2).sum()) // 2
        start = time.perf_counter()
        for a, b, rows, columns in tiles(groups):
            table = None
            for layer in values:
                measured = distance(layer[rows], layer[columns])
                table = measured if table is None else FOLDS[reduction](table, measured, out=table)
            matrix[a, b] = min(matrix[a, b], float(table.min()))
            done += table.size
            if time.perf_counter() - start > seconds:
                break
        return float(matrix.min()) / (len(values) if reduction == "mean" else 1), done / every

    return search


def scipy_cdist(reduction: str):
    def method():
        from scipy.spatial.distance import cdist

        return by_tiles(lambda a, b: cdist(a, b), reduction)

    return method


def torch_cdist():
    import torch

    return by_tiles(lambda a, b: torch.cdist(torch.from_numpy(a), torch.from_numpy(b)).numpy(), "min")


def sklearn_euclidean():
    from sklearn.metrics import euclidean_distances

    return by_tiles(lambda a, b: euclidean_distances(a, b), "min")


def faiss_flat():
    import faiss

    def search(values: np.ndarray, groups: np.ndarray, seconds: float) -> tuple[float, float]:
        best, done, total = np.inf, 0, 0
        start = time.perf_counter()
        classes = range(int(groups.max()) + 1)
        jobs = [(layer, c, int((groups == c).sum()) * int((groups > c).sum())) for layer in values for c in classes]
        total = sum(job[2] for job in jobs)
        for layer, c, size in jobs:
            if size:
                index = faiss.IndexFlatL2(layer.shape[1])
                index.add(np.ascontiguousarray(layer[groups > c]))
                queries = np.ascontiguousarray(layer[groups == c])
                for row in range(0, len(queries), TILE):
                    squares, _ = index.search(queries[row : row + TILE], 1)
                    best = min(best, float(np.sqrt(max(float(squares.min()), 0.0))))
                    done += len(queries[row : row + TILE]) * index.ntotal
                    if time.perf_counter() - start > seconds:
                        return best, done / total
        return best, 1.0

    return search


def ours(function, reduction: str):
    def search(values: np.ndarray, groups: np.ndarray, seconds: float) -> tuple[float, float]:
        answer = function(values, groups, reduction, threads=THREADS)
        return (answer.overall() if function is closest_pairs else answer).value, 1.0

    return lambda: search


OURS = {
    f"ours, {reduction}, {what}": ours(function, reduction)
    for reduction in REDUCTIONS
    for what, function in (("overall", closest_pair), ("class matrix", closest_pairs))
}
OTHERS = {
    **{f"scipy cdist, {reduction}": scipy_cdist(reduction) for reduction in REDUCTIONS},
    "torch.cdist, min": torch_cdist,
    "scikit-learn euclidean_distances, min": sklearn_euclidean,
    "faiss IndexFlatL2 per class, min": faiss_flat,
}
METHODS = {**OURS, **OTHERS}


def reduction_of(method: str) -> str:
    """The reduction that a method's name tells."""
    return next(part for part in method.split(", ") if part in REDUCTIONS)


def times_faster(images: int, found: dict[str, dict]) -> list[str]:
    """Markdown rows: how many times less ours takes than scipy for the same reduction, wall, CPU and path."""
    rows = []
    for method in OURS:
        scipy, mine = found[f"scipy cdist, {reduction_of(method)}"], found[method]
        wall, cpu = scipy["wall"] / scipy["share"], scipy["cpu"] / scipy["share"]
        rows.append(
            f"| {images:,} | {method} | {wall / mine['wall']:,.0f} | {cpu / mine['cpu']:,.0f} | "
            f"{cpu / mine['path']:,.0f} |"
        )
    return rows


TIMES_FASTER = ("| N | method | wall | CPU | scipy's CPU to our path |", "|---|---|---|---|---|")


def adversarial(images: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Sets on which approximate distances fail, or pruning could."""
    random = np.random.default_rng(0)
    values, labels = softmax_trajectory(images)
    near = values.astype(np.float64)
    near[:, images // 2 :] = near[:, : images - images // 2]
    near += 1e-9 * random.standard_normal(near.shape)
    doubled = values.copy()
    doubled[:, images // 2 :] = doubled[:, : images - images // 2]
    return {
        "near ties (1e-9)": (near, labels),
        "duplicates across classes": (doubled, labels),
        "saturated softmax": softmax_trajectory(images, gain=60),
        "all identical": (np.full_like(values, 0.1), labels),
    }


def child(method: str, folder: str, seconds: float, mapped: bool) -> None:
    """Run one method and print its figures as JSON."""
    # faiss imports a package named as a file beside this one.
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
    values = np.load(f"{folder}/values.npy", mmap_mode="r")
    groups = np.load(f"{folder}/groups.npy")
    try:
        search = METHODS[method]()
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    for images in (500, 2_000 if mapped else 20_000) if method in OURS else (500,):
        search(values[:, :images].copy(), groups[:images], seconds)
    # Counted before the run, so growth is what the method itself takes; of a mapped trajectory the pages that
    # the search touches count as well.
    resident = values if mapped else np.array(values)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    with counted() as path:
        value, share = search(resident, groups, seconds)
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    figures = {"value": value, "share": share, "wall": took, "cpu": cpu, "path": path.seconds}
    print(json.dumps({**figures, "mib": (after - before) / 1024}))


def run_child(method: str, folder: str, seconds: float, *, mapped: bool = False, threads: int | None = None) -> dict:
    """Figures of one method in its own process; a failure is told with what the process said."""
    command = [sys.executable, __file__, "--child", method, "--folder", folder, "--seconds", str(seconds)]
    command += ["--mapped"] * mapped + (["--threads", str(threads)] if threads else [])
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{method} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def resume(path: Path | None) -> None:
    """Take the figures of earlier runs from `path`, JSON lines, and keep those to come there."""
    global STATE
    STATE = path
    if path and path.exists():
        KNOWN.update(json.loads(line) for line in path.read_text().splitlines())


def known(name: str, find: Callable[[], dict]) -> dict:
    """The figures of that name, kept once they are known."""
    if name not in KNOWN:
        KNOWN[name] = find()
        if STATE:
            with STATE.open("a") as file:
                file.write(json.dumps([name, KNOWN[name]]) + "\n")
    return KNOWN[name]


def measure(
    name: str, values: np.ndarray, groups: np.ndarray, methods: list[str], seconds: float, threads: int | None = None
) -> dict[str, dict]:
    names = {method: f"{name}, {values.shape}, {threads} threads, {method}, {seconds} s" for method in methods}
    if all(key in KNOWN for key in names.values()):
        return {method: KNOWN[key] for method, key in names.items()}
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/values.npy", values)
        np.save(f"{folder}/groups.npy", groups)
        found = {}
        for method in methods:
            found[method] = known(
                names[method], lambda method=method: run_child(method, folder, seconds, threads=threads)
            )
            print(f"{values.shape[1]:>9} {method}: {found[method]}", file=sys.stderr, flush=True)
    return found


def rows(name: str, found: dict[str, dict]) -> Iterator[str]:
    """Markdown rows; errors are against ours for the same reduction, which the tests hold to brute force."""
    for method, figures in found.items():
        if "missing" in figures:
            yield f"| {name} | {method} | not installed | | | | | |"
            continue
        whole = figures["share"] >= 1
        mark = "" if whole else "~"
        error = (
            f"{abs(figures['value'] - found[f'ours, {reduction_of(method)}, overall']['value']):.1e}" if whole else ""
        )
        wall, cpu = (figures[what] / figures["share"] for what in ("wall", "cpu"))
        path = f"{figures['path']:.3g}" if method in OURS else ""
        yield (
            f"| {name} | {method} | {mark}{wall:.3g} | {mark}{cpu:.3g} | {path} | {figures['mib']:.0f} | "
            f"{figures['value']:.6g} | {error} |"
        )


def many_classes(images: int, depths: int, classes: int, seconds: float) -> Iterator[str]:
    """Rows of min over a memory-mapped trajectory of many classes, written to disk and not held in memory."""
    with tempfile.TemporaryDirectory() as folder:
        values, groups = softmax_trajectory(images, depths, classes, gain=20, width=64)
        np.save(f"{folder}/values.npy", values)
        np.save(f"{folder}/groups.npy", groups)
        size = values.nbytes / 2**20
        del values
        name = f"N = {images:,}, {depths} depths, {classes:,} classes, memory-mapped ({size:,.0f} MiB)"
        for method in ("ours, min, overall", "ours, min, class matrix"):
            figures = run_child(method, folder, seconds, mapped=True)
            yield (
                f"| {name} | {method} | {figures['wall']:.3g} | {figures['cpu']:.3g} | "
                f"{figures['path']:.3g} | {figures['mib']:.0f} | {figures['value']:.6g} | |"
            )


def equal_to_brute_force(values: np.ndarray, groups: np.ndarray) -> bool:
    """Whether all answers for a sample of the images are those of brute force, bit for bit."""
    chosen = np.unique(np.linspace(0, values.shape[1] - 1, CHECKED).astype(np.int64))
    values, groups = values[:, chosen].copy(), groups[chosen]
    same = True
    for reduction in REDUCTIONS:
        expected = brute_force_closest_pairs(values, groups, reduction)
        found = closest_pairs(values, groups, reduction, backend="numba")
        names = ("value", "first", "second", "block")
        same &= all(np.array_equal(getattr(found, n), getattr(expected, n), equal_nan=True) for n in names)
        same &= closest_pair(values, groups, reduction, backend="numba") == expected.overall()
    return same


def equality_row(name: str, values: np.ndarray, groups: np.ndarray) -> str:
    equal = known(f"equality, {name}", lambda: {"equal": bool(equal_to_brute_force(values, groups))})["equal"]
    return f"| {name} | equal to brute force on {CHECKED:,} of the images | | | | | {'yes' if equal else 'NO'} | |"


def other_kinds(images: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Uniform, clustered and adversarial sets of so many images, 10 classes."""
    random = np.random.default_rng(0)
    uniform = random.dirichlet(np.ones(10), (10, images)).astype(np.float32), random.integers(0, 10, images)
    return {"uniform": uniform, "clustered": softmax_trajectory(images, 10), **adversarial(images)}


def sets_like_recorded(path: Path, sizes: list[int], others_at: list[int], seconds: float) -> Iterator[str]:
    """Rows, speed-ups and growth for sets fitted to a recorded trajectory, with one thread and with two."""
    times: dict[str, list[tuple[int, float]]] = {}
    ratios = []
    for images in sizes:
        values, groups = realistic(path, images)
        for threads in (1, 2):
            methods = [*OURS, *(OTHERS if images in others_at and threads == 2 else [])]
            name = f"N = {images:,}, like the recorded one, {threads} thread(s)"
            found = measure(name, values, groups, methods, seconds, threads)
            yield from rows(name, found)
            if threads == 1:
                for method in OURS:
                    times.setdefault(method, []).append((images, found[method]["cpu"]))
            if set(OTHERS) <= found.keys():
                ratios += times_faster(images, found)
        yield equality_row(f"N = {images:,}, like the recorded one", values, groups)
    for name, (values, groups) in other_kinds(CHECKED).items():
        yield equality_row(f"N = {values.shape[1]:,}, {name}", values, groups)
    yield from ("", "Like the recorded one, times faster than scipy in the same run (2 threads):", "")
    yield from (*TIMES_FASTER, *ratios)
    yield from (
        "",
        "Like the recorded one, growth exponent of CPU time over N:",
        "",
        "| method | exponent |",
        "|---|---|",
    )
    for method, points in times.items():
        if len(points) > 1:
            yield f"| {method} | {exponent(*(list(x) for x in zip(*points, strict=True))):.2f} |"


def exponent(sizes: list[int], times: list[float]) -> float:
    """Slope of log time over log N, least squares."""
    return float(np.polyfit(np.log(sizes), np.log(times), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", default="10000,60000", help="sizes for all methods")
    parser.add_argument("--large", default="1000000", help="sizes for ours only")
    parser.add_argument("--gains", default="3,12,40", help="sharpness of the softmax: unsure, good, saturated")
    parser.add_argument("--adversarial", type=int, default=4000, help="images in each adversarial set")
    parser.add_argument("--classes", type=int, default=1000, help="classes of the set of many classes")
    parser.add_argument("--many", type=int, default=50_000, help="images in the set of many classes; 0: leave it out")
    parser.add_argument("--many-depths", type=int, default=13, help="depths of the set of many classes")
    parser.add_argument("--seconds", type=float, default=6.0, help="limit for each other method")
    parser.add_argument("--output", type=Path, help="write the table here as Markdown")
    parser.add_argument("--recorded", type=Path, help="npz for sets like it (realistic_sets.py); those sets only")
    parser.add_argument("--realistic", default="60000,200000,1000000", help="sizes of the sets like it")
    parser.add_argument("--state", type=Path, help="keep every figure here, and go on from it")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--mapped", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        global THREADS
        THREADS = options.threads
        child(options.child, options.folder, options.seconds, options.mapped)
        return
    resume(options.state)
    text = [
        "# Closest pairs of different classes",
        "",
        f"`{' '.join(['python', 'benchmarks/pair_search.py', *sys.argv[1:]])}`",
        "",
        f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores usable, load average at the start "
        f"{os.getloadavg()[0]:.1f}; Python {platform.python_version()}, numpy {np.__version__}. "
        "10 classes, float32 softmax trajectories.",
        "",
        __doc__.split("\n\n")[-2].strip(),
        "",
        "| set | method | wall s | CPU s | path s | peak MiB | value | error |",
        "|---|---|---|---|---|---|---|---|",
    ]
    if options.recorded:
        sizes = [int(n) for n in options.realistic.split(",") if n]
        others_at = [int(n) for n in options.images.split(",") if n]
        finish(text + list(sets_like_recorded(options.recorded, sizes, others_at, options.seconds)), options.output)
        return
    growth: dict[tuple[str, str], list[tuple[int, float]]] = {}
    small = [int(n) for n in options.images.split(",") if n]
    large = [int(n) for n in options.large.split(",") if n]
    speedups = []
    for gain in options.gains.split(","):
        for images in small + large:
            values, groups = softmax_trajectory(images, gain=float(gain))
            every = images in small and gain == options.gains.split(",")[len(options.gains.split(",")) // 2]
            name = f"N = {images:,}, gain {gain}"
            found = measure(name, values, groups, list(METHODS) if every else list(OURS), options.seconds)
            text += rows(name, found)
            for method in OURS:
                growth.setdefault((gain, method), []).append((images, found[method]["cpu"]))
            if every:
                speedups += times_faster(images, found)
    if options.adversarial:
        for name, (values, groups) in adversarial(options.adversarial).items():
            name = f"{name}, N = {options.adversarial:,}"
            text += rows(name, measure(name, values, groups, list(METHODS), options.seconds))
    if options.many:
        text += many_classes(options.many, options.many_depths, options.classes, options.seconds)
    text += ["", "Times faster than scipy in the same run:", "", *TIMES_FASTER, *speedups]
    text += ["", "Growth exponent of CPU time over N:", "", "| gain | method | exponent |", "|---|---|---|"]
    for (gain, method), points in growth.items():
        if len(points) > 1:
            text.append(f"| {gain} | {method} | {exponent(*(list(x) for x in zip(*points, strict=True))):.2f} |")
    finish(text, options.output)


def finish(text: list[str], output: Path | None) -> None:
    report = "\n".join(text) + "\n"
    print(report)
    if output:
        output.write_text(report)


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
