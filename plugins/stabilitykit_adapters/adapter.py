"""An unmodified network as a stabilitykit Model: prefix, blocks and tail of one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import nn

from stabilitykit.dynamics.model import Model, Step, state_of, state_parts
from stabilitykit.training.checkpoints import known_class_names
from stabilitykit_adapters.equivalence import certify
from stabilitykit_adapters.layout import Coordinates, from_image_first, in_memory_order, to_image_first
from stabilitykit_adapters.outputs import as_logits, text_of
from stabilitykit_adapters.program import Program
from stabilitykit_adapters.replay import Replayer
from stabilitykit_adapters.runs import Run
from stabilitykit_adapters.segments import point_of, segment, sides_at
from stabilitykit_adapters.tail import tail_module
from stabilitykit_adapters.tracing import memory_order

if TYPE_CHECKING:
    from stabilitykit.dynamics.model import State

Preprocess = Callable[[Sequence[np.ndarray]], torch.Tensor]


class Elsewhere(Protocol):
    """Another program that runs the same network: what it makes of the images is evidence."""

    def compare(self, model: AdaptedModel, batches: Iterable[tuple[Sequence[int], torch.Tensor]]) -> Mapping[str, Any]:
        """Entries of the certificate; arguments, ``remarks`` and errors as of ``Model.certify_images``."""


class AdaptedModel(Model):
    """One run of an unmodified network.

    States are (B, *shape) in the coordinates of h_T; tuples for a product space; for an open run the side state
    stands behind the state's parts and every block returns it as it is, so that the pair is the point of the
    phase space.

    Arguments:
        network: any module taking (B, *input_shape) to logits; used as it is, in eval mode.
        program, run: from :func:`stabilitykit_adapters.discovery.discover`.
        preprocess: images -> network input; ``preprocessing`` describes it as plain data.
        columns: outputs that stand for the dataset's classes, in their order; None: all.
        output_kind: what the network returns; of ``probabilities`` the logarithm is taken, which is logits.
        record: what ``describe`` adds: where the model came from; ``class_names``, if there, are those of all outputs.
    """

    former_modules = ("stabilitykit_timm.adapter",)

    def __init__(
        self,
        network: nn.Module,
        program: Program,
        run: Run,
        *,
        name: str = "module",
        preprocess: Preprocess | None = None,
        preprocessing: Mapping[str, Any] | None = None,
        columns: Sequence[int] | None = None,
        output_kind: str = "logits",
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.columns = None if columns is None else list(columns)
        self.output_kind = output_kind
        self.output_stated = False
        self.elsewhere: Elsewhere | None = None
        self.run = run
        self.program = program
        self.record = dict(record or {})
        self._preprocess, self._preprocessing = preprocess, dict(preprocessing or {})
        self._replayer = Replayer(network.eval(), program)
        self._prepare()

    def _prepare(self) -> None:
        """The segments that are executed."""
        program, run = self.program, self.run
        self._memory: dict[int, tuple[int, ...]] = {}  # as seen on this device; the recording's may differ
        self._coordinates = Coordinates(self._replayer, program, run)
        blocks, sides = run.blocks, run.sides
        self._starts = [(*b.start, *sides_at(program, sides, b.start, b.ticks[0])) for b in blocks]
        self._end = (*blocks[-1].end, *sides_at(program, sides, blocks[-1].end, blocks[-1].ticks[1]))
        self._prefix = segment(program, -1, (program.input_vertex,), (*blocks[0].start, *sides))
        self._parts = [
            segment(program, point_of(program, given, b.ticks[0]), given, b.end)
            for given, b in zip(self._starts, blocks)
        ]
        self._tail = segment(program, point_of(program, self._end, blocks[-1].ticks[1]), self._end, ())

    @property
    def module(self) -> nn.Module:
        return self._replayer.module

    @property
    def num_blocks(self) -> int:
        return self.run.depth

    @property
    def block_names(self) -> Sequence[str]:
        return [block.name for block in self.run.blocks]

    @property
    def steps(self) -> Sequence[Step]:
        return ["equal" if block.kind == "none" else "residual" for block in self.run.blocks]

    @property
    def num_classes(self) -> int:
        return self.program.num_outputs if self.columns is None else len(self.columns)

    @property
    def class_names(self) -> Sequence[str] | None:
        names = known_class_names(self.record, self.program.num_outputs)
        return names if names is None or self.columns is None else [names[c] for c in self.columns]

    @property
    def class_ids(self) -> Sequence[int] | None:
        return self.columns

    @property
    def state_shape(self) -> tuple[int, ...]:
        return self.run.shape[0]

    def initial_state(self, inputs: torch.Tensor) -> State:
        """Inputs (B, *input_shape), preprocessed -> h_0."""
        block = self.run.blocks[0]
        tensors = self._replayer.run(self._prefix, (inputs,), inputs.shape[0])
        return self._outward(0, tensors, (*block.start, *self.run.sides))

    def block(self, t: int, state: State) -> State:
        """phi_t: h_t -> h_{t+1}."""
        block, sides = self.run.blocks[t], self.run.sides
        tensors = self._inward(t, state, (*block.start, *sides), self._starts[t])
        result = self._replayer.run(self._parts[t], tensors, _batch(state))
        after = self._outward(t, result, block.end)
        if not sides:
            return after
        assert isinstance(state, tuple)
        return (*state_parts(after), *state[len(block.end) :])

    def readout(self, state: State, *, fill: float = 0.0) -> torch.Tensor:
        """g: everything after the last block, applied to a state of any depth -> logits (B, K)."""
        last = self.run.blocks[-1].end
        tensors = self._inward(self.num_blocks - 1, state, (*last, *self.run.sides), self._end)
        return self._chosen(self._replayer.run(self._tail, tensors, _batch(state), fill=fill)[0])

    def logits(self, inputs: torch.Tensor) -> torch.Tensor:
        """The network's own forward pass, in the mode it is in (training needs that)."""
        return self._chosen(self.outputs(inputs))

    def hooked_states(self, inputs: torch.Tensor) -> list[State]:
        """All states h_0 .. h_T of one plain forward pass, copied as they are computed (for the certificate)."""
        blocks, sides = self.run.blocks, self.run.sides
        wanted = [(0, (*blocks[0].start, *sides))] + [(t, (*b.end, *sides)) for t, b in enumerate(blocks)]
        everything = tuple(dict.fromkeys(v for _, vertices in wanted for v in vertices))
        part = segment(self.program, -1, (self.program.input_vertex,), everything)
        values = dict(zip(everything, self._replayer.run(part, (inputs,), inputs.shape[0])))
        return [self._outward(t, [values[v] for v in vertices], vertices) for t, vertices in wanted]

    def block_modules(self, t: int) -> Sequence[nn.Module]:
        return [self.module.get_submodule(name) for name in self.run.blocks[t].modules]

    @property
    def head(self) -> nn.Module | None:
        """g as a chain of standard layers, where it is one (pooling, flatten, normalisation, linear...)."""
        if len(self._end) > 1 or not self._has_chain:
            return None
        return tail_module(self.module, self.program, self.run, self.columns)

    @property
    def _has_chain(self) -> bool:
        """Whether the outputs are logits (B, K) as they come, which a chain of layers can end with."""
        return self.output_kind != "probabilities" and len(self.program.shapes[self.program.output_vertex].offsets) == 2

    def preprocess(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        return super().preprocess(images) if self._preprocess is None else self._preprocess(images)

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        return self._preprocessing or super().preprocessing

    def describe(self) -> Mapping[str, Any]:
        return {
            **self.record,
            "run": self.run.to_json(),
            "recorded_on": self.program.device,
            "columns": self.columns,
            "output": {
                "kind": self.output_kind,
                "stated": self.output_stated,
                "name": text_of(self.program.output_path),
                "of": {name: list(shape[1:]) for name, shape in self.program.outputs.items()},
            },
            "parameters": sum(p.numel() for p in self.module.parameters()),
        }

    def certify(self, inputs: torch.Tensor) -> Mapping[str, Any]:
        return certify(self, inputs)

    def certify_images(self, batches: Iterable[tuple[Sequence[int], torch.Tensor]]) -> Mapping[str, Any]:
        return {} if self.elsewhere is None else self.elsewhere.compare(self, batches)

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """What the network itself returns for inputs (B, *input_shape), all columns (B, K) of its own kind."""
        return self._replayer.forward(inputs)

    def as_chosen(self, outputs: torch.Tensor) -> torch.Tensor:
        """:meth:`outputs` (B, K) as logits (B, K') of the classes that were chosen."""
        return self._chosen(outputs)

    def fingerprint(self) -> str:
        import hashlib

        own = repr(self._fingerprinted())
        if self.output_kind == "probabilities" or len(self.program.outputs) > 1:
            own += repr((self.output_kind, self.program.output_path))
        return hashlib.sha256((super().fingerprint() + own).encode()).hexdigest()

    def _fingerprinted(self) -> tuple[Any, ...]:
        run = self.run
        return (run.name, run.mode, [b.name for b in run.blocks], self.columns, type(self.module).__qualname__)

    def _chosen(self, outputs: torch.Tensor) -> torch.Tensor:
        logits = as_logits(outputs, self.output_kind)
        return logits if self.columns is None else logits[:, self.columns]

    def _outward(self, t: int, tensors: Sequence[torch.Tensor], vertices: Sequence[int]) -> State:
        """The network's tensors at block t -> a state in the coordinates of h_T."""
        parts = []
        for number, (tensor, vertex) in enumerate(zip(tensors, vertices)):
            self._memory[vertex] = memory_order(tensor)
            state = to_image_first(tensor, self.program.shapes[vertex])
            if number == 0 and len(self.run.shape) == 1:
                state = self._coordinates.to_canonical(t, state, self.run.shape[0])
            parts.append(state)
        return state_of(parts)

    def _inward(self, t: int, state: State, vertices: Sequence[int], wanted: Sequence[int]) -> list[torch.Tensor]:
        """A state in the coordinates of h_T -> the network's tensors at block t, copied where it would write.

        ``vertices`` says what the parts of the state are, ``wanted`` which of them the network takes there. A side
        tensor that is also the state at this block gives way to it.
        """
        tensors: dict[int, torch.Tensor] = {}
        for number, (part, vertex) in enumerate(zip(state_parts(state), vertices)):
            if vertex not in wanted or vertex in tensors:
                continue
            shape = self.program.shapes[vertex]
            local = shape.per_image
            assert local is not None
            if number == 0 and len(self.run.shape) == 1:
                part = self._coordinates.from_canonical(t, part, local)
            tensor = from_image_first(part, shape)
            if number == 0 and len(self.run.shape) == 1 and self._coordinates.copies(t):
                tensor = in_memory_order(tensor, self._memory.get(vertex, self.program.memory[vertex]))
            tensors[vertex] = tensor.clone() if vertex in self.program.mutated else tensor
        return [tensors[vertex] for vertex in wanted]


def _batch(state: State) -> int:
    return state_parts(state)[0].shape[0]
