"""How trajectories are extracted: one object, carried whole from the command line to record, cache key and review."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

import torch

from stabilitykit.base.errors import UsageProblem
from stabilitykit.dynamics.space import Space

# What autocast is asked for; float64 converts the network instead.
EXTRACT_DTYPES: dict[str, torch.dtype | None] = {
    "float32": None,
    "float64": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

READOUTS = ("head", "lens", "probe")


def _condition(words: str, *, key: str = "", moves_logits: bool = True, reference: bool = True) -> Mapping[str, Any]:
    """What is known of a field of :class:`Extraction`.

    Arguments:
        words: what people call it; of a switch, how extraction is called where it is on.
        key: its name in records and requests, where that is not the field's.
        moves_logits: False where the logits of a fixed readout are the same bits for all of its values.
        reference: False where another value than the default is a faster way to what should be the same numbers.
    """
    return {"words": words, "key": key, "logits": moves_logits, "reference": reference}


@dataclass(frozen=True)
class Extraction:
    """How readouts along depth are computed; what two numbers must agree in to be comparable.

    Attributes:
        readout: one of READOUTS: ``"head"`` (the model's own classifier at every depth), ``"lens"`` (the same behind a
            trained translator of the state) or ``"probe"`` (one trained linear map per depth).
        space: where distances are taken, ``"probabilities"`` or ``"logits"``.
        batch_size: images run together; it moves logits by about 1e-6.
        dtype: ``"float32"``, ``"float64"``, ``"bfloat16"`` or ``"float16"``.
        channels_last: convolutions run in NHWC layout.
        compile: the network runs through torch.compile.
    """

    # A readout stands in the cache key by its fingerprint, which knows the weights of probes and lenses.
    readout: str = field(default="head", metadata=_condition("readout", moves_logits=False))
    space: Space = field(default="probabilities", metadata=_condition("space", moves_logits=False))
    batch_size: int = field(default=100, metadata=_condition("batch size"))
    dtype: str = field(default="float32", metadata=_condition("precision", key="extract_dtype"))
    channels_last: bool = field(default=False, metadata=_condition("NHWC", reference=False))
    compile: bool = field(default=False, metadata=_condition("compiled", reference=False))

    def check(self) -> None:
        """UsageProblem for a value out of range."""
        if self.readout not in READOUTS:
            raise UsageProblem(f"readout is head, lens or probe; got {self.readout!r}")
        if self.space not in ("probabilities", "logits"):
            raise UsageProblem(f"space is probabilities or logits; got {self.space!r}")
        if self.dtype not in EXTRACT_DTYPES:
            raise UsageProblem(f"extract dtype is one of {', '.join(EXTRACT_DTYPES)}; got {self.dtype!r}")
        if not isinstance(self.batch_size, int) or self.batch_size < 1:
            raise UsageProblem(f"batch size is a whole number >= 1; got {self.batch_size!r}")

    @property
    def trained(self) -> bool:
        """Whether the readout is trained on images first."""
        return self.readout != "head"

    @property
    def networks_classes(self) -> bool:
        """Whether readouts are those of the network's own classes; probes have those of the images trained on."""
        return self.readout != "probe"

    @property
    def autocast(self) -> torch.dtype | None:
        """What torch.autocast is asked for; None: it is off."""
        return EXTRACT_DTYPES[self.dtype]

    @property
    def reduced(self) -> str | None:
        """The precision of 16 bits that autocast runs in; None: logits are of the network's own."""
        return None if self.autocast is None else self.dtype

    @property
    def plain(self) -> Extraction:
        """The reference for the same numbers: float32 (float64 where asked for), no other layout, no compiler."""
        ordinary: dict[str, Any] = {f.name: f.default for f in fields(self) if not f.metadata["reference"]}
        return replace(self, dtype="float32" if self.autocast is not None else self.dtype, **ordinary)

    @property
    def faster(self) -> str:
        """What may move numbers away from those of :attr:`plain`, in words ("bfloat16 NHWC"); empty where nothing."""
        plain = self.plain
        values = [(getattr(self, f.name), f) for f in fields(self) if getattr(self, f.name) != getattr(plain, f.name)]
        return " ".join(f.metadata["words"] if value is True else str(value) for value, f in values)

    def record(self) -> dict[str, Any]:
        """Plain data by the names of options, as requests and records keep it."""
        return {_key(f): getattr(self, f.name) for f in fields(self)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Extraction:
        """The extraction that ``record`` names, unchecked; what it does not mention is the default."""
        return cls(**{f.name: record[_key(f)] for f in fields(cls) if _key(f) in record})

    def logits_record(self) -> dict[str, Any]:
        """The part of :meth:`record` that the logits of a given readout depend on."""
        return {_key(f): getattr(self, f.name) for f in fields(self) if f.metadata["logits"]}

    @classmethod
    def conditions(cls) -> dict[str, tuple[str, Any]]:
        """Key in records -> (what people call it, the default): what makes two numbers comparable or not."""
        return {_key(f): (f.metadata["words"], f.default) for f in fields(cls)}


def _key(entry: Field[Any]) -> str:
    return entry.metadata["key"] or entry.name
