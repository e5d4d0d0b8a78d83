"""How long a search on several threads takes at least, counted in processor time: other load does not spoil it.

Within `counted()` every pool of the searches notes the processor time of each of its tasks. A path's length is the
main thread's processor time and, for every pool, the time after which its busiest thread ends when each thread takes
the next task in their order. On an idle machine with as many cores a search takes about that long.
"""

from __future__ import annotations

import contextlib
import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from stabilitykit.search import parallel


class Path:
    """Length of a path in seconds, known once its `counted` block has ended."""

    def __init__(self) -> None:
        self.pools = 0.0
        self.seconds = 0.0


def makespan(tasks: list[float], threads: int) -> float:
    """Seconds until tasks of so many seconds, taken in their order by the thread that is free first, are all done."""
    ends = [0.0] * threads
    for task in tasks:
        heapq.heapreplace(ends, ends[0] + task)
    return max(ends)


@contextlib.contextmanager
def counted() -> Iterator[Path]:
    """Count the searches of the block; it must not start pools within the tasks of a pool."""
    path = Path()

    class Pool(ThreadPoolExecutor):
        def __init__(self, threads: int) -> None:
            super().__init__(threads)
            self.tasks: list[list[float]] = []
            self.threads = threads

        def _timed(self, work: Callable[..., Any]) -> Callable[..., Any]:
            own = [0.0]
            self.tasks.append(own)

            def timed(*arguments: Any) -> Any:
                start = time.thread_time()
                try:
                    return work(*arguments)
                finally:
                    own[0] = time.thread_time() - start

            return timed

        def submit(self, work: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
            return super().submit(self._timed(work), *arguments)

        def map(self, work: Callable[..., Any], *tasks: Iterable[Any], **_: Any) -> Iterator[Any]:
            return iter([f.result() for f in [self.submit(work, *task) for task in zip(*tasks, strict=True)]])

        def __exit__(self, *error: object) -> bool | None:
            result = super().__exit__(*error)
            path.pools += makespan([task[0] for task in self.tasks], self.threads)
            return result

    original, start = parallel.ThreadPoolExecutor, time.thread_time()
    parallel.ThreadPoolExecutor = Pool  # type: ignore[misc, assignment]
    try:
        yield path
    finally:
        parallel.ThreadPoolExecutor = original  # type: ignore[misc]
        path.seconds = path.pools + time.thread_time() - start
