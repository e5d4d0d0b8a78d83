"""Searches for lower bounds spend all the time they may: tests that name none are about upper bounds and get little."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stabilitykit_lipschitz.api import lipschitz


@pytest.fixture(scope="package", autouse=True)
def brief_searches() -> Iterator[None]:
    """Which inputs are looked at does not depend on the time (test_lower.py), only how many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(lipschitz.__kwdefaults__, "search_seconds", 0.1)
        yield
