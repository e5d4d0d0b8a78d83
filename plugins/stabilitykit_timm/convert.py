"""Revised, equal-dimension versions of staged networks (section 3): new models with the paper's changes, to be trained.

The stem and the kind of block are kept. Between stages the map is cut into pieces stacked as channels instead of
being pooled by strides; every convolution of every block works on each piece apart, by groups; no block changes
widths; there is no global pooling. The function is another one: weights do not carry over.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from stabilitykit_adapters.adapter import AdaptedModel
from stabilitykit_adapters.adapting import View, adapt, read_weights
from stabilitykit_adapters.pixels import Pixels, plain_preprocess
from stabilitykit_adapters.source import NetworkSource
from torch import nn

from stabilitykit import CellProblem, UsageProblem
from stabilitykit.base.errors import describe
from stabilitykit.training.checkpoints import Loading, read_checkpoint
from stabilitykit_timm.names import skeleton, split_spec
from stabilitykit_timm.patching import Patching

BLOCKS = ("BasicBlock", "Bottleneck", "ConvNeXtBlock")
"""Classes of timm and torchvision whose parts are all carried over."""

PARTS = (
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.LayerNorm,
    nn.ReLU,
    nn.GELU,
    nn.SiLU,
    nn.Identity,
    nn.Dropout,
    nn.LeakyReLU,
    nn.Hardswish,
    nn.ELU,
    nn.Mish,
    nn.Tanh,
)
CONTAINERS = ("Mlp", "ConvMlp", "GELU", "Sequential", "LayerNorm2d", "LayerNorm", "BatchNormAct2d")
SHORTCUTS = ("downsample", "shortcut")


class ConvertedNet(nn.Module):
    """Stem, stages of equal-dimension blocks with patching in between, flatten, one fully connected layer.

    Every state holds the same number of elements: ``state_size``. ``input_size`` is (C, H, W).
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        norm: nn.Module,
        size: int,
        num_classes: int,
        input_size: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.norm = norm
        self.fc = nn.Linear(size, num_classes)
        self.state_size = size
        self.input_size = input_size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.fc(self.norm(x).flatten(1))


def convert(
    name: str,
    *,
    num_classes: int = 10,
    patch: str = "tiles",
    input_shape: Sequence[int] = (3, 32, 32),
    width: int | None = None,
    device: str = "meta",
) -> ConvertedNet:
    """The revised version of a staged network, weights uninitialised on ``device`` ("meta": none allocated).

    Arguments:
        name: ``resnet18``, ``timm:resnext50_32x4d``, ``torchvision:wide_resnet50_2``, ``convnext_tiny``...
        patch: ``tiles`` or ``phases``, see :class:`Patching`.
        input_shape: (C, H, W).
        width: channels of the stem's output in place of the network's own.

    Raises:
        UsageProblem: not a ResNet- or ConvNeXt-like network, or a part that would be dropped silently
            (squeeze-excitation, attention, anti-aliasing), or a map too small to be cut.
    """
    library, plain = split_spec(name)
    options: dict[str, Any] = {"in_chans": None if input_shape[0] == 3 else input_shape[0]}
    if library == "timm" and plain.startswith("convnext"):
        options["conv_mlp"] = True  # the same function with 1x1 convolutions, which can work in groups
    original = skeleton(f"{library}:{plain}", **options)
    stem, stages, norm = _anatomy(original, name)
    channels, height, side = _stem_output(stem, input_shape, name)
    outs = [_out_channels(stage[-1]) for stage in stages]
    scale = 1.0 if width is None else width / channels
    if scale != 1.0:
        stem = _scaled(stem, scale, 1, fixed=input_shape[0])
        channels = _stem_output(stem, input_shape, name)[0]
    cuts = _plan(round(outs[0] * scale) / channels, len(stages), height, side, name)
    size, pieces, converted = channels * height * side, 1, []
    for blocks, out, (rows, columns) in zip(stages, outs, cuts):
        pieces *= rows * columns
        channels *= rows * columns
        template = blocks[-1] if len(blocks) > 1 else _without_shortcut(blocks[0], name)
        _refuse_unknown(template, name)
        head: list[nn.Module] = [Patching(rows, columns, patch)] if rows * columns > 1 else []
        converted.append(nn.Sequential(*head, *(_scaled(template, channels / out, pieces) for _ in blocks)))
    norm = _scaled(norm, channels / _norm_channels(norm), 1) if _norm_channels(norm) else norm
    net = ConvertedNet(stem, converted, norm, size, num_classes, tuple(input_shape))
    return net if device == "meta" else net.to_empty(device=device)


class ConvertedSource(NetworkSource):
    """``converted:NAME``: a converted network seen block by block, trainable with ``stabilitykit train``."""

    def outline(
        self,
        name: str,
        *,
        num_classes: int | None = None,
        patch: str = "tiles",
        input: Sequence[int] = (3, 32, 32),
        width: int | None = None,
        **options: Any,
    ) -> tuple[nn.Module, tuple[int, ...]]:
        net = convert(name, num_classes=num_classes or 10, patch=patch, input_shape=tuple(input), width=width)
        return net, tuple(input)

    def __call__(
        self,
        name: str,
        *,
        checkpoint: str | None = None,
        allow_unused: str | None = None,
        resample: bool = False,
        weights: str | None = None,
        num_classes: int | None = None,
        patch: str = "tiles",
        input: Sequence[int] = (3, 32, 32),
        width: int | None = None,
        seed: int = 0,
        **options: Any,
    ) -> AdaptedModel:
        """Options as listed in the plugin's schema."""
        owner = f"converted:{name}"
        record: dict[str, Any] = {"options": {"patch": patch, "input": list(input), "width": width}}
        pixels, shape = Pixels.taken(options), tuple(input)
        resize = bool(pixels.crop_pct or pixels.interpolation)
        preprocess, preprocessing = plain_preprocess(shape, pixels, resize, owner)
        if pixels.size is not None and pixels.size != shape[-1]:
            raise UsageProblem(f"{owner} takes images of {'x'.join(map(str, shape))}; give another size as input=CxHxW")
        found = None
        if checkpoint is not None:
            found = read_checkpoint(checkpoint)
            trained = found.metadata.get("model")
            theirs = trained.get("options") if isinstance(trained, dict) else None
            if isinstance(theirs, dict) and theirs != record["options"]:
                raise UsageProblem(
                    f"checkpoint {checkpoint} was trained as {owner} with {theirs}, not {record['options']}"
                )
            if num_classes is None:
                sizes = {int(t.shape[0]) for key, t in found.tensors.items() if f".{key}".endswith(".fc.weight")}
                num_classes = sizes.pop() if len(sizes) == 1 else None
        net = convert(name, num_classes=num_classes or 10, patch=patch, input_shape=shape, width=width, device="cpu")
        initialise(net, seed)
        _, origin = read_weights(
            net, found, owner, f"untrained (seed {seed})", Loading.of(allow_unused, resample, weights)
        )
        model = adapt(
            net,
            shape,
            name=owner,
            preprocess=preprocess,
            preprocessing=preprocessing,
            view=View(mode="closed"),
            record=origin | record,
        )
        count = sum(type(part).__name__ in BLOCKS for part in net.modules())
        if count != model.num_blocks:
            raise CellProblem(
                f"{owner}: only {model.num_blocks} of {count} blocks join into one run of equal dimension"
            )
        return model


converted_model = ConvertedSource()


def initialise(module: nn.Module, seed: int) -> None:
    """Fresh weights from ``seed``: He-normal convolutions, PyTorch's own for linear layers, factors 1, offsets 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            elif callable(reset := getattr(part, "reset_parameters", None)):
                reset()
            gamma = getattr(part, "gamma", None)
            if isinstance(gamma, nn.Parameter):
                nn.init.constant_(gamma, 1e-6)


def _anatomy(model: nn.Module, name: str) -> tuple[nn.Module, list[list[nn.Module]], nn.Module]:
    """(stem, blocks of every stage, normalisation in front of the pooling) of a network we know how to convert."""
    part: Any = model
    kind = type(model).__name__
    if kind == "ResNet":
        names = ("conv1", "bn1", "act1", "relu", "maxpool")
        stem = nn.Sequential(*(child for name, child in model.named_children() if name in names))
        stages, norm = [list(getattr(part, f"layer{i}")) for i in (1, 2, 3, 4)], nn.Identity()
    elif kind == "ConvNeXt" and hasattr(model, "stages"):
        stem, stages, norm = part.stem, [list(stage.blocks) for stage in part.stages], part.head.norm
        if not isinstance(part.norm_pre, nn.Identity):
            norm = part.norm_pre
    else:
        raise UsageProblem(
            f"convert {name}: knows ResNet-, ResNeXt-, wide-ResNet- and ConvNeXt-like networks (timm or "
            f"torchvision); this is a {kind}"
        )
    for stage in stages:
        for block in stage:
            if type(block).__name__ not in BLOCKS:
                raise UsageProblem(
                    f"convert {name}: blocks of class {type(block).__name__} would lose what sets them "
                    f"apart; known are {', '.join(BLOCKS)}"
                )
            _refuse_unknown(_without_shortcut(block, name), name)
    return copy.deepcopy(stem), stages, copy.deepcopy(norm)


def _refuse_unknown(block: nn.Module, name: str) -> None:
    for path, part in block.named_modules():
        known = isinstance(part, PARTS) or type(part).__name__ in CONTAINERS or type(part).__name__ in BLOCKS
        if not known:
            raise UsageProblem(
                f"convert {name}: its blocks contain {path} ({type(part).__name__}), which the "
                "equal-dimension version would drop or change silently; convert a network without it"
            )
        if isinstance(part, nn.Conv2d) and max(part.dilation) > 1:
            raise UsageProblem(f"convert {name}: {path} is dilated, which has no meaning on pieces of a map")


def _without_shortcut(block: nn.Module, name: str) -> nn.Module:
    """A copy of a stage's first block as a later one would be: no projection, no stride."""
    other = copy.deepcopy(block)
    for attribute in SHORTCUTS:
        if isinstance(getattr(other, attribute, None), nn.Module):
            setattr(other, attribute, nn.Identity() if type(other).__name__ == "ConvNeXtBlock" else None)
    first = True
    for part in other.modules():
        if isinstance(part, nn.Conv2d):
            part.stride = (1, 1)
            if first and type(other).__name__ != "ConvNeXtBlock":
                part.in_channels, first = _out_channels(block), False
    return other


def _out_channels(block: Any) -> int:
    """Channels a block returns."""
    convolutions = [
        m
        for n, m in block.named_modules()
        if isinstance(m, nn.Conv2d) and not any(s in n.split(".") for s in SHORTCUTS)
    ]
    if type(block).__name__ == "ConvNeXtBlock":
        return int(convolutions[0].out_channels)
    return int(convolutions[-1].out_channels)


def _norm_channels(norm: nn.Module) -> int:
    if isinstance(norm, nn.LayerNorm):
        return int(norm.normalized_shape[0])
    return int(getattr(norm, "num_features", 0))


def _stem_output(stem: nn.Module, input_shape: Sequence[int], name: str) -> tuple[int, int, int]:
    first = next(stem.parameters(), None)
    device = first.device if first is not None else torch.device("cpu")
    try:
        with torch.no_grad():
            out = copy.deepcopy(stem).eval()(torch.zeros(2, *input_shape, device=device))
    except RuntimeError as error:
        raise UsageProblem(
            f"convert {name}: the stem does not take {'x'.join(map(str, input_shape))} images: {describe(error)}"
        ) from None
    return tuple(out.shape[1:])  # type: ignore[return-value]


def _plan(growth: float, stages: int, height: int, side: int, name: str) -> list[tuple[int, int]]:
    """Pieces (rows, columns) cut before every stage.

    Before the first, as many as the first stage is wider than the stem; before the others 2 x 2, or, where the map
    is too small for that (32 x 32 images), 2 x 1 and 1 x 2 in turn as in the paper.
    """
    first = {1.0: (1, 1), 2.0: (2, 1), 4.0: (2, 2)}.get(growth)
    if first is None:
        raise UsageProblem(
            f"convert {name}: its first stage is {growth:g} times as wide as its stem; 1, 2 or 4 can be "
            "reached by cutting the map into pieces"
        )
    turns = [(2, 1), (1, 2)]
    for later in ([(2, 2)] * (stages - 1), [turns[i % 2] for i in range(stages - 1)]):
        plan = [first, *later]
        rows, columns = math.prod(r for r, _ in plan), math.prod(c for _, c in plan)
        if height % rows == 0 and side % columns == 0:
            return plan
    raise UsageProblem(
        f"convert {name}: the stem's {height}x{side} map cannot be cut {stages} times; give larger "
        "images, e.g. input=3x64x64"
    )


def _scaled(module: nn.Module, factor: float, pieces: int, fixed: int | None = None) -> nn.Module:
    """A copy with all channel counts times ``factor`` and convolutions that work on ``pieces`` pieces apart.

    ``fixed``: an input channel count that stays (the image's).
    """
    other = copy.deepcopy(module)

    def times(count: int) -> int:
        scaled = count * factor
        if scaled != int(scaled) or scaled < 1:
            raise UsageProblem(f"{count} channels times {factor:g} is no whole number; choose another width")
        return int(scaled)

    for path, part in list(other.named_modules()):
        new: nn.Module | None = None
        if isinstance(part, nn.Conv2d):
            inside = part.in_channels if part.in_channels == fixed else times(part.in_channels)
            depthwise = part.groups == part.in_channels == part.out_channels and part.groups > 1
            groups = inside if depthwise else part.groups * pieces
            outside = times(part.out_channels)
            if inside % groups or outside % groups:
                raise UsageProblem(
                    f"{inside} -> {outside} channels cannot be convolved in {groups} groups; choose "
                    "another width or network"
                )
            new = nn.Conv2d(
                inside,
                outside,
                part.kernel_size,  # type: ignore[arg-type]
                part.stride,  # type: ignore[arg-type]
                part.padding,  # type: ignore[arg-type]
                part.dilation,  # type: ignore[arg-type]
                groups,
                part.bias is not None,
                part.padding_mode,
                device="meta",
            )
        elif isinstance(part, nn.BatchNorm2d) and type(part).__name__ == "BatchNorm2d":
            new = nn.BatchNorm2d(
                times(part.num_features), part.eps, part.momentum, part.affine, part.track_running_stats, device="meta"
            )
        elif isinstance(part, nn.LayerNorm):
            part.normalized_shape = (times(part.normalized_shape[0]),)
            for key in ("weight", "bias"):
                if getattr(part, key) is not None:
                    setattr(part, key, nn.Parameter(torch.empty(part.normalized_shape, device="meta")))
        if new is not None:
            if not path:
                return new
            parent, _, attribute = path.rpartition(".")
            setattr(other.get_submodule(parent), attribute, new)
        gamma = getattr(part, "gamma", None)
        if isinstance(gamma, nn.Parameter):
            part.gamma = nn.Parameter(torch.empty(times(gamma.shape[0]), device="meta"))
    return other
