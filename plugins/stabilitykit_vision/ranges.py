"""Which stored number is black and which is white."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from stabilitykit import DataProblem, UsageProblem

HARDLY = 1 / 16
"""A set whose brightest pixel stays at or below this share of white is refused: its range is not what it seems."""

DIM = 1 / 2
"""A set whose brightest pixel stays below this share of white is warned of."""


@dataclass(frozen=True)
class Range:
    """``low`` is black (0), ``high`` is white (1).

    Attributes:
        text: as given; empty where the format of the pixels defines the range.
    """

    low: float
    high: float
    text: str = ""

    @property
    def transform(self) -> str:
        """What is done to the stored numbers, for the record."""
        if self.low == 0:
            return "as stored" if self.high == 1 else f"divide by {self.high:g}"
        return f"map {self.low:g}..{self.high:g} to 0..1"

    def scaled(self, stored: np.ndarray) -> np.ndarray:
        """Numbers of any type and shape -> float32, 0 for black, 1 for white."""
        if self.low == 0 and self.high == 1:
            return stored.astype(np.float32)
        if self.low == 0 and stored.dtype == np.uint8:
            return stored.astype(np.float32) / np.float32(self.high)
        return ((stored.astype(np.float64) - self.low) / (self.high - self.low)).astype(np.float32)


def parse_range(text: str | None, owner: str) -> Range | None:
    """``255`` (0 is black) or ``-1..1`` -> Range; None for None; UsageProblem for anything else."""
    if text is None:
        return None
    low, dots, high = str(text).rpartition("..")
    try:
        parsed = Range(float(low) if dots else 0.0, float(high), str(text))
    except ValueError:
        parsed = None
    if parsed is None or not np.isfinite([parsed.low, parsed.high]).all() or parsed.low >= parsed.high:
        raise UsageProblem(
            f"{owner}: range is the number that means white, as 255, or black..white, as -1..1; got {text!r}"
        )
    return parsed


def range_of(dtype: np.dtype) -> Range | None:
    """The range that a type of pixels defines: uint8, uint16, bool, floats in [0, 1]; None where there is none."""
    if dtype == np.uint8:
        return Range(0, 255)
    if dtype.kind == "u" and dtype.itemsize == 2:
        return Range(0, 65535)
    if dtype.kind in "bf":
        return Range(0, 1)
    return None


def parts(pixels: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first image, images (M, values)) over ``pixels`` (N, ...), a few at a time."""
    step = max(1, (1 << 24) // max(int(np.prod(pixels.shape[1:])), 1))
    for start in range(0, len(pixels), step):
        part = pixels[start : start + step]
        yield start, part.reshape(len(part), -1)


def check_range(name: str, pixels: np.ndarray, known: Range) -> None:
    """DataProblem, naming the first image, unless ``pixels`` (N, ...) are finite and inside ``known``."""
    for start, part in parts(pixels):
        if part.dtype.kind == "f":
            finite = np.isfinite(part).all(axis=1)
            if not finite.all():
                raise DataProblem(
                    f"dataset {name}: image {start + int((~finite).argmax())} holds NaN or infinite "
                    "pixels; remove or repair it"
                )
        inside = ((part >= known.low) & (part <= known.high)).all(axis=1)
        if not inside.all():
            bad = int((~inside).argmax())
            low, high = part[bad].min(), part[bad].max()
            raise DataProblem(
                f"dataset {name}: image {start + bad} ranges over {low:g}..{high:g}; "
                + (
                    f"range={known.text} was given"
                    if known.text
                    else f"floats lie in [0, 1]: say what is black and white, as range={guess(low, high)}"
                )
            )


def guess(low: float, high: float) -> str:
    """A range that fits ``low``..``high``, to be named in a message; never used unasked."""
    top = next((most for most in (1, 15, 16, 31, 63, 100, 127, 255, 1023, 4095, 65535) if high <= most), f"{high:g}")
    if low >= 0:
        return str(top)
    return f"-{top}..{top}" if -low <= float(top) else f"{low:g}..{high:g}"


def check_brightness(name: str, brightest: float, stored: float, given: bool) -> str:
    """What to say of a set whose brightest pixel is ``brightest`` (1 is white): nothing, or a warning.

    Arguments:
        stored: the same pixel as it is stored.
        given: the range was given by hand: nothing is doubted.

    Raises:
        DataProblem: the whole set is nearly black.
    """
    if given or brightest >= DIM:
        return ""
    if brightest <= 0:
        raise DataProblem(f"dataset {name}: all pixels are 0: every image is black")
    text = f"the brightest pixel of all images is {stored:g}, {100 * brightest:.2g} % of white"
    if brightest <= HARDLY * (1 + 1e-3):
        raise DataProblem(
            f"dataset {name}: {text}; say which number means white, as range={guess(0, stored)} "
            "(or the full range, if they are as dark as that)"
        )
    return f"{text}; if another number means white, say so with range={guess(0, stored)}"
