"""Where a number comes from: versions, device, threads, git commit, plugin distributions, command line."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from stabilitykit.plugins.loading import PluginHost

PACKAGES = (
    "stabilitykit",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "numba",
    "cvxpy",
    "clarabel",
    "scs",
    "scikit-learn",
    "pandas",
    "pluggy",
    "click",
)

# Other batch sizes and thread counts sum floats in another order; no logit was seen to move by more than this
# fraction of the largest one (benchmarks/determinism.py measures it).
LOGIT_BOUND = 1e-5


def package_versions() -> dict[str, str]:
    """Installed versions of what can change a number; "absent" where a package is missing."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def git_commit(folder: Path) -> str | None:
    """Commit of the checkout this code runs from, with "+changes" when tracked files differ; None outside git."""
    try:

        def git(*words: str) -> str:
            return subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=5, check=True
            ).stdout.strip()

        top = Path(git("rev-parse", "--show-toplevel"))
        if not (top / "stabilitykit" / "__init__.py").exists():
            return None  # an installed package inside somebody else's repository
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def cpu_name() -> str:
    """The processor's own name, which decides how sums are ordered; the architecture where the system tells no more."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def provenance(host: PluginHost, device: Any, seed: int) -> dict[str, Any]:
    """Plain data recorded once per run."""
    import torch

    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else [],
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": package_versions(),
        "git": git_commit(Path(__file__).resolve().parents[1]),
        "device": {
            "type": device.type,
            "name": name,
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "cpus": os.cpu_count(),
        },
        "seed": seed,
        "determinism": {
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "tf32": bool(torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32),
            "same_seed_same_machine": "identical to the last bit",
            "other_batch_size_or_threads": f"logits move by at most {LOGIT_BOUND:g} of the largest one (float32)",
        },
        "plugins": [
            {"name": r.name, "distribution": r.distribution, "version": r.version, "status": r.status, "error": r.error}
            for r in host.records
        ],
    }
