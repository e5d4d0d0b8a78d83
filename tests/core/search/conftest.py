"""The samples of these tests are small: without a backend of their own they go through the compiled searches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stabilitykit.search.pairs import dense


def pytest_itemcollected(item: pytest.Item) -> None:
    """One process runs these tests: two that need the same machine code at the same moment would both compile it."""
    if Path(__file__).parent in item.path.parents:
        item.add_marker(pytest.mark.xdist_group("search"))


@pytest.fixture(scope="module", autouse=True)
def compiled_searches() -> Iterator[None]:
    """No sample is small enough for numpy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "MOST_WORK", -1.0)
        yield
