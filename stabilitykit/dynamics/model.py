"""A network seen as a dynamical system: states, steps and readouts. Importing this imports no torch."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stabilitykit.base.errors import CellProblem
from stabilitykit.base.text import BEFORE

if TYPE_CHECKING:
    import torch

    State = torch.Tensor | tuple[torch.Tensor, ...]

Step = Literal["residual", "equal", "transition"]
"""How phi_t leads from X_t to X_{t+1}: between equal shapes with an identity path through an addition (activated or
not), between equal shapes without one, anything else."""


def state_parts(state: State) -> tuple[torch.Tensor, ...]:
    """The tensors (B, ...), of the network's dtype, of a state: one, or the factors of a product space."""
    return state if isinstance(state, tuple) else (state,)


def state_of(parts: Sequence[torch.Tensor]) -> State:
    """The state with these tensors (B, ...), of the network's dtype: the inverse of :func:`state_parts`."""
    return tuple(parts) if len(parts) > 1 else parts[0]


def depth_names(model: Model) -> list[str]:
    """T+1 names of the depths: :data:`~stabilitykit.base.text.BEFORE`, then the block passed last by its own name."""
    return [BEFORE, *map(str, model.block_names)]


class Model(ABC):
    """A network seen as a non-autonomous dynamical system h_0 -> phi_0 -> h_1 -> ... -> h_T with a readout g.

    States are torch tensors of shape (B, *state_shape) or tuples of such tensors (a product space). By default all
    blocks map R^n to R^n: every state of one image has the same number of elements, and one readout g fits every
    depth. A course through a whole network also has steps between spaces X_t of different shapes; it says so in
    :attr:`steps`, and overrides :meth:`readout_at`, :meth:`head_at` and :meth:`shape_at`. Models are in eval mode.
    """

    name: str = "model"
    # Modules this class stood in before: runs recorded then still name them.
    former_modules: tuple[str, ...] = ()
    _kind: str = ""  # what the fingerprint says of the class; empty: its name

    @property
    @abstractmethod
    def module(self) -> torch.nn.Module:
        """The whole network: its parameters and buffers are what is fingerprinted, moved and perturbed."""

    @property
    @abstractmethod
    def num_blocks(self) -> int:
        """T, the number of blocks."""

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """K, the dimension of the readout."""

    @property
    @abstractmethod
    def state_shape(self) -> tuple[int, ...]:
        """Shape of h_t for one image, without the batch; a tuple state gives the shape of its first part."""

    @abstractmethod
    def initial_state(self, inputs: torch.Tensor) -> State:
        """h_0, everything before the first block: float ``inputs`` (B, C, H, W), preprocessed -> state (B, ...).

        The state is of the network's own dtype.
        """

    @abstractmethod
    def block(self, t: int, state: State) -> State:
        """phi_t: h_t -> h_{t+1} for t in 0..T-1, states (B, ...) of the network's own dtype.

        Must not modify ``state`` in place.
        """

    @abstractmethod
    def readout(self, state: State) -> torch.Tensor:
        """The model's own classifier g applied to a state of any depth -> logits (B, K) of a float dtype."""

    # What follows has defaults that fit most models.

    @property
    def block_names(self) -> Sequence[str]:
        """T names of the blocks, as people find them in the network (``layer3.2``)."""
        return [f"block {t}" for t in range(self.num_blocks)]

    @property
    def steps(self) -> Sequence[Step]:
        """T kinds of steps; a state changes its dimension by a ``"transition"`` only."""
        return ["equal"] * self.num_blocks

    def readout_at(self, t: int, state: State) -> torch.Tensor:
        """g_t(h_t) -> logits (B, K), a float dtype; at depth T it is :meth:`readout`.

        In a course: the rest of the network with every remaining residual step replaced by the identity.
        """
        return self.readout(state)

    def left_out(self, t: int, state: State) -> State:
        """h_t -> h_{t+1} with block t, which is no transition, replaced by the identity; states (B, ...) of the
        network's own dtype."""
        return state

    def executed(self, t: int) -> bool:
        """Whether the readout before block t < T executes that block: then g_t = g_{t+1} o phi_t by construction."""
        return self.steps[t] == "transition"

    def same_readout(self, t: int) -> bool:
        """Whether :meth:`readout_at` is one function on one space at depths t and t + 1 <= T by construction."""
        return self.one_readout

    @property
    def one_readout(self) -> bool:
        """Whether all g_t are one g, :meth:`readout`."""
        return True

    def head_at(self, t: int) -> torch.nn.Module | None:
        """g_t as an nn.Module taking a state (B, *shape_at(t)) to logits, or None (see :attr:`head`)."""
        return self.head

    def shape_at(self, t: int) -> tuple[int, ...]:
        """Shape of h_t for one image, without the batch; of a tuple state that of its first part."""
        return self.state_shape

    def feature_axis(self, t: int) -> int:
        """Axis of one image's state h_t, counted from 0 without the batch, along which a lens is affine.

        By default the channels of maps (C, H, W) or (H, W, C), told apart by the equal sides, and the last axis of
        anything else (the features of a token). Models whose states read otherwise say so.
        """
        shape = self.shape_at(t)
        channels_first = len(shape) == 3 and not shape[0] == shape[1] != shape[2]
        return 0 if channels_first else len(shape) - 1

    @property
    def without_head(self) -> str:
        """Why the network's own classifier cannot be applied at inner depths; empty where it can."""
        return ""

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """The model's plain forward pass: preprocessed float inputs (B, C, H, W) -> logits (B, K), a float dtype."""
        state = self.initial_state(inputs)
        for t in range(self.num_blocks):
            state = self.block(t, state)
        return self.readout(state)

    def block_modules(self, t: int) -> Sequence[torch.nn.Module]:
        """Modules whose parameters belong to block t (for perturbing it); empty when unknown."""
        return ()

    @property
    def class_names(self) -> Sequence[str] | None:
        """K names of the classes the network was trained on, in the order of its outputs; None when unknown."""
        return None

    @property
    def class_ids(self) -> Sequence[int] | None:
        """K numbers of the network's own outputs that stand for the classes, when chosen by hand; None: 0..K-1."""
        return None

    @property
    def readout_dtype(self) -> str:
        """``"float64"`` when the network runs in float64 (its first floating-point parameter says), else "float32"."""
        import torch

        first = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        return "float64" if first is not None and first.dtype == torch.float64 else "float32"

    @property
    def replayed(self) -> bool:
        """True when the blocks only replay recorded readouts: distances between readouts mean what they say, but what
        runs, perturbs or bounds the network would measure the replay."""
        return False

    def replay(self, inputs: torch.Tensor) -> torch.Tensor | None:
        """All readouts of a batch at once where the model is :attr:`replayed`; None: block after block.

        Arguments:
            inputs: a preprocessed batch (B, ...), a float dtype.

        Returns:
            (T+1, B, K) of :attr:`readout_dtype`, to the last bit what blocks and readout give, however the images are
            put into batches.
        """
        return None

    @property
    def head(self) -> torch.nn.Module | None:
        """g as an nn.Module taking a state (B, *state_shape) to logits, for certified Lipschitz bounds.

        None when g is not available as one module: then only a realised lower bound can be given.
        """
        return None

    def preprocess(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        """Images, each (C, H, W) float32 in [0, 1] -> one float32 tensor (B, C, H, W) the network takes.

        The default stacks them unchanged and asks for equal sizes.

        Raises:
            CellProblem: the images are of different sizes.
        """
        import torch

        shapes = {tuple(image.shape) for image in images}
        if len(shapes) > 1:
            raise CellProblem(
                f"model {self.name}: images differ in size ({sorted(shapes)[:3]}...); "
                "give the dataset a fixed size, e.g. imagefolder:DIR,size=32"
            )
        return torch.from_numpy(np.ascontiguousarray(np.stack(list(images)), dtype=np.float32))

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """What :meth:`preprocess` does, as plain data; part of cache keys and provenance."""
        return {"resize": None, "normalise": None}

    def describe(self) -> Mapping[str, Any]:
        """Plain data for the record: architecture, options, checkpoint, certificate..."""
        return {}

    def certify(self, inputs: torch.Tensor) -> Mapping[str, Any]:
        """Evidence that the blocks are the model: on one batch, is readout(h_T) == logits bit for bit?

        Arguments:
            inputs: (B, C, H, W), preprocessed, float32 or of the network's own dtype.

        Returns:
            plain data: ``bit_exact``, ``max_abs_difference``, ``batch_size``, and what else a model can tell;
            ``vacuous``, a list of sentences, says where agreement proves little (blocks that return their input
            unchanged), and stands on the first screen.
        """
        import torch

        with torch.inference_mode():
            state = self.initial_state(inputs)
            for t in range(self.num_blocks):
                state = self.block(t, state)
            chained, plain = self.readout(state), self.logits(inputs)
        return {
            "bit_exact": bool(torch.equal(chained, plain)),
            "max_abs_difference": float((chained - plain).abs().max()),
            "batch_size": int(inputs.shape[0]),
        }

    def certify_images(self, batches: Iterable[tuple[Sequence[int], torch.Tensor]]) -> Mapping[str, Any]:
        """Evidence that takes every evaluated image: what another program makes of the same weights, say.

        Arguments:
            batches: (dataset indices (B,), preprocessed inputs (B, C, H, W) of the network's dtype), one after the
                other; most models read none of them.

        Returns:
            plain data for the certificate; ``remarks``, if there, are lines that a reader has to know.

        Raises:
            CellProblem: the evidence is against the model; nothing is measured then.
        """
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        """``copy.deepcopy(model)``, of models whose modules keep computed tensors, too.

        weight_norm and spectral_norm of old keep the weight they computed last, which deepcopy refuses; their hooks
        compute it anew in every pass.
        """
        import torch

        for part in self.module.modules():
            for kept in vars(part).values():
                if isinstance(kept, torch.Tensor) and not kept.is_leaf:
                    memo[id(kept)] = kept.detach().clone()
        twin = memo[id(self)] = object.__new__(type(self))
        for name, value in vars(self).items():
            object.__setattr__(twin, name, copy.deepcopy(value, memo))
        return twin

    def fingerprint(self) -> str:
        """SHA-256 over names, shapes, dtypes and bytes of all parameters and buffers, plus class and preprocessing.

        Returns:
            hex digest; the module that holds the class is no part of it, so that code may move.
        """
        digest = hashlib.sha256((self._kind or type(self).__qualname__).encode())
        digest.update(repr(sorted(dict(self.preprocessing).items(), key=str)).encode())
        digest.update(repr((self.num_blocks, self.num_classes, tuple(self.state_shape))).encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            if not hasattr(tensor, "detach"):  # what a module keeps beside tensors (get_extra_state)
                digest.update(f"{name}|{tensor!r}|".encode())
                continue
            array = tensor.detach().cpu().contiguous()
            digest.update(f"{name}|{tuple(array.shape)}|{array.dtype}|".encode())
            if array.dtype.itemsize == 2 and array.is_floating_point():
                array = array.float()
            digest.update(array.numpy().tobytes())
        return digest.hexdigest()

    def former_fingerprints(self) -> set[str]:
        """What runs made before 2026-12 recorded for this model: the digest held the module of the class, too."""
        found = set()
        for module in (type(self).__module__, *self.former_modules):
            former = copy.copy(self)  # a subclass may add to the fingerprint: its own method is asked
            former._kind = f"{module}.{type(self).__qualname__}"
            found.add(former.fingerprint())
        return found
