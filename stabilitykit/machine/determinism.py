"""Equal seeds, equal numbers: generators seeded, deterministic algorithms, no TF32."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

# What make_deterministic sets in the environment.
_VARIABLES = ("CUBLAS_WORKSPACE_CONFIG", "TORCHINDUCTOR_DETERMINISTIC")


@contextlib.contextmanager
def process_put_back() -> Iterator[None]:
    """Generators, torch's modes and environment variables are after the body what they were before.

    For a process that is somebody's notebook: what :func:`make_deterministic` sets is wanted while measuring only.
    """
    import random

    import numpy as np
    import torch

    variables = {name: os.environ.get(name) for name in _VARIABLES}
    drawn = random.getstate(), np.random.get_state()
    mode = torch.get_deterministic_debug_mode()
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    modes = cudnn.benchmark, matmul.allow_tf32, cudnn.allow_tf32
    gradients = torch.is_grad_enabled()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if torch.cuda.is_available() else []):
            yield
    finally:
        torch.set_grad_enabled(gradients)
        cudnn.benchmark, matmul.allow_tf32, cudnn.allow_tf32 = modes
        torch.set_deterministic_debug_mode(mode)
        random.setstate(drawn[0])
        np.random.set_state(drawn[1])
        for name, value in variables.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def make_deterministic(seed: int) -> None:
    """Seed every generator and ask torch for deterministic algorithms (a warning where there is none)."""
    import random

    import numpy as np
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if "torch._inductor.config" in sys.modules:
        torch.use_deterministic_algorithms(True, warn_only=True)
    else:
        # That would import torch's compiler, for two seconds, to tell it what it reads from here when it is used.
        os.environ["TORCHINDUCTOR_DETERMINISTIC"] = "1"
        torch.set_deterministic_debug_mode("warn")
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
