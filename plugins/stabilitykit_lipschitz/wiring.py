"""The dense blocks between the activations of a torch module, as differentiable functions of its parameters.

A copy in eval mode is recorded once as a graph of aten ops. Run on unit vectors, with every activation replaced by unit
vectors of its own state, its affine parts (whatever they are made of) yield their matrices, and autograd their
derivatives: row 0 carries zeros, and what another row has more than row 0 is a column of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.func import functional_call, functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from stabilitykit_lipschitz.activations import ACTIVATIONS
from stabilitykit_lipschitz.copying import evaluation_copy
from stabilitykit_lipschitz.network import Network
from stabilitykit_lipschitz.slopes import Activation
from stabilitykit_lipschitz.trace import UnsupportedModule, named_arguments

# A difference of two rows is off by a few ulp of the rows; this is thousands.
ROUNDING = 1e-12


@dataclass(frozen=True)
class Blocks:
    """layers: per layer {state k: (N, size of k)}; outputs: {state k: (K, size of k)}: float64, with gradients.
    errors: {(layer index or L+1 for the output, state k): Frobenius bound on the rounding of a block}."""

    layers: list[dict[int, torch.Tensor]]
    outputs: dict[int, torch.Tensor]
    errors: dict[tuple[int, int], float]

    def __iter__(self) -> Iterator[dict[int, torch.Tensor]]:
        return iter([*self.layers, self.outputs])


class Wiring:
    """Reads blocks off ``model``, whose parameters may change between the calls, not its structure.

    Arguments:
        model: torch module. network: what `extract` read of it.

    Raises:
        UnsupportedModule: an activation that is not one aten op, that has learned slopes, or that acts on vectors.
    """

    def __init__(self, model: nn.Module, network: Network) -> None:
        for layer in network.layers:
            if layer.shared or not isinstance(layer.activation, Activation):
                raise UnsupportedModule(
                    f"{layer.name!r} ({layer.activation.name}) bounds whole vectors; a penalty knows elementwise "
                    "activations only"
                )
        self.model, self.network = model, network
        self.starts = np.cumsum([1, *network.sizes])
        copy = evaluation_copy(model)

        def run(weights: dict[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
            return functional_call(copy, weights, (rows,))

        rows = torch.zeros(int(self.starts[-1]), *network.input_shape, dtype=torch.float64)
        rows.view(len(rows), -1)[self._rows(0)] = torch.eye(network.inputs, dtype=torch.float64)
        self.unit = rows
        with torch.no_grad():
            try:
                graph = make_fx(functionalize(run, remove="mutations"))(self._weights(), rows)
            except Exception as error:  # whatever the module's own code or torch's recording raises
                raise UnsupportedModule(
                    f"{type(model).__name__} cannot be recorded as one graph of operations "
                    f"({' '.join(str(error).split())[:200]}); a penalty needs that"
                ) from error
            self.graph = _Unfolded(graph, self._replaced)
            first = self()
        for read, known in zip(first, [*(layer.blocks for layer in network.layers), network.outputs]):
            for k, block in read.items():
                if not np.allclose(block.numpy(), known[k], rtol=1e-9, atol=1e-9 * np.abs(known[k]).max(initial=0.0)):
                    raise UnsupportedModule(
                        "the module's weights are wired in a way that a penalty cannot follow (an activation that is "
                        "not one operation, or a batch dimension that does not stay first)"
                    )

    def _weights(self) -> dict[str, torch.Tensor]:
        held = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        return {name: w.cpu().double() if w.is_floating_point() else w.cpu() for name, w in held.items()}

    def _rows(self, state: int) -> slice:
        return slice(int(self.starts[state]), int(self.starts[state + 1]))

    def _replaced(self, func: Any, given: dict[str, Any]) -> Any:
        """Unit vectors of the next state in the place of an activation of ``given``'s self."""
        z, layer = given["self"], len(self.pre) + 1
        if layer > len(self.network.layers):
            raise UnsupportedModule(f"runs {func} more often than it has layers; a penalty cannot follow that")
        if any(isinstance(v, torch.Tensor) for k, v in given.items() if k not in ("self", "noise")):
            raise UnsupportedModule(f"runs {func} with learned slopes, which a penalty does not differentiate")
        flat = self._flat(z, self.network.layers[layer - 1].size, str(func))
        self.pre.append(flat)
        out = torch.zeros_like(flat)
        out[self._rows(layer)] = torch.eye(flat.shape[1], dtype=out.dtype)
        return out.view(z.shape)

    def _flat(self, rows: torch.Tensor, size: int, what: str) -> torch.Tensor:
        if rows.dim() < 1 or len(rows) != len(self.unit) or rows.numel() != len(rows) * size:
            raise UnsupportedModule(
                f"runs {what} on a tensor of shape {tuple(rows.shape)} where its reading has {size} numbers a sample; "
                "a penalty follows elementwise activations of one operation, with the batch first"
            )
        return rows.reshape(len(rows), size)

    def __call__(self) -> Blocks:
        """The blocks at the module's present parameters."""
        network = self.network
        self.pre: list[torch.Tensor] = []
        result = self.graph.run(self._weights(), self.unit)
        pre = [*self.pre, self._flat(result, network.classes, "its last operation")]
        self.pre = []
        if len(pre) != len(network.layers) + 1:
            raise UnsupportedModule(
                f"has {len(pre) - 1} activations of one operation and {len(network.layers)} layers in its reading; a "
                "penalty follows elementwise activations of one operation (nn.SiLU in the place of x * sigmoid(x))"
            )
        blocks: list[dict[int, torch.Tensor]] = []
        errors: dict[tuple[int, int], float] = {}
        known = [*(layer.blocks for layer in network.layers), network.outputs]
        for index, (z, states) in enumerate(zip(pre, known), start=1):
            blocks.append({})
            for k in states:
                columns = z[self._rows(k)]
                blocks[-1][k] = (columns - z[0]).T
                with torch.no_grad():
                    size = float(columns.norm() + z[0].norm() * len(columns) ** 0.5)
                errors[index, k] = ROUNDING * size
        return Blocks(blocks[:-1], blocks[-1], errors)


class _Unfolded(fx.Interpreter):
    """Runs a graph; every activation of something that depends on its last input goes to ``replaced``."""

    def __init__(self, graph: fx.GraphModule, replaced: Callable[[Any, dict[str, Any]], torch.Tensor]) -> None:
        super().__init__(graph)
        self.extra_traceback = False
        self.replaced = replaced
        nodes = list(graph.graph.nodes)
        moving = {next(n for n in reversed(nodes) if n.op == "placeholder")}
        for node in nodes:
            if moving.intersection(node.all_input_nodes):
                moving.add(node)
        self.acting = {n for n in moving if n.target in ACTIVATIONS}

    def run_node(self, n: fx.Node) -> Any:
        if n not in self.acting:
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        target: Any = n.target
        out = self.replaced(target, named_arguments(target, args, kwargs))
        more = len(target._schema.returns) - 1
        return (out, *[None] * more) if more else out
