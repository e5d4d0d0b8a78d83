"""Operators that move elements and compute sizes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional

from stabilitykit_onnx.attributes import Attributes
from stabilitykit_onnx.operators.values import Value, as_tensor, ints, is_host, together

Tensor = torch.Tensor


def shape(attributes: Attributes, x: Tensor) -> list[int]:
    sizes = [int(size) for size in x.shape]
    return sizes[slice(attributes.get("start", 0), attributes.get("end"))]


def reshape(attributes: Attributes, x: Tensor, sizes: Value = None) -> Tensor:
    wanted = ints(attributes.get("shape") if sizes is None else sizes)
    if not attributes.get("allowzero", 0):
        wanted = [x.shape[n] if size == 0 else size for n, size in enumerate(wanted)]
    if attributes.batch.ratio != 1 and wanted and wanted[0] > 0 and _stuck(wanted, x):
        # Exported for a fixed batch: what was written for its images is meant for these.
        wanted[0] *= attributes.batch.ratio
    return x.reshape(wanted)


def _stuck(wanted: Sequence[int], x: Tensor) -> bool:
    """Whether a shape written into the file is for another number of images than ``x`` holds."""
    count = math.prod(size for size in wanted if size > 0)
    return x.numel() != count if -1 not in wanted else wanted[0] != x.shape[0]


def flatten(attributes: Attributes, x: Tensor) -> Tensor:
    axis = attributes.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    if axis == 1:
        return torch.flatten(x, 1) if x.ndim > 1 else x.reshape(-1, 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def transpose(attributes: Attributes, x: Tensor) -> Tensor:
    order = attributes.get("perm") or list(range(x.ndim))[::-1]
    return x.permute(*order)


def concat(attributes: Attributes, *values: Value) -> Tensor:
    tensors, axis = together(list(values)), attributes.get("axis", 0)
    if attributes.batch.ratio != 1 and axis % max(tensors[0].ndim, 1) != 0:
        # Exported for a fixed batch: a token that stands beside every image is written once for each of them.
        most = max(t.shape[0] for t in tensors)
        tensors = [t if t.shape[0] == most else t.repeat(most // t.shape[0], *(1,) * (t.ndim - 1)) for t in tensors]
    return torch.cat(tensors, axis)


def slice_(
    attributes: Attributes, x: Tensor, starts: Value = None, ends: Value = None, axes: Value = None, steps: Value = None
) -> Tensor:
    starts = ints(attributes.get("starts") if starts is None else starts)
    ends = ints(attributes.get("ends") if ends is None else ends)
    axes = attributes.get("axes") if axes is None else axes
    axes = list(range(len(starts))) if axes is None else ints(axes)
    steps = [1] * len(starts) if steps is None else ints(steps)
    index: list[Any] = [slice(None)] * x.ndim
    flipped = []
    for start, end, axis, step in zip(starts, ends, axes, steps):
        axis %= x.ndim
        positions = range(x.shape[axis])[_bounded(start, end, step, x.shape[axis])]
        if step > 0:
            index[axis] = slice(positions.start, positions.stop, positions.step)
        else:  # torch has no negative steps: the same elements forwards, then turned round
            flipped.append(axis)
            index[axis] = slice(positions[-1], positions[0] + 1, -step) if len(positions) else slice(0, 0)
    x = x[tuple(index)]
    return x.flip(flipped) if flipped else x


def _bounded(start: int, end: int, step: int, size: int) -> slice:
    """Python's slice of ONNX's bounds: beyond the end is the end, far below the beginning includes it."""
    if step > 0:
        return slice(start, end, step)
    start = min(start, size - 1)
    return slice(start, None if end < -size else end, step)


def split(attributes: Attributes, x: Tensor, sizes: Value = None) -> tuple[Tensor, ...]:
    axis = attributes.get("axis", 0)
    given = attributes.get("split") if sizes is None else sizes
    if given is not None:
        return tuple(torch.split(x, ints(given), axis))
    count = attributes.get("num_outputs", attributes.outputs)
    return tuple(torch.split(x, -(-x.shape[axis] // count), axis))


def gather(attributes: Attributes, x: Value, indices: Value) -> Tensor:
    axis = attributes.get("axis", 0)
    x = as_tensor(x)
    axis %= x.ndim
    if is_host(indices) and not isinstance(indices, (list, tuple)):
        return x[(*(slice(None),) * axis, int(indices))]
    index = as_tensor(indices, x).to(x.device)
    index = torch.where(index < 0, index + x.shape[axis], index)
    picked = torch.index_select(x, axis, index.reshape(-1))
    return picked.reshape((*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


def gather_elements(attributes: Attributes, x: Tensor, indices: Value) -> Tensor:
    axis = attributes.get("axis", 0)
    index = as_tensor(indices, x)
    return torch.gather(x, axis, torch.where(index < 0, index + x.shape[axis], index))


def expand(attributes: Attributes, x: Tensor, sizes: Value) -> Tensor:
    wanted = ints(sizes)
    if attributes.batch.ratio != 1 and wanted and x.ndim == len(wanted) and x.shape[0] not in (1, wanted[0]):
        wanted[0] *= attributes.batch.ratio
    return x.expand(torch.broadcast_shapes(x.shape, tuple(wanted)))


def tile(attributes: Attributes, x: Tensor, repeats: Value) -> Tensor:
    return x.repeat(*ints(repeats))


def squeeze(attributes: Attributes, x: Tensor, axes: Value = None) -> Tensor:
    axes = attributes.get("axes") if axes is None else axes
    if axes is None:
        return x.squeeze()
    return x.squeeze(tuple(axis % x.ndim for axis in ints(axes)))


def unsqueeze(attributes: Attributes, x: Tensor, axes: Value = None) -> Tensor:
    places = ints(attributes.get("axes") if axes is None else axes)
    rank = x.ndim + len(places)
    for axis in sorted(place % rank for place in places):
        x = x.unsqueeze(axis)
    return x


def pad(attributes: Attributes, x: Tensor, pads: Value = None, value: Value = None, axes: Value = None) -> Tensor:
    amounts = ints(attributes.get("pads") if pads is None else pads)
    fill = attributes.get("value", 0.0) if value is None else value
    places = list(range(x.ndim)) if axes is None else [axis % x.ndim for axis in ints(axes)]
    count = len(places)
    sides = {axis: (amounts[n], amounts[n + count]) for n, axis in enumerate(places)}
    mode = attributes.get("mode", "constant")
    flat = [side for axis in reversed(range(x.ndim)) for side in sides.get(axis, (0, 0))]
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    if not any(flat):
        return x
    if mode == "constant":
        fill = fill.reshape(-1).tolist()[0] if isinstance(fill, Tensor) else fill
        return functional.pad(x, flat, value=fill[0] if isinstance(fill, list) else fill)
    names = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    if mode not in names or len(flat) > 2 * (x.ndim - 1):
        raise attributes.refuse(f"padding with mode {mode} of these axes")
    return functional.pad(x, flat, mode=names[mode])


def constant_of_shape(attributes: Attributes, sizes: Value) -> Tensor:
    value = attributes.get("value")
    element = torch.zeros(1) if value is None else torch.as_tensor(value).reshape(1)
    return element.expand(ints(sizes)).clone()


def range_(attributes: Attributes, start: Value, limit: Value, delta: Value) -> Tensor:
    first, last, step = (v.item() if isinstance(v, Tensor) else v for v in (start, limit, delta))
    return torch.arange(first, last, step)


def depth_to_space(attributes: Attributes, x: Tensor) -> Tensor:
    size, (batch, channels, height, width) = attributes.get("blocksize"), x.shape
    if attributes.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, size)
    parts = x.reshape(batch, size, size, channels // size**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, channels // size**2, height * size, width * size)


def space_to_depth(attributes: Attributes, x: Tensor) -> Tensor:
    size, (batch, channels, height, width) = attributes.get("blocksize"), x.shape
    parts = x.reshape(batch, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(batch, channels * size**2, height // size, width // size)


def trilu(attributes: Attributes, x: Tensor, k: Value = 0) -> Tensor:
    return (torch.triu if attributes.get("upper", 1) else torch.tril)(x, ints(k)[0])


SHAPES: dict[str, Callable[..., Any]] = {
    "Concat": concat,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": flatten,
    "Gather": gather,
    "GatherElements": gather_elements,
    "Pad": pad,
    "Range": range_,
    "Reshape": reshape,
    "Shape": shape,
    "Size": lambda attributes, x: x.numel(),
    "Slice": slice_,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Trilu": trilu,
    "Unsqueeze": unsqueeze,
}
"""Operator -> function (attributes, *inputs) -> output or outputs."""
