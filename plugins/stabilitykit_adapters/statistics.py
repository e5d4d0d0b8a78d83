"""Means and standard deviations per channel as people write them. Imports no torch, so that slips are found at once."""

from __future__ import annotations

import re

from stabilitykit import UsageProblem

Statistics = tuple[tuple[float, ...], tuple[float, ...]]

STATISTICS: dict[str, Statistics] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Named means and standard deviations per channel."""

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
NUMBERS_PATTERN = rf"\s*[\[(]?\s*{_NUMBER}(?:(?:\s*,\s*|\s+){_NUMBER})*\s*,?\s*[\])]?\s*"
NORMALISE_PATTERN = rf"none|{'|'.join(STATISTICS)}|{NUMBERS_PATTERN}/{NUMBERS_PATTERN}"
NORMALISE_HELP = "none, imagenet, inception or MEAN/STD, as 0.5/0.25 or (0.49, 0.48, 0.45)/(0.25, 0.24, 0.26)"
NUMBERS_HELP = "one number per channel, as 0.5 or (0.49, 0.48, 0.45)"


def numbers(text: str, what: str, owner: str) -> tuple[float, ...]:
    """Numbers separated by commas or blanks, with or without brackets; UsageProblem when it is none."""
    if not re.fullmatch(NUMBERS_PATTERN, text):
        raise UsageProblem(f"{owner}: {what} is {NUMBERS_HELP}; got {text!r}")
    return tuple(float(piece) for piece in re.findall(_NUMBER, text))


def statistics(
    normalise: str | None, mean: str | None, std: str | None, owner: str, usual: Statistics | None = None
) -> Statistics | None:
    """(mean, standard deviation) per channel, or None for pixels as they are.

    Arguments:
        normalise: both at once: ``none``, a name in :data:`STATISTICS` or ``MEAN/STD``.
        mean, std: each alone, in place of that part.
        usual: where nothing is given.

    Raises:
        UsageProblem: numbers that cannot be read, unequally many of them, a standard deviation not above 0.
    """
    found = usual
    if normalise == "none":
        found = None
    elif normalise is not None and normalise in STATISTICS:
        found = STATISTICS[normalise]
    elif normalise is not None:
        first, slash, second = normalise.partition("/")
        if not slash or not re.fullmatch(NORMALISE_PATTERN, normalise):
            raise UsageProblem(f"{owner}: normalise is {NORMALISE_HELP}; got {normalise!r}")
        found = numbers(first, "mean", owner), numbers(second, "std", owner)
    if mean is not None or std is not None:
        before = found or ((0.0,), (1.0,))
        one = before[0] if mean is None else numbers(mean, "mean", owner)
        two = before[1] if std is None else numbers(std, "std", owner)
        count = max(len(one), len(two))  # one number stands for all channels
        one, two = (values * count if len(values) == 1 else values for values in (one, two))
        found = one, two
    if found is not None and (len(found[0]) != len(found[1]) or min(found[1]) <= 0):
        raise UsageProblem(
            f"{owner}: normalise takes as many means as standard deviations, the latter above 0; got {found[0]} and "
            f"{found[1]}"
        )
    return found
