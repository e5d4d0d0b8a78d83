"""Hostile words: configuration files, component specs, command lines."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from benchmarks.fuzz_bench import TINY, WORDS, Bench, Case, evaluate, mutate


def config(rng: random.Random, folder: Path, bench: Bench) -> Case:
    """YAML and TOML files for --config: mutated, nested, of odd types."""
    kind = rng.choice(["yaml", "toml"])
    pairs = {"model": "resnet18-digits", "dataset": "digits", "properties": ["expansivity"], "limit": 8, "seed": 3}
    base = "".join(f"{k}{' = ' if kind == 'toml' else ': '}{json.dumps(v)}\n" for k, v in pairs.items()).encode()
    how = rng.randrange(5)
    if how == 0:
        data = rng.randbytes(rng.randrange(200))
    elif how == 1:
        data = mutate(rng, base)
    elif how == 2:
        keys = [
            "models",
            "datasets",
            "properties",
            "checkpoint",
            "limit",
            "seed",
            "space",
            "readout",
            "device",
            "output",
            "cache",
            "no_cache",
            "resume",
            "batch-size",
            "extract_dtype",
            "probe_dataset",
            "probe_epochs",
            "probe_steps",
            "format",
            "report",
            "quiet",
            "download",
            "strict-plugins",
            "any_classes",
            "channels_last",
            "trajectories",
            "config",
        ]
        values = [
            "null",
            "[]",
            "{}",
            "[[1]]",
            "{a: 1}",
            "1e999",
            ".nan",
            "-.inf",
            "-1",
            "0",
            "true",
            '""',
            '"\\0"',
            "2020-01-01",
            "[null]",
            "[1, 2]",
            "{name: 3}",
            "{name: expansivity, options: 5}",
            "{name: expansivity, options: {pairs: [1]}}",
            "!!binary aGk=",
            "0x10",
            "1_000",
            "~",
            "99999999999999999999999",
            "[resnet18-digits, resnet18-digits]",
        ]
        data = base.replace(b"limit: 8\n", b"").replace(b"seed: 3\n", b"") if kind == "yaml" else b""
        kind = "yaml"
        data += "".join(f"{k}: {rng.choice(values)}\n" for k in rng.sample(keys, rng.choice([1, 1, 2]))).encode()
    elif how == 3:
        data = rng.choice(
            [
                b"[" * 5000,
                b"a: " * 3000,
                b"{" * 3000,
                b"!!python/object/apply:os.system ['touch $STABILITYKIT_CANARY']",
                b"!!python/object/new:os.system [touch]",
                b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
                b"\xff\xfe",
                b"\x00",
                b"- 1",
                b"limit: " + b"9" * 5000,
                b"? [a]\n: 1\n",
                b"1: 2\n",
                b"---\na: 1\n---\nb: 2\n",
            ]
        )
    else:
        data = base + rng.choice(
            [b"\tx: 1", b"limit: 7", b"<<: {a: 1}", b"[table]\n", b'"quoted key": 1\n', b"limit = {a = 1}\n"]
        )
    path = folder / f"c.{kind}"
    path.write_bytes(data)
    return Case(["evaluate", *TINY[2:], "-o", str(folder / "out"), "-c", str(path)], long=True)


OPTIONS = {
    "-m": ["resnet18:width=4", "resnet50:width=4,depths=1-1-1-1", "resnet18-digits"],
    "-d": ["digits", "digits:train", "npz:", "imagefolder:", "mnist:", "cifar10:"],
    "-p": ["expansivity", "shadowing", "lipschitz", "topological", "perturbation", "table2", "blocks"],
}
KEYS = [
    "stem",
    "grouping",
    "width",
    "depths",
    "final_relu",
    "num_classes",
    "checkpoint",
    "seed",
    "split",
    "path",
    "size",
    "mask",
    "pad",
    "max_gib",
    "pairs",
    "curve",
    "median_pairs",
    "table_rows",
    "show",
    "family",
    "noise_scale",
    "tracers",
    "format",
    "refine_steps",
    "nonsense",
    "",
    "eps",
    "method",
    "radius",
    "samples",
    "orbits",
]


def options(rng: random.Random, folder: Path, bench: Bench) -> Case:
    """Specs with odd names, keys and values: one of the three is odd, the others are valid."""
    arguments, target = [], rng.choice([*OPTIONS, "-p"])
    for flag, names in OPTIONS.items():
        name = {"-m": "resnet18-digits", "-d": "digits", "-p": "expansivity"}[flag]
        if flag == target:
            name, known = rng.choice(names), _known_options(flag)
            if rng.random() < 0.9:
                keys = known.get(name.partition(":")[0], []) if rng.random() < 0.8 else KEYS
                pieces = [
                    f"{rng.choice(keys or KEYS)}={rng.choice(WORDS)}" if rng.random() < 0.9 else rng.choice(WORDS)
                    for _ in range(rng.choice([1, 1, 2]))
                ]
                name = name.rstrip(":") + rng.choice([":", ":", ":", ",", "=", "::"]) + ",".join(pieces)
            else:
                name = rng.choice(WORDS)
        arguments += [flag, name]
    return Case(evaluate(*arguments, folder=folder), long=True)


def _known_options(flag: str) -> dict[str, list[str]]:
    from stabilitykit.plugins.registry import Registry

    kind: Any = {"-m": "model", "-d": "dataset", "-p": "property"}[flag]
    return {c.name: [o.name for o in c.options] for c in Registry.load().components(kind)}


def arguments(rng: random.Random, folder: Path, bench: Bench) -> Case:
    """Commands and flags in any order with any value."""
    commands = [
        "evaluate",
        "train",
        "report",
        "compare",
        "verify",
        "export",
        "models",
        "datasets",
        "properties",
        "plugins",
        "new",
        "audit",
        "reproduce",
        "",
        "--version",
        "-h",
        "evalute",
    ]
    flags = [
        "--limit",
        "--seed",
        "--batch-size",
        "--space",
        "--readout",
        "--device",
        "--output",
        "--resume",
        "--format",
        "--epochs",
        "--lr",
        "--checkpoint",
        "-c",
        "-d",
        "--relative",
        "--patience",
        "--validation",
        "list",
        "show",
        "check",
        "property",
        "--subsamples",
        "--paired",
        "--probe-epochs",
        "--probe-steps",
        "--extract-dtype",
        "-t",
        "--list-runs",
        "--top",
        "--directory",
    ]
    values = [*WORDS, str(bench.run), str(folder), "/dev/null", "/proc/self/mem", "cuda:99", "a=b", "x.safetensors"]
    chosen = [rng.choice(commands)]
    for _ in range(rng.randrange(6)):
        chosen += [rng.choice(flags)] if rng.random() < 0.6 else [rng.choice(values)]
    # Bounded: what is valid must not start a long training or a download.
    if chosen[0] == "evaluate":
        chosen += ["--limit", "8", "--no-cache", "-q", "-o", str(folder / "out")]
    if chosen[0] == "train":
        chosen += ["--limit", "4", "--epochs", "1", "-q", "-o", str(folder / "w.safetensors")]
    return Case([c for c in chosen if c != "\n"], long=True)
