"""What something costs in forward passes: products counted in every layer that runs, of copies of the network, too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from stabilitykit.dynamics.model import Model


class Products:
    """A ``with`` block that counts the products of numbers in convolutions and linear layers.

    Attention is counted by its projections alone. One per process at a time; whatever runs in other threads counts.
    """

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Products:
        from torch.nn.modules.module import register_module_forward_hook

        self._handle = register_module_forward_hook(self._add)
        return self

    def __exit__(self, *error: object) -> None:
        self._handle.remove()

    def _add(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim < 2 or not hasattr(output, "numel") or type(module).__name__ == "Embedding":
            return
        # Of a transposed convolution every input meets the kernel, of all else every output does.
        met = inputs[0] if getattr(module, "transposed", False) else output
        self.count += met.numel() * (weight.numel() // weight.shape[0])


def products_of_a_forward(model: Model, images: torch.Tensor) -> float:
    """Products of one plain forward pass, per image of ``images``, float32 (B, C, H, W), preprocessed."""
    import torch

    with Products() as products, torch.inference_mode():
        model.logits(images)
    return products.count / len(images)
