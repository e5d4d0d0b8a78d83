"""What generators of hostile input share: the case, the work folder with its canary, byte mutations."""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TINY = ["--limit", "12", "--batch-size", "6", "-q", "--no-cache"]
WORDS = [
    "",
    " ",
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1",
    "2",
    "3",
    "1e400",
    "9" * 30,
    "none",
    "null",
    "true",
    "../..",
    "é\u202e",
    "a" * 300,
    "=,=:",
    "::",
    ",,",
    "[1]",
    "{}",
    "${HOME}",
    "%s%n",
    "'",
    '"',
    "\\",
    "\n",
    "<script>",
    "1.5",
    "all",
    "\ud800",
    "🙂",
    "conv",
    "2-2-2-2",
    "0-0-0-0",
    "1-1",
    "labels",
    "resnet18",
    "digits",
]


@dataclass(frozen=True)
class Case:
    """A command line.

    Attributes:
        must_fail: nothing it is given can give a number.
        long: it may rightly ask for hours of work (a million refinement steps): interrupted, as by Ctrl-C.
    """

    arguments: list[str]
    must_fail: bool = False
    long: bool = False


class Bench:
    """What the generators share: a work folder, a canary that executed code would make, a finished run, weights."""

    def __init__(self, root: Path) -> None:
        self.root, self.canary, self.number = root, root / "canary", 0
        os.environ["STABILITYKIT_CACHE"] = str(root / "cache")
        os.environ["STABILITYKIT_CANARY"] = str(self.canary)
        os.chdir(root)
        from stabilitykit.cli import run

        self.run = root / "finished"
        if run(["evaluate", *TINY, "-o", str(self.run), "-p", "expansivity"]) != 0:
            raise SystemExit("the embedded run fails without any hostile input")
        weights = Path(__import__("stabilitykit_resnets").__file__).parent / "weights" / "resnet18-digits.safetensors"
        self.weights = weights.read_bytes()

    def fresh(self) -> Path:
        """An empty folder; the one before it is removed."""
        shutil.rmtree(self.root / f"input-{self.number}", ignore_errors=True)
        self.number += 1
        folder = self.root / f"input-{self.number}"
        folder.mkdir()
        return folder


def mutate(rng: random.Random, data: bytes, span: int | None = None) -> bytes:
    """Flip, cut, insert or repeat bytes, mostly among the first ``span``."""
    raw = bytearray(data)
    span = min(span or len(raw), len(raw))
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        if not raw:
            break
        place, kind = rng.randrange(max(min(span, len(raw)), 1)), rng.randrange(5)
        if kind == 0:
            raw[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            raw[place] = rng.choice([0, 255, 127, 128, rng.randrange(256)])
        elif kind == 2:
            del raw[place : place + rng.choice([1, 4, 100, len(raw)])]
        elif kind == 3:
            raw[place:place] = rng.randbytes(rng.choice([1, 8, 64]))
        else:
            raw[place:place] = raw[place : place + rng.choice([1, 16, 256])]
    return bytes(raw)


def evaluate(*more: str, folder: Path) -> list[str]:
    return ["evaluate", *TINY, "-o", str(folder / "out"), *more]


class Touch:
    """A pickle that runs code when it is loaded."""

    def __init__(self, how: int) -> None:
        self.how = how

    def __reduce__(self) -> Any:
        command = 'touch "$STABILITYKIT_CANARY"'
        if self.how == 0:
            return os.system, (command,)
        if self.how == 1:
            return eval, (f"__import__('os').system({command!r})",)
        return exec, (f"import os; os.system({command!r})",)
