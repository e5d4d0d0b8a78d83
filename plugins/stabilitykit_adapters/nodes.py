"""Autograd nodes by name: what an operation does to a value on its way through."""

from __future__ import annotations

from typing import Any

PERMUTING = {
    "ViewBackward0",
    "UnsafeViewBackward0",
    "ReshapeAliasBackward0",
    "AliasBackward0",
    "TransposeBackward0",
    "PermuteBackward0",
    "CloneBackward0",
    "SqueezeBackward0",
    "SqueezeBackward1",
    "SqueezeBackward2",
    "UnsqueezeBackward0",
    "ToCopyBackward0",
    "RollBackward0",
    "PixelShuffleBackward0",
    "PixelUnshuffleBackward0",
    "TBackward0",
    "FlipBackward0",
    "SwapaxesBackward0",
    "MovedimBackward0",
    "UnflattenBackward0",
    "ViewAsRealBackward0",
    "ViewAsComplexBackward0",
    "AsStridedBackward0",
    "ChannelShuffleBackward0",
}
PARTIAL = {
    "SliceBackward0",
    "SplitBackward0",
    "SplitWithSizesBackward0",
    "UnbindBackward0",
    "CatBackward0",
    "StackBackward0",
    "IndexBackward0",
    "SelectBackward0",
    "NarrowBackward0",
    "ConstantPadNdBackward0",
    "ExpandBackward0",
    "CopySlices",
    "GatherBackward0",
    "IndexSelectBackward0",
    "IndexPutBackward0",
    "SplitBackward1",
    "ChunkBackward0",
    "CopyBackwards",
    "SliceScatterBackward0",
    "ScatterBackward0",
}
ADDING = {
    "AddBackward0",
    "SubBackward0",
    "RsubBackward1",
    "AddcmulBackward0",
    "AddmmBackward0",
    "BaddbmmBackward0",
    "LerpBackward0",
    "LerpBackward1",
}
POINTWISE = {
    "ReluBackward0",
    "HardtanhBackward0",
    "GeluBackward0",
    "SiluBackward0",
    "MishBackward0",
    "EluBackward0",
    "LeakyReluBackward0",
    "HardswishBackward0",
    "HardsigmoidBackward0",
    "SigmoidBackward0",
    "TanhBackward0",
    "PreluKernelBackward0",
    "SoftplusBackward0",
    "CeluBackward0",
    "ClampBackward0",
    "ClampBackward1",
    "ClampMinBackward0",
    "ThresholdBackward0",
    "SeluBackward0",
    "RreluBackward0",
    "RoundBackward0",
}
SCALING = {"MulBackward0", "DivBackward0", "NegBackward0"}
NORMALISING = {
    "NativeLayerNormBackward0",
    "NativeBatchNormBackward0",
    "NativeGroupNormBackward0",
    "FusedRmsNormBackward0",
    "CudnnBatchNormBackward0",
    "BatchNormBackwardBackward0",
    "RmsNormBackward0",
}
MIXING = {
    "ConvolutionBackward0",
    "AddmmBackward0",
    "MmBackward0",
    "BmmBackward0",
    "BaddbmmBackward0",
    "LinearBackward0",
    "ScaledDotProductFlashAttentionForCpuBackward0",
    "ScaledDotProductEfficientAttentionBackward0",
    "ScaledDotProductFlashAttentionBackward0",
    "MkldnnConvolutionBackward0",
    "CudnnConvolutionBackward0",
    "MvBackward0",
    "DotBackward0",
    "FftR2CBackward0",
    "FftC2CBackward0",
    "FftC2RBackward0",
    "EinsumBackward0",
    "SlowConvDilated2DBackward0",
    "AvgPool2DBackward0",
}


def node_name(node: Any) -> str:
    """Class of an autograd node without its C++ namespace."""
    return node.name().rpartition("::")[2]


def mixes(name: str) -> bool:
    """Whether the operation mixes coordinates: a product with weights, a convolution, attention."""
    # Operations written by users (custom autograd functions) carry no number; what they do is unknown.
    custom = name.endswith("Backward") and name != "CopyBackwards"
    return name in MIXING or custom or any(part in name for part in ("Conv", "Rnn", "Gru", "Lstm", "Attention"))
