"""Progress in a notebook or a Python prompt, by tqdm."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from stabilitykit.base.progress import Display, displayed_by

# A bar that is gone sooner than this was never needed.
DELAY = 0.5


class NotebookDisplay(Display):
    """Bars of ``tqdm.auto``: widgets in a notebook, text elsewhere. They vanish when they are full."""

    def bar(self, items: Iterable[Any], description: str = "", total: int | None = None) -> Iterator[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a notebook without widgets: tqdm draws text, and says so every time
            from tqdm.auto import tqdm

            class Bar(tqdm):  # type: ignore[misc]
                monitor_interval = 0  # no thread that outlives the bar

            length = total if total is not None else len(items) if isinstance(items, Sized) else None
            bar = Bar(items, desc=description, total=length, leave=False, delay=DELAY)
        yield from bar

    @contextlib.contextmanager
    def showing(self, wanted: bool) -> Iterator[NotebookDisplay]:
        """Show progress in the body, if ``wanted``."""
        with displayed_by(self if wanted else Display()):
            yield self
