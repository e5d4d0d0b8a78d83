"""Conditions like ``expansivity.expansive_constant.max < 0.9 * baseline``: a small language, read through a whitelist.

Python's parser makes the tree and nothing more: every node is turned into one of the functions below, or refused.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Never

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.names import did_you_mean

# A condition is typed by people; anything longer is something else, and deep trees exhaust the parser's stack.
LONGEST = 1000
BASELINE = "baseline"
_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {"abs": abs, "min": min, "max": max}
_LANGUAGE = (
    f"constants by name, numbers, {BASELINE}, + - * /, < <= > >= == !=, and, or, not, {', '.join(_FUNCTIONS)} and "
    "parentheses"
)


class Undecidable(Exception):
    """A condition has no truth value: a division by zero, or what is left of infinity minus infinity."""


@dataclass(frozen=True)
class Numbers:
    """What a condition reads: constants by name, float64 and never NaN, of the run and of the baseline."""

    run: Mapping[str, float]
    baseline: Mapping[str, float]


_Number = Callable[[Numbers], float]
_Truth = Callable[[Numbers], bool]


@dataclass(frozen=True)
class Condition:
    """A condition that was read and found well-formed.

    Attributes:
        text: as it was typed.
        run: names of the constants it reads from the run, in the order in which they stand.
        baseline: names of those it reads from the baseline.
    """

    text: str
    run: tuple[str, ...]
    baseline: tuple[str, ...]
    _truth: _Truth

    def holds(self, numbers: Numbers) -> bool:
        """Whether it is true of ``numbers``, which hold all that it reads.

        Raises:
            Undecidable: it divides by zero or computes NaN.
        """
        return self._truth(numbers)


def parse(text: str) -> Condition:
    """The condition that ``text`` spells.

    ``baseline`` is the baseline's value of the constant in the same comparison; where that names several,
    ``baseline(NAME)`` says which. A name that Python cannot read (``precision.flips.int8-weights``) stands in quotes.

    Raises:
        UsageProblem: anything else than the language above, in words that name the place.
    """
    if len(text) > LONGEST:
        raise UsageProblem(f"a condition has at most {LONGEST} characters; got {len(text)}")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        return _Reader(text).condition(tree)
    except SyntaxError as error:
        place = f" at character {error.offset}" if error.offset else ""
        raise UsageProblem(
            f"condition {text!r} does not parse{place}; it is made of {_LANGUAGE}. A name with other characters than "
            "letters, digits, dots and _ stands in quotes"
        ) from None
    except (RecursionError, MemoryError, ValueError):
        raise UsageProblem(f"condition {text[:80]!r} cannot be read: it is nested too deeply or holds a null") from None


class _Reader:
    """Turns a tree into functions, and notes which constants they read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._run: dict[str, None] = {}
        self._baseline: dict[str, None] = {}
        # The constants of the comparison that is being read; `baseline` alone belongs to one of them.
        self._compared: tuple[str, ...] = ()

    def condition(self, tree: ast.expr) -> Condition:
        truth = self._truth(tree)
        if not self._run:
            self._refuse(tree, "it names no constant of the run, such as expansivity.expansive_constant.max")
        return Condition(self._text, tuple(self._run), tuple(self._baseline), truth)

    def _truth(self, node: ast.expr) -> _Truth:
        match node:
            case ast.BoolOp(op=op, values=values):
                parts = [self._truth(value) for value in values]
                # All parts are looked at: one that cannot be decided is not hidden by one that can.
                join = all if isinstance(op, ast.And) else any
                return lambda numbers: join([part(numbers) for part in parts])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self._truth(operand)
                return lambda numbers: not inner(numbers)
            case ast.Compare():
                return self._comparison(node)
        return self._refuse(node, "a comparison was expected here, such as NAME < 0.5")

    def _comparison(self, node: ast.Compare) -> _Truth:
        self._compared = tuple(dict.fromkeys(_names_in(node)))
        sides = [self._number(side) for side in (node.left, *node.comparators)]
        compare = [_COMPARISONS.get(type(op)) for op in node.ops]
        known = [found for found in compare if found is not None]
        if len(known) < len(compare):
            self._refuse(node, "only < <= > >= == != compare numbers")

        def truth(numbers: Numbers) -> bool:
            values = [side(numbers) for side in sides]
            return all(op(a, b) for op, a, b in zip(known, values, values[1:]))

        return truth

    def _number(self, node: ast.expr) -> _Number:
        name = _name(node)
        if name == BASELINE:
            return self._of_baseline(node)
        if name is not None:
            if "." not in name:
                self._refuse(node, f"{name!r} is no constant: give PROPERTY.NAME, or {BASELINE}")
            self._run[name] = None
            return lambda numbers: numbers.run[name]
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return self._literal(node, value)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd() as op, operand=operand):
                inner = self._number(operand)
                sign = -1.0 if isinstance(op, ast.USub) else 1.0
                return lambda numbers: sign * inner(numbers)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                return _arithmetic(_ARITHMETIC[type(op)], self._number(left), self._number(right))
            case ast.Call():
                return self._call(node)
        return self._refuse(node, f"a number was expected here; a condition is made of {_LANGUAGE}")

    def _literal(self, node: ast.expr, value: float) -> _Number:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self._refuse(node, "this number is too large for float64")
        return lambda numbers: number

    def _of_baseline(self, node: ast.expr) -> _Number:
        if len(self._compared) != 1:
            named = ", ".join(self._compared) or "no constant"
            self._refuse(node, f"the comparison names {named}; say which is meant: {BASELINE}(NAME)")
        return self._from_baseline(self._compared[0])

    def _from_baseline(self, name: str) -> _Number:
        self._baseline[name] = None
        return lambda numbers: numbers.baseline[name]

    def _call(self, node: ast.Call) -> _Number:
        word = node.func.id if isinstance(node.func, ast.Name) else ""
        if word not in (*_FUNCTIONS, BASELINE):
            close = did_you_mean(word, [*_FUNCTIONS, BASELINE])
            self._refuse(node, f"the functions are {', '.join(_FUNCTIONS)} and {BASELINE}(NAME){close}")
        if node.keywords or any(isinstance(argument, ast.Starred) for argument in node.args):
            self._refuse(node, f"{word} takes plain arguments")
        if word == BASELINE:
            name = _name(node.args[0]) if len(node.args) == 1 else None
            if name is None or "." not in name:
                self._refuse(node, f"{BASELINE} takes the name of one constant")
            return self._from_baseline(name)
        if len(node.args) < 2 if word != "abs" else len(node.args) != 1:
            self._refuse(node, "abs takes one number, min and max two or more")
        function, arguments = _FUNCTIONS[word], [self._number(argument) for argument in node.args]
        return lambda numbers: float(function(*(argument(numbers) for argument in arguments)))

    def _refuse(self, node: ast.AST, why: str) -> Never:
        part = ast.get_source_segment(self._text.strip(), node) or ""
        where = f" at {part[:80]!r}" if part and part != self._text.strip() else ""
        raise UsageProblem(f"condition {self._text!r}{where}: {why}")


def _arithmetic(function: Callable[[float, float], float], left: _Number, right: _Number) -> _Number:
    def number(numbers: Numbers) -> float:
        a, b = left(numbers), right(numbers)
        try:
            found = function(a, b)
        except ZeroDivisionError:
            raise Undecidable("it divides by zero") from None
        if math.isnan(found):  # NaN is neither above nor below anything: no comparison would ever fire
            raise Undecidable("it computes infinity minus infinity, or the like")
        return found

    return number


def _name(node: Any) -> str | None:
    """``a.b.c`` or a text in quotes; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.Name):
        return node.id
    inner = _name(node.value) if isinstance(node, ast.Attribute) and not isinstance(node.value, ast.Constant) else None
    return f"{inner}.{node.attr}" if inner is not None else None


def _names_in(node: ast.AST) -> list[str]:
    """Constants of the run below ``node``, in order; what baseline(...) and functions are called is none."""
    name = _name(node)
    if name is not None:
        return [] if name == BASELINE else [name]
    if isinstance(node, ast.Call):
        function = node.func.id if isinstance(node.func, ast.Name) else ""
        return [] if function == BASELINE else [n for argument in node.args for n in _names_in(argument)]
    return [n for child in ast.iter_child_nodes(node) for n in _names_in(child)]
