"""Shared fixtures: a cache of its own per test session, and the real data where it is there."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

# A worker per core, and tests that start processes: with two threads each, tiny tensors cost five times the processor
# time, spent waiting for the other thread. Tests about threads ask for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Machines are slow and shared: a law is about values, never about time.
settings.register_profile("laws", deadline=None, max_examples=40)
settings.load_profile("laws")


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """Jobs started in the background ignore Ctrl-C, and hand that down; the tests of it send real signals."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Never read or write the user's trajectory cache."""
    os.environ["STABILITYKIT_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with MNIST/, cifar10/ and checkpoints/; the test is skipped where it is absent."""
    given = os.environ.get("STABILITYKIT_SHARED_DATA")
    folder = Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "MNIST").is_dir():
        pytest.skip(f"no real data at {folder}; set STABILITYKIT_SHARED_DATA")
    return folder
