"""Proven spectral norms of matrices and of convolutions, none of which is ever written as one dense matrix.

A convolution with zero padding is a part of one on a torus that is large enough for nothing to wrap around: rows and
columns are left out, so its norm is at most that of the torus, which the Fourier transform splits into one small matrix
per frequency (Sedghi, Gupta and Long, 2019). With stride s the outputs are a lattice on the torus and the inputs s
interleaved ones per axis, so each small matrix has s columns per axis and channel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from scipy.linalg import lapack
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from stabilitykit_lipschitz.rounding import UNIT, frobenius, gamma

# Bytes of frequencies held at once.
CHUNK_BYTES = 2**24
# Rows up to which singular values are estimated by a full decomposition.
DIRECT = 96
Chunks = Callable[[], Iterator[np.ndarray]]


def largest_singular_value(chunks: Chunks) -> float:
    """Upper bound of the spectral norms of all matrices in ``chunks()``: arrays (F, a, b), real or complex.

    The largest is estimated; a level above it is proven by a Cholesky factorisation of level^2 I - A A* for each
    matrix: that it runs to its end shows the matrix positive definite but for gamma_n times its trace (Higham, theorem
    10.3; Rump, 2006). Normally within 1e-6 of the largest.
    """
    scale = max((float(np.abs(part).max(initial=0.0)) for part in chunks()), default=0.0)
    if scale == 0.0:
        return 0.0
    scale = math.ldexp(1.0, math.frexp(scale)[1])
    guess = max(_estimate(a) for part in chunks() for a in _wide(part / scale))
    widen = 1e-9
    if min(next(iter(chunks())).shape[1:]) > DIRECT:
        widen = 1e-6  # beyond what the estimate and the proof lose
    level = guess * (1 + widen)
    for part in chunks():
        for a in _wide(part / scale):
            while not _below(a, level):
                widen *= 4.0
                level = max(level, guess * (1 + widen))
                if widen > 1.0:  # nothing proves it: the Frobenius norm does
                    level = max(level, frobenius(np.abs(a)) * (1 + 1e-12))
                    break
    return level * scale * (1 + 1e-14)


def _wide(part: np.ndarray) -> np.ndarray:
    return part if part.shape[1] <= part.shape[2] else part.conj().transpose(0, 2, 1)


def _estimate(a: np.ndarray) -> float:
    """About the spectral norm of a wide matrix, from below."""
    if len(a) <= DIRECT:
        return float(np.linalg.norm(a, 2))
    back = np.ascontiguousarray(a.conj().T)
    gram = LinearOperator((len(a), len(a)), matvec=lambda v: a @ (back @ v), dtype=a.dtype)
    start = np.random.default_rng(0).standard_normal(len(a)).astype(a.dtype)
    try:
        return math.sqrt(float(eigsh(gram, k=1, tol=1e-7, v0=start, return_eigenvectors=False)[0]))
    except ArpackError:
        return float(np.linalg.norm(a, 2))


def _below(a: np.ndarray, level: float) -> bool:
    """True only if the spectral norm of the wide matrix ``a`` is at most ``level``."""
    if frobenius(np.abs(a)) * (1 + 4 * UNIT) <= level:
        return True
    n = len(a)
    gram = a @ a.conj().T
    rows = np.sqrt(np.abs(np.diag(gram)).real) * (1 + 1e-10)
    # a complex product is four real ones: 4 b + 8 terms cover it
    lost = 2.0 * gamma(4 * a.shape[1] + 8) * float(rows.max() * rows.sum())
    if float(np.abs(gram).sum(1).max()) + lost <= level * level * (1 - 1e-12 - gamma(2 * n + 8)):
        return True
    square = level * level * (1 - 4 * UNIT)
    shift = lost + 4.0 * gamma(4 * n + 16) * n * square + 8.0 * UNIT * square
    np.negative(gram, out=gram)
    gram[np.diag_indices(n)] += square - shift
    factorise = lapack.zpotrf if np.iscomplexobj(gram) else lapack.dpotrf
    return bool(factorise(gram, lower=1, overwrite_a=1)[1] == 0)


def of_dense(matrix: np.ndarray) -> float:
    """Upper bound of the spectral norm of a matrix (m, n)."""
    return largest_singular_value(lambda: iter([matrix[None]]))


def of_convolution(
    kernel: np.ndarray,
    sizes: Sequence[int],
    outputs: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> float:
    """Upper bound of the spectral norm of a convolution with zero padding.

    Arguments:
        kernel: (O, I / groups, *taps) float64, taps along one to three axes.
        sizes: of the input along each axis; outputs: of the output.
        stride, padding, dilation: per axis.
        groups: of channels.
    """
    top = float(np.abs(kernel).max(initial=0.0))
    if top == 0.0:
        return 0.0
    scale = math.ldexp(1.0, math.frexp(top)[1])
    axes = [_Axis(*given) for given in zip(kernel.shape[2:], sizes, outputs, stride, padding, dilation)]
    if any(not axis.taps for axis in axes):
        return 0.0
    taps: tuple[Any, ...] = np.ix_(*(axis.taps for axis in axes))
    kept = kernel[(slice(None), slice(None), *taps)] / scale
    per = kept.reshape(groups, -1, *kept.shape[1:])  # (g, O/g, I/g, *taps)
    half = [w for w in itertools.product(*(range(axis.period) for axis in axes)) if _first_of_pair(w, axes)]
    # phases: columns of one channel; a stride wider than the kernel leaves some of them out
    phases = list(itertools.product(*(sorted(set(axis.phase)) for axis in axes)))
    real = all(axis.period <= 2 for axis in axes)
    entry = 8 if real else 16
    step = max(1, CHUNK_BYTES // (entry * per.shape[0] * per.shape[1] * per.shape[2] * len(phases)))

    def chunks() -> Iterator[np.ndarray]:
        for start in range(0, len(half), step):
            some = half[start : start + step]
            columns = []
            for phase in phases:
                chosen = per[(slice(None),) * 3 + np.ix_(*(axis.of_phase(r) for axis, r in zip(axes, phase)))]
                waves = np.ones((len(some), 1), dtype=complex)
                for number, (axis, r) in enumerate(zip(axes, phase)):
                    wave = axis.wave([w[number] for w in some], r)
                    waves = (waves[:, :, None] * wave[:, None, :]).reshape(len(some), -1)
                symbol = waves @ chosen.reshape(-1, waves.shape[1]).T
                columns.append(symbol.reshape(len(some) * len(per), *per.shape[1:3]))
            stack = np.concatenate(columns, axis=2)
            yield np.ascontiguousarray(stack.real) if real else stack

    # each wave is off by a few 1e-16 (its angle is below 2 pi), each sum by its roundings: on all entries of a matrix
    summed = np.abs(per).sum(tuple(range(3, per.ndim)))
    lost = (1e-14 + gamma(4 * int(np.prod(per.shape[3:])) + 8)) * max(frobenius(s) for s in summed)
    return (largest_singular_value(chunks) + lost) * scale * (1 + 1e-14)


def _first_of_pair(frequency: tuple[int, ...], axes: list[_Axis]) -> bool:
    """One of w and -w: a real kernel's matrices there are conjugates of each other."""
    return frequency <= tuple(-w % axis.period for w, axis in zip(frequency, axes))


class _Axis:
    """One axis of a convolution: input i = stride o + dilation t - padding for output o and tap t.

    taps: those that meet an input at all; period: frequencies, for a torus of stride * period inputs on which no pair
    of an input and an output meets through a tap that it does not meet without wrapping around.
    """

    def __init__(self, count: int, size: int, outputs: int, stride: int, padding: int, dilation: int) -> None:
        shifts = [dilation * t - padding for t in range(count)]
        self.taps = [t for t, c in enumerate(shifts) if any(0 <= stride * o + c < size for o in range(outputs))]
        shifts = [shifts[t] for t in self.taps]
        self.phase = [c % stride for c in shifts]
        self.step = [c // stride for c in shifts]
        least, most = min(shifts, default=0), stride * (outputs - 1) + max(shifts, default=0)
        torus = max(size - least, most + 1, size, stride * outputs)
        self.period = -(-torus // stride)

    def of_phase(self, r: int) -> list[int]:
        """Kept taps whose inputs lie on the r-th of the interleaved lattices."""
        return [at for at, phase in enumerate(self.phase) if phase == r]

    def wave(self, frequencies: list[int], r: int) -> np.ndarray:
        """exp(2 pi i w q / period), (frequencies, taps of phase r), the angle reduced in integers."""
        steps = np.array([self.step[at] for at in self.of_phase(r)], dtype=np.int64)
        turns = np.outer(np.array(frequencies, dtype=np.int64), steps) % self.period
        angle = 2.0 * np.pi * (turns / self.period)
        return np.cos(angle) + 1j * np.sin(angle)
