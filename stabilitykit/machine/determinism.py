"""Equal seeds, equal numbers: generators seeded, deterministic algorithms, no TF32."""

from __future__ import annotations

import os


def make_deterministic(seed: int) -> None:
    """Seed every generator and ask torch for deterministic algorithms (a warning where there is none)."""
    import random

    import numpy as np
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
