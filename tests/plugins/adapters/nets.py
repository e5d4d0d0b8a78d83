"""Small networks written the many ways people write them; none knows anything about runs or blocks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class Expected:
    """What discovery has to find first: mode, T, shape of a state, kind of every skip."""

    mode: str
    depth: int
    shape: tuple[tuple[int, ...], ...]
    kind: str
    input_shape: tuple[int, ...] = (3, 12, 12)


class Skip(nn.Module):
    """x + dropout(f(x)), f with an activation that works in place."""

    def __init__(self, channels, dropout=0.3):
        super().__init__()
        self.f = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        return x + self.drop(self.f(x))


class Modular(nn.Module):
    """Blocks are modules, dropout on by default (a new module is in train mode)."""

    def __init__(self, depth=3):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*(Skip(8) for _ in range(depth)))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


class Functional(nn.Module):
    """The additions are written in the network's own forward."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        for conv in self.convs:
            x = x + torch.tanh(conv(x))
        return self.head(x.mean((2, 3)))


class Shared(nn.Module):
    """One block called five times."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.block = Skip(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        for _ in range(5):
            x = self.block(x)
        return self.head(x.mean((2, 3)))


class Coupling(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.f, self.g = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, pair):
        a, b = pair
        a = a + torch.relu(self.f(b))
        return a, b + torch.relu(self.g(a))


class Reversible(nn.Module):
    """States are pairs of tensors."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.blocks = nn.ModuleList(Coupling(4) for _ in range(3))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        a, b = self.stem(x).chunk(2, 1)
        for block in self.blocks:
            a, b = block((a, b))
        return self.head(torch.cat([a, b], 1).mean((2, 3)))


class DictBlock(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.f = nn.Linear(width, width)

    def forward(self, given, scale=1.0):
        return {"x": given["x"] + scale * functional.gelu(self.f(given["x"])), "mask": given["mask"]}


class Dictionary(nn.Module):
    """Blocks take and return dictionaries, the result is one; the mask cannot be made on the meta device."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(48, 16)
        self.blocks = nn.ModuleList(DictBlock(16) for _ in range(4))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        given = {"x": self.embed(x.flatten(1)), "mask": torch.ones(x.shape[0], 1)}
        for block in self.blocks:
            given = block(given, scale=0.5)
        return {"logits": self.head(given["x"] * given["mask"])}


class Overwriting(nn.Module):
    """Additions in place, as statements: nothing is returned or rebound."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.convs = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        for conv in self.convs:
            x += torch.sin(conv(x))
        for conv in self.convs:
            x.add_(torch.sin(conv(x)))
        return self.head(x.mean((2, 3)))


class SideState(nn.Module):
    """Half of the channels pass the blocks by."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3)
        self.blocks = nn.Sequential(*(Skip(8) for _ in range(4)))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        a, b = self.stem(x).chunk(2, 1)
        return self.head(torch.cat([a, self.blocks(b)], 1).mean((2, 3)))


class Conditioned(nn.Module):
    """Every step, written in the network's own forward, also reads an embedding of the input."""

    def __init__(self):
        super().__init__()
        self.embed, self.condition = nn.Linear(20, 16), nn.Linear(20, 16)
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        state, condition = self.embed(x), self.condition(x)
        for layer in self.layers:
            state = state + torch.relu(layer(state) * condition)
        return self.head(state)


class History(nn.Module):
    """The tail reads an earlier state beside the last."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.first, self.second = Skip(8), Skip(8)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        a = self.first(self.stem(x))
        return self.head(torch.cat([a, self.second(a)], 1).mean((2, 3)))


class Perceptron(nn.Module):
    """Equal widths, no skip."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(48, 16)
        self.hidden = nn.ModuleList(nn.Linear(16, 16) for _ in range(3))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = functional.relu(self.embed(x.flatten(1)))
        for layer in self.hidden:
            x = functional.relu(layer(x))
        return self.head(x)


class Patched(nn.Module):
    """Two stages joined by space-to-depth: one run, coordinates in two orders."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.one = nn.Sequential(Skip(4), Skip(4))
        self.two = nn.Sequential(Skip(16), Skip(16))
        self.head = nn.Linear(4 * 144, 5)

    def forward(self, x):
        x = functional.pixel_unshuffle(self.one(self.stem(x)), 2)
        return self.head(self.two(x).flatten(1))


class SequenceFirst(nn.Module):
    """torch's own encoder layers: axes (length, batch, width), normalisation after the addition."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(12, 16)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(16, 4, 32) for _ in range(3))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        tokens = self.embed(x.reshape(x.shape[0], 4, -1)).transpose(0, 1)
        for layer in self.layers:
            tokens = layer(tokens)
        return self.head(tokens.mean(0))


class ChannelsLastBlocks(nn.Module):
    """Linear blocks on (H, W, C), the tail on (C, H, W)."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.layers = nn.ModuleList(nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8)) for _ in range(3))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x).permute(0, 2, 3, 1)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(functional.adaptive_avg_pool2d(x.permute(0, 3, 1, 2), 1).flatten(1))


class Rows(nn.Module):
    """Blocks work on rows of the map as if they were images: (B * 6, 6 * 4)."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 4, 2, 2)
        self.layers = nn.ModuleList(DictBlock(24) for _ in range(2))
        self.head = nn.Linear(144, 5)

    def forward(self, x):
        batch = x.shape[0]
        rows = self.embed(x).permute(0, 2, 3, 1).reshape(batch * 6, 24)
        given = {"x": rows, "mask": None}
        for layer in self.layers:
            given = layer(given)
        return self.head(given["x"].reshape(batch, -1))


class Alternating(nn.Module):
    """Additions on maps and on token sequences in turn, the coordinates reordered in between."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 2, 2)
        self.maps = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.tokens = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        for conv, linear in zip(self.maps, self.tokens):
            x = x + torch.tanh(conv(x))
            tokens = x.flatten(2).transpose(1, 2)
            tokens = tokens + torch.tanh(linear(tokens))
            x = tokens.transpose(1, 2).reshape(x.shape)
        return self.head(x.mean((2, 3)))


class Features(nn.Module):
    """Feature vectors: the input itself is the first state, and forward asks for no gradients."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(20, 20) for _ in range(3))
        self.head = nn.Linear(20, 5)

    @torch.no_grad()
    def forward(self, x):
        for layer in self.layers:
            with torch.inference_mode():
                step = torch.tanh(layer(x))
            x = x + step
        return self.head(x)


NETS: dict[type[nn.Module], Expected] = {
    Modular: Expected("closed", 3, ((8, 12, 12),), "identity"),
    Functional: Expected("closed", 4, ((8, 12, 12),), "identity"),
    Shared: Expected("closed", 5, ((8, 12, 12),), "identity"),
    Reversible: Expected("closed", 3, ((4, 10, 10), (4, 10, 10)), "identity"),
    Dictionary: Expected("closed", 4, ((16,),), "identity", (3, 4, 4)),
    Overwriting: Expected("closed", 6, ((8, 10, 10),), "identity"),
    SideState: Expected("open", 4, ((8, 10, 10),), "identity"),
    Conditioned: Expected("open", 3, ((16,),), "identity", (20,)),
    History: Expected("open", 2, ((8, 10, 10),), "identity"),
    Perceptron: Expected("plain", 3, ((16,),), "none", (3, 4, 4)),
    Patched: Expected("closed", 4, ((16, 6, 6),), "identity"),
    SequenceFirst: Expected("closed", 3, ((4, 16),), "normalised", (3, 4, 4)),
    ChannelsLastBlocks: Expected("closed", 3, ((10, 10, 8),), "identity"),
    Alternating: Expected("closed", 4, ((36, 8),), "identity"),
    Rows: Expected("closed", 2, ((6, 24),), "identity"),
    Features: Expected("closed", 3, ((20,),), "identity", (20,)),
}


class Growing(nn.Module):
    """Concatenation growth: no two states are equal."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Appending(3 + 2 * n) for n in range(3))
        self.head = nn.Linear(9, 5)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((2, 3)))


class Appending(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(channels), nn.Conv2d(channels, 2, 3, padding=1)

    def forward(self, x):
        return torch.cat([x, self.conv(self.norm(x))], 1)


class Momentum(nn.Module):
    """A velocity runs beside the state and changes with it."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(20, 20) for _ in range(3))

    def forward(self, x):
        velocity = x * 0
        for layer in self.layers:
            velocity = 0.9 * velocity + torch.tanh(layer(x))
            x = x + velocity
        return x


class Branches(nn.Module):
    """A sum over branches of one tensor: the partial sums are no states of blocks."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(20, 8)
        self.branches = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        total = torch.relu(x)
        for branch in self.branches:
            total = total + branch(x)
        return self.head(total)


class Leaking(nn.Module):
    """The tail reads the input past the state in a way autograd does not see."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(Skip(8), Skip(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        seen = self.stem(x)
        return self.head((self.blocks(seen) * seen.detach().mean()).mean((2, 3)))


class Noisy(nn.Module):
    """Dropout that ignores eval mode."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(Skip(8), Skip(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        return self.head(functional.dropout(self.blocks(self.stem(x)), 0.5, training=True).mean((2, 3)))


def make(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind()


def images(count: int, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))


def parts(state) -> tuple[torch.Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)
