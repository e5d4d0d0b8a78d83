"""Where networks come from by name: what a component of kind model offers so that its networks can be audited."""

from __future__ import annotations

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from stabilitykit import CellProblem, UsageProblem

if TYPE_CHECKING:
    from stabilitykit_adapters.adapter import AdaptedModel
    from stabilitykit_adapters.listing import Listed
    from stabilitykit_adapters.runs import Discovery


class NetworkSource(ABC):
    """The target of a model component whose networks are seen through the adapter.

    Both methods take the component's options as keyword arguments.
    """

    @abstractmethod
    def __call__(self, *args: Any, **options: Any) -> AdaptedModel:
        """The network with its weights, one run of its blocks chosen."""

    @abstractmethod
    def outline(self, *args: Any, **options: Any) -> tuple[nn.Module, tuple[int, ...]]:
        """(the network without weights, on the meta device where its builder allows; shape (C, H, W) of one input)."""

    def runs(self, *args: Any, **options: Any) -> Outline:
        """The network's course and its runs of equal dimension, found without weights where its builder allows.

        Raises:
            CellProblem: it cannot be followed.
        """
        from stabilitykit_adapters.adapting import View
        from stabilitykit_adapters.discovery import discover
        from stabilitykit_adapters.listing import listed
        from stabilitykit_adapters.tracing import TraceProblem

        mode, classes = options.get("mode"), options.get("classes")
        module, shape = self.outline(*args, **options)
        try:
            found = discover(module, shape, View.taken(options).wanted(options.get("num_classes")))
        except TraceProblem as problem:
            raise CellProblem(str(problem)) from None
        return Outline(found, listed(module, found, mode, classes))


@dataclass(frozen=True)
class Outline:
    """What there is to choose from in a network.

    Attributes:
        found: the course and the runs.
        lines: the course first (where no mode was asked for), then the runs.
    """

    found: Discovery
    lines: list[Listed]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the values in :attr:`rows`."""
        from stabilitykit_adapters.listing import COLUMNS

        return COLUMNS

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        """One per line."""
        return [line.row() for line in self.lines]

    @property
    def reasons(self) -> list[str]:
        """Why there is no course, and what is in no closed run."""
        course = self.found.course
        return [*([f"no course: {course}"] if isinstance(course, str) else []), *map(str, self.found.reasons)]


def built(owner: str, build: Callable[[], Any]) -> Any:
    """``build()``; UsageProblem that names ``owner`` for a missing package or refused options."""
    try:
        return build()
    except ModuleNotFoundError as error:
        raise UsageProblem(
            f"{owner} needs the package {error.name}, which is not installed: pip install {error.name}"
        ) from None
    except ImportError as error:
        raise UsageProblem(f"{owner} needs an optional package: {error}") from None
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageProblem(f"{owner} cannot be built with these options: {error}") from None


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the warnings of the libraries that build networks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
