"""Which tensors of a file are the network's: the prefix that wrappers and nests put before its names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from stabilitykit.base.errors import UsageProblem
from stabilitykit.training.containers import Checkpoint

T = TypeVar("T")

WHOLE = ""
_WRAPPERS = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
"""Parts of names that torch.compile, FSDP and checkpoint wrappers put inside, where they compute the same."""


@dataclass(frozen=True)
class Choice:
    """``prefix`` chosen (without its last dot); ``sets``: other prefixes that fit, ``others``: their tensors."""

    prefix: str
    sets: tuple[str, ...] = ()
    others: frozenset[str] = frozenset()


def canonical(named: Mapping[str, T]) -> dict[str, T]:
    """``named`` without the parts that wrappers put inside names; as it is where two names would become one."""
    new = [".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in named]
    return dict(zip(new, named.values())) if len(set(new)) == len(new) else dict(named)


def under(named: Mapping[str, T], prefix: str) -> tuple[dict[str, T], dict[str, T]]:
    """(what stands under ``prefix`` by its names without it, the rest by whole names)."""
    if prefix == WHOLE:
        return dict(named), {}
    start = prefix + "."
    inside = {name.removeprefix(start): value for name, value in named.items() if name.startswith(start)}
    return inside, {name: value for name, value in named.items() if not name.startswith(start)}


def choose_prefix(
    tensors: Mapping[str, object],
    needed: Collection[tuple[str, ...]],
    wished: str | None,
    found: Checkpoint,
    where: str,
) -> Choice:
    """The prefix under which the network's tensors stand.

    Arguments:
        needed: groups of names, one of each group has to be there (tied tensors have several names).
        wished: the set of weights a user asked for: the start of the prefix.
        where: what does not fit what, for messages.

    Returns:
        The one prefix that has all of ``needed``; else the one that has most, so that a message can say what is
        missing.

    Raises:
        UsageProblem: several have all, or none starts with ``wished``.
    """
    group_of = {name: number for number, names in enumerate(needed) for name in names}
    have: dict[str, set[int]] = {}
    for full in tensors:
        parts = full.split(".")
        if parts[0].startswith("optim"):  # an optimizer may keep its numbers under the network's names
            continue
        for cut in range(len(parts)):
            number = group_of.get(".".join(parts[cut:]))
            if number is not None:
                have.setdefault(".".join(parts[:cut]), set()).add(number)
    complete = [prefix for prefix, groups in have.items() if len(groups) == len(needed)]
    if wished is not None:
        return _wished(tensors, group_of, wished, complete, have, found, where)
    if len(complete) > 1:
        raise UsageProblem(
            f"the checkpoint for {where} holds {len(complete)} sets of weights that fit: "
            f"{', '.join(map(_shown, complete))}. Say which with --weights {_shown(complete[-1])} (or "
            f"weights={_shown(complete[-1])})"
        )
    if complete:
        return Choice(complete[0])
    counts = Counter({prefix: len(groups) for prefix, groups in have.items()})
    best = max(counts.values(), default=0)
    likeliest = sorted((p for p, count in counts.items() if count == best), key=lambda p: (p.count("."), len(p)))
    if 2 * best >= len(needed) and len(likeliest) == 1:
        return Choice(likeliest[0])
    return Choice(_common_nest(found))


def _wished(
    tensors: Mapping[str, object],
    group_of: Collection[str],
    wished: str,
    complete: list[str],
    have: Mapping[str, Collection[int]],
    found: Checkpoint,
    where: str,
) -> Choice:
    wished = WHOLE if wished == "." else wished.removesuffix(".")
    fitting = [p for p in complete if p == wished or (wished and f".{p}.".find(f".{wished}.") >= 0)]
    exact = [p for p in fitting if p == wished]
    fitting = exact or fitting
    if len(fitting) == 1:
        others = tuple(p for p, groups in have.items() if p != fitting[0] and 2 * len(groups) >= len(have[fitting[0]]))
        names = {n for n in tensors if any(n.startswith(p + ".") if p else n in group_of for p in others)}
        names -= {n for n in names if fitting[0] and n.startswith(fitting[0] + ".")}
        return Choice(fitting[0], tuple(map(_shown, others)), frozenset(names))
    if fitting:
        raise UsageProblem(
            f"the checkpoint for {where} holds {len(fitting)} sets of weights called {wished}: "
            f"{', '.join(map(_shown, fitting))}; give more of the name to --weights"
        )
    near = sorted((p for p in have if p == wished or p.startswith(wished + ".")), key=lambda p: -len(have[p]))
    if near:
        return Choice(near[0])
    there = complete or [nest for nest in found.nests if nest]
    raise UsageProblem(
        f"the checkpoint for {where} holds no weights called {_shown(wished)}; it holds "
        f"{', '.join(map(_shown, there)) or 'one set without a name'}"
    )


def _common_nest(found: Checkpoint) -> str:
    """The one mapping that holds the file's tensors, where there is one; else the file as a whole."""
    nests: Iterable[str] = [nest for nest in found.nests if nest]
    tops = {nest.partition(".")[0] for nest in nests if not nest.partition(".")[0].startswith("optim")}
    inner = [nest for nest in nests if nest.partition(".")[0] in tops]
    return inner[0] if len(tops) == 1 and len(inner) == 1 else WHOLE


def _shown(prefix: str) -> str:
    return prefix or "."
