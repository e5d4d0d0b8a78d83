"""The counted length of a search on threads (benchmarks/counted_threads.py)."""

from __future__ import annotations

import time

import pytest

from benchmarks.counted_threads import counted, makespan
from stabilitykit.search.parallel import run


def burn(seconds):
    """Use so much processor time of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


def test_the_free_thread_takes_the_next_task():
    assert makespan([3.0, 1.0, 1.0, 2.0], 2) == 4.0
    assert makespan([3.0, 1.0, 1.0, 2.0], 1) == 7.0
    assert makespan([], 2) == 0.0


def test_a_path_is_the_main_threads_time_and_that_of_the_busiest_worker():
    with counted() as path:
        burn(0.02)
        assert run(burn, [0.03, 0.01, 0.01, 0.01], 2) == [0.03, 0.01, 0.01, 0.01]
    assert path.seconds == pytest.approx(0.05, abs=0.015)
    assert path.seconds >= 0.05
