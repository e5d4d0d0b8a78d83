"""The networks of the distinct readouts, some at a time: those of every depth at once may not fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stabilitykit.evaluation.context import Context
from stabilitykit_lipschitz.network import Network

# Bytes of weights of readouts that are kept at once; a solver needs several times that.
KEPT_BYTES = 10**9


def networks_of(
    context: Context, groups: Sequence[tuple[tuple[int, ...], Any]], missing: Callable[[tuple[int, ...], str], Any]
) -> Iterator[list[tuple[tuple[int, ...], Network]]]:
    """(depths, network) of the readouts, in parts of up to :data:`KEPT_BYTES`: a pass over the images serves each.

    Arguments:
        groups: (depths, g_t as a module) as of :func:`~stabilitykit_lipschitz.readouts.readouts_of`.
        missing: told of what has no network: its depths and the reason.
    """
    part: list[tuple[tuple[int, ...], Network]] = []
    size = 0
    for depths, head in groups:
        try:
            network = network_of(context, head, depths[0])
        except ValueError as error:
            missing(depths, str(error))
            continue
        size += network.weights * network.offset.itemsize
        part.append((depths, network))
        if size > KEPT_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def network_of(context: Context, head: Any, depth: int) -> Network:
    """The network that the module ``head`` computes of states of ``depth``, in float64.

    Raises:
        ValueError: there is no module, it has layers without a rule, or it ends in a softmax.
    """
    from stabilitykit_lipschitz.extract import extract

    if head is None:
        raise ValueError("the readout is not available as one module")
    network = extract(head, tuple(context.model.shape_at(depth)))
    if network.factor != 1.0:
        raise ValueError("the readout ends in a softmax; expected logits")
    return network
