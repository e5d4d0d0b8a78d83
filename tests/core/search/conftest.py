"""The samples of these tests are small: without a backend of their own they go through the compiled searches."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stabilitykit.search.pairs import dense


@pytest.fixture(scope="module", autouse=True)
def compiled_searches() -> Iterator[None]:
    """No sample is small enough for numpy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense, "MOST_WORK", -1.0)
        yield
