"""Which device the searches use: chosen once for a run, by whoever runs it, and looked up where a search begins."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

_DEVICE: ContextVar[str | None] = ContextVar("device_of_searches", default=None)
# Beside the numbers of a search: tiles of products, masks and candidates.
WORK_BYTES = 3 * 2**30


@contextlib.contextmanager
def searching_on(device: str | None) -> Iterator[None]:
    """A ``with`` block whose searches run on ``device``, a name of torch's; None: compiled, on the CPU.

    Their answers are the same to the last bit. Threads started inside do not inherit it.

    Examples:
        >>> with searching_on("cpu"):
        ...     device_of_searches(1000)
        'cpu'
        >>> device_of_searches(1000) is None
        True
    """
    token = _DEVICE.set(device)
    try:
        yield
    finally:
        _DEVICE.reset(token)


def searchable(kind: str, index: int | None = None) -> str | None:
    """The device for :func:`searching_on` when a network runs on one of this kind ("cpu", "cuda", "mps").

    Only CUDA devices compute in float64 and faster than the compiled searches: None for the others.
    """
    return None if kind != "cuda" else "cuda" if index is None else f"cuda:{index}"


def device_of_searches(size: int) -> str | None:
    """The device that a search over ``size`` bytes of float64 uses; None: compiled, on the CPU.

    That is the answer also where the device has no room: a search needs its numbers twice, and room to work.
    """
    device = _DEVICE.get()
    if device is None or not device.startswith("cuda"):
        return device
    import torch

    free, _ = torch.cuda.mem_get_info(torch.device(device))
    return device if 2 * size + WORK_BYTES <= free else None
