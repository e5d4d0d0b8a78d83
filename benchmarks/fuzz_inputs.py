"""Families of hostile input: name -> ``family(rng, folder, bench) -> Case``; files go into ``folder``."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from benchmarks.fuzz_bench import Bench, Case
from benchmarks.fuzz_files import checkpoint, images, npz, runs, trajectories
from benchmarks.fuzz_text import arguments, config, options

Family = Callable[[random.Random, Path, Bench], Case]
FAMILIES: dict[str, Family] = {
    "config": config,
    "options": options,
    "arguments": arguments,
    "checkpoint": checkpoint,
    "npz": npz,
    "trajectories": trajectories,
    "images": images,
    "runs": runs,
}
