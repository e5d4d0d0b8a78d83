"""Equal seeds, equal numbers: generators seeded, deterministic algorithms, no TF32."""

from __future__ import annotations

import os
import sys


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
