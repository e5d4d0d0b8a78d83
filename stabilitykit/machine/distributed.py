"""One evaluation over several processes: PyTorch's own launcher and collectives (gloo on CPU, nccl on GPU)."""

from __future__ import annotations

import atexit
import datetime
import os
import pickle
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from stabilitykit.base.errors import StabilityKitError, describe

# A collective waits this long for a slow process before the run is given up.
TIMEOUT_VARIABLE = "STABILITYKIT_DISTRIBUTED_TIMEOUT"
DEFAULT_TIMEOUT = 3600.0
# Where it is 1, every process says on stderr at its end what it sent, received and read.
TRAFFIC_VARIABLE = "STABILITYKIT_DISTRIBUTED_TRAFFIC"


@dataclass
class Traffic:
    """Bytes of payload that this process handed to the collectives for others, and took from them."""

    sent: int = 0
    received: int = 0


@dataclass(frozen=True)
class World:
    """The processes of this run: ``rank`` of ``size``. A single process is a world of size 1."""

    rank: int = 0
    size: int = 1
    traffic: Traffic = field(default_factory=Traffic, compare=False)

    @property
    def leads(self) -> bool:
        """Rank 0 writes files and prints."""
        return self.rank == 0

    def all_gather(self, thing: Any) -> list[Any]:
        """Everyone's ``thing`` (picklable, from our own processes), in rank order, on every rank."""
        if self.size == 1:
            return [thing]
        import torch.distributed as dist

        out: list[Any] = [None] * self.size
        _guarded(lambda: dist.all_gather_object(out, thing))
        sizes = [len(pickle.dumps(part)) for part in out]
        self._count(sizes[self.rank], sum(sizes) - sizes[self.rank])
        return out

    def broadcast(self, thing: Any) -> Any:
        """Rank 0's ``thing`` on every rank."""
        if self.size == 1:
            return thing
        import torch.distributed as dist

        box = [thing]
        _guarded(lambda: dist.broadcast_object_list(box, src=0))
        size = len(pickle.dumps(box[0]))
        self._count(*((size, 0) if self.leads else (0, size)))
        return box[0]

    def share_rows(self, array: np.ndarray, bounds: Sequence[int], device: Any) -> None:
        """Fill ``array`` (T+1, N, K), of any float dtype, on every rank.

        Rank r holds the rows ``bounds[r]:bounds[r+1]`` and sends them.
        """
        if self.size == 1:
            return
        import torch
        import torch.distributed as dist

        for source in range(self.size):
            rows = slice(bounds[source], bounds[source + 1])
            if rows.stop <= rows.start:
                continue
            for depth in range(array.shape[0]):
                block = torch.from_numpy(np.ascontiguousarray(array[depth, rows])).to(device)
                _guarded(lambda block=block, source=source: dist.broadcast(block, src=source))
                if source != self.rank:
                    array[depth, rows] = block.cpu().numpy()
                size = block.numel() * block.element_size()
                self._count(*((size, 0) if source == self.rank else (0, size)))

    def _count(self, sent: int, received: int) -> None:
        self.traffic.sent += sent
        self.traffic.received += received


def join_world(device_type: str) -> World:
    """The world torchrun started this process in; a world of one outside torchrun.

    Raises:
        StabilityKitError: the processes cannot find each other.
    """
    size = int(os.environ.get("WORLD_SIZE", "1") or 1)
    if size <= 1 or "RANK" not in os.environ or "MASTER_ADDR" not in os.environ:
        return World()
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        seconds = float(os.environ.get(TIMEOUT_VARIABLE, DEFAULT_TIMEOUT))
        if device_type == "cuda":
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        _guarded(
            lambda: dist.init_process_group(
                "nccl" if device_type == "cuda" else "gloo", timeout=datetime.timedelta(seconds=seconds)
            )
        )
    world = World(dist.get_rank(), dist.get_world_size())
    if os.environ.get(TRAFFIC_VARIABLE) == "1":
        atexit.register(_tell, world)
    return world


def _tell(world: World) -> None:
    traffic, read = world.traffic, bytes_read()
    told = f"rank {world.rank} of {world.size}: sent {traffic.sent} bytes, received {traffic.received} bytes"
    print(told if read is None else f"{told}, read {read} bytes", file=sys.stderr, flush=True)


def bytes_read() -> int | None:
    """What this process has read so far by system calls: files in the page cache too, memory maps not; None where the
    system does not say (Linux does)."""
    try:
        with open("/proc/self/io", encoding="ascii") as stream:
            counts = dict(line.split(": ") for line in stream)
        return int(counts["rchar"])
    except (OSError, ValueError, KeyError):
        return None


def leave_world() -> None:
    """Close the process group, if any."""
    if "torch.distributed" not in __import__("sys").modules:
        return
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def row_bounds(count: int, batch_size: int, size: int) -> list[int]:
    """Split ``count`` rows among ``size`` ranks at multiples of the batch size: every rank runs whole batches.

    Batches then hold the same images as in a single process, so the logits are the same to the last bit.

    Examples:
        >>> row_bounds(1000, 100, 3)  # rank 0 runs rows 0..299, rank 1 rows 300..599, rank 2 the rest
        [0, 300, 600, 1000]
    """
    total = -(-count // batch_size)
    return [min(count, (total * rank // size) * batch_size) for rank in range(size)] + [count]


def _guarded(action: Any) -> None:
    try:
        action()
    except (RuntimeError, ValueError, ConnectionError) as error:
        # What the library says goes on with advice, and begins with a place in its source.
        reason = re.sub(r"\[/[^]]*\] ", "", describe(error)).partition(". ")[0]
        raise StabilityKitError(
            f"another process of this run died or cannot be reached ({reason}); "
            "finished cells are valid, --resume goes on from there"
        ) from error
