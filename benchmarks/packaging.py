"""Wheel and sdist, built and installed into fresh environments: python benchmarks/packaging.py [--write FILE].

For each of Python 3.11, 3.12 and 3.13 that is on this machine: a new virtual environment, the wheel with all it needs
from the package index, and commands that a new user would type. The sdist is installed into the first one. An
interpreter that is absent is named and left out. Environments are removed once they are measured (several GB each).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
# What a new user types first; the gate compares the run with itself, so it is open.
COMMANDS = (
    ("--version",),
    ("--help",),
    ("schema", "cell"),
    ("evaluate", "--quiet", "--no-cache", "--limit", "40", "--output", "run"),
    ("gate", "run", "--baseline", "run"),
    ("verify", "--quiet", "run"),
    ("report", "run"),
    ("new", "property", "my_property"),
    ("plugins", "list"),
)
# Measured on its own: the packages whose size decides.
LARGEST = 8


@dataclass
class Outcome:
    """What became of one installation; sizes in bytes, times in seconds."""

    python: str
    of: str
    seconds: float = 0.0
    size: int = 0
    parts: list[tuple[str, int]] = field(default_factory=list)
    versions: str = ""
    failed: list[str] = field(default_factory=list)


def call(*words: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """The finished process; nothing of this checkout is on its path."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run([str(w) for w in words], cwd=cwd, env=env, capture_output=True, text=True, check=False)


def interpreter(version: str) -> Path | None:
    """An interpreter of that version, on the path or where pyenv keeps them; None: there is none."""
    found = [shutil.which(f"python{version}")]
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found += [str(p / "bin" / "python") for p in sorted(home.glob(f"{version}.*"), reverse=True)]
    for path in filter(None, found):
        done = call(path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
        if done.returncode == 0 and done.stdout.strip() == version:
            return Path(path)
    return None


def build(folder: Path, python: Path) -> tuple[Path, Path]:
    """(wheel, sdist), built in an environment of their own from a copy of the tracked files."""
    env = folder / "build"
    for words in (
        (python, "-m", "venv", env),
        (env / "bin/python", "-m", "pip", "install", "-q", "hatchling>=1.27"),
        (env / "bin/python", "-m", "hatchling", "build", "-d", folder / "dist"),
    ):
        done = call(*words)
        if done.returncode:
            raise SystemExit(f"{' '.join(map(str, words))} failed:\n{done.stdout}{done.stderr}")
    (wheel,) = (folder / "dist").glob("*.whl")
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    return wheel, sdist


def try_out(folder: Path, python: Path, version: str, package: Path) -> Outcome:
    """Install ``package`` into a fresh environment and run COMMANDS there."""
    found = Outcome(version, package.name)
    env = folder / f"env-{version}"
    work = folder / f"work-{version}"
    work.mkdir()
    begun = time.perf_counter()
    try:
        for words in ((python, "-m", "venv", env), (env / "bin/python", "-m", "pip", "install", "-q", package)):
            done = call(*words, cwd=work)
            if done.returncode:
                found.failed.append(f"{' '.join(map(str, words[1:4]))}: {done.stderr.strip().splitlines()[-1:]}")
                return found
        found.seconds = time.perf_counter() - begun
        for words in COMMANDS:
            done = call(env / "bin/stabilitykit", *words, cwd=work)
            if done.returncode:
                found.failed.append(f"{' '.join(words)}: exit {done.returncode}: {done.stderr.strip()[-200:]}")
        found.size, found.parts = sizes(env)
        script = "import torch, numpy; print(f'torch {torch.__version__}, numpy {numpy.__version__}')"
        found.versions = call(env / "bin/python", "-c", script, cwd=work).stdout.strip()
    finally:
        shutil.rmtree(env, ignore_errors=True)
    return found


def sizes(env: Path) -> tuple[int, list[tuple[str, int]]]:
    """(bytes of all files, the largest packages) of an environment."""
    total, parts = 0, dict[str, int]()
    for path in env.rglob("*"):
        if path.is_file() and not path.is_symlink():
            size = path.stat().st_size
            total += size
            words = path.relative_to(env).parts
            if "site-packages" in words:
                name = words[words.index("site-packages") + 1]
                parts[name] = parts.get(name, 0) + size
    return total, sorted(parts.items(), key=lambda part: -part[1])[:LARGEST]


def page(wheel: Path, sdist: Path, outcomes: list[Outcome], absent: list[str]) -> str:
    """The measurements as Markdown."""
    lines = [
        "# Packaging",
        "",
        "`python benchmarks/packaging.py`: built and installed into fresh environments, then "
        + ", ".join(f"`{' '.join(words)}`" for words in COMMANDS)
        + ".",
        "",
        f"Wheel {wheel.stat().st_size / 1e6:.2f} MB, sdist {sdist.stat().st_size / 1e6:.2f} MB.",
        "",
        "| Python | installed | from the index, s | environment, GB | with | failed |",
        "|---|---|---|---|---|---|",
    ]
    for one in outcomes:
        lines.append(
            f"| {one.python} | {one.of} | {one.seconds:.0f} | {one.size / 1e9:.2f} | {one.versions} | "
            f"{'; '.join(one.failed).replace('|', '/') or 'nothing'} |"
        )
    lines += [f"\nNot measured: Python {version}, which is not on this machine." for version in absent]
    lines += ["", "The largest parts of the first environment, MB: "]
    lines[-1] += ", ".join(f"{name} {size / 1e6:.0f}" for name, size in (outcomes[0].parts if outcomes else ())) + "."
    return "\n".join(lines) + "\n"


def main() -> int:
    """Build, try out, print (and write) the page; exit 1 when anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="also write the page there")
    parser.add_argument("--python", action="append", choices=VERSIONS, help="only these versions")
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    absent = []
    with tempfile.TemporaryDirectory(prefix="packaging-") as name:
        folder = Path(name)
        wheel, sdist = build(folder, Path(sys.executable))
        for version in options.python or VERSIONS:
            python = interpreter(version)
            if python is None:
                absent.append(version)
                print(f"Python {version} is not on this machine: left out", file=sys.stderr)
                continue
            # The sdist goes through the same build as the wheel: once is enough.
            outcomes.append(try_out(folder, python, version, sdist if not outcomes else wheel))
            print(outcomes[-1], file=sys.stderr, flush=True)
        text = page(wheel, sdist, outcomes, absent)
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    return int(any(one.failed for one in outcomes) or not outcomes)


if __name__ == "__main__":
    raise SystemExit(main())
