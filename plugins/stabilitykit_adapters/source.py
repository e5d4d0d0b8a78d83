"""Where networks come from by name: what a component of kind model offers so that its networks can be audited."""

from __future__ import annotations

import contextlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from stabilitykit import UsageProblem

if TYPE_CHECKING:
    from stabilitykit_adapters.adapter import AdaptedModel


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
