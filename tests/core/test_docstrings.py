"""Public docstrings of the core name shapes and dtypes of arrays, and the errors that are raised."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import stabilitykit

ROOT = Path(stabilitykit.__file__).parent
ARRAY = re.compile(r"\b(?:ndarray|Tensor|State|memmap)\b")
# (N,), (T+1, N, K), (groups + 1,), (..., K), (2 * images, depths): one parenthesis with a comma or one symbol.
SHAPE = re.compile(
    r"\((?:\.\.\.|[\w+*^' -]+)(?:,[^()]*)\)|\bscalar\b|\bany shape\b|\bshapes? of\b|\bsame shape\b", re.I
)
DTYPE = re.compile(
    r"\bu?int(?:8|16|32|64)\b|\bb?float(?:16|32|64)\b|\bbool\b|\bintegers?\b|\bdtypes?\b|\bprecision\b", re.I
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def is_public(name: str) -> bool:
    return not name.startswith("_")


def is_command(node: Function) -> bool:
    return any(ast.unparse(decorator).startswith("click.command") for decorator in node.decorator_list)


def module_name(path: Path) -> str:
    parts = ("stabilitykit", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def public_functions(path: Path) -> Iterator[tuple[Function, str | None]]:
    """Every public function of the file with the name of its class; nested functions and overloads left out."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        # The docstring of a command is its help text: its user sees exit codes and messages, no exceptions.
        if isinstance(node, Function) and is_public(node.name) and not is_command(node):
            yield node, None
        if isinstance(node, ast.ClassDef) and is_public(node.name):
            for inner in node.body:
                if isinstance(inner, Function) and (is_public(inner.name) or inner.name in ("__init__", "__call__")):
                    yield inner, node.name


def inherits_documentation(module: str, owner: str | None, name: str) -> bool:
    """Whether a base class of the core documents the method that this one overrides."""
    if owner is None or name == "__init__":
        return False
    bases = inspect.getmro(getattr(importlib.import_module(module), owner))[1:]
    return any(name in vars(base) and inspect.getdoc(vars(base)[name]) for base in bases)


def documentation(node: Function, owner_doc: str | None) -> str:
    """The docstring; what constructs or calls an object may be described by its class."""
    special = node.name in ("__init__", "__call__")
    return "\n".join(filter(None, [ast.get_docstring(node), owner_doc if special else None]))


def touches_arrays(node: Function) -> bool:
    args = node.args
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    notes = [a.annotation for a in named if a is not None and a.annotation] + ([node.returns] if node.returns else [])
    return any(ARRAY.search(ast.unparse(note)) for note in notes)


def caught(attempt: ast.Try) -> set[str]:
    """Names of the classes that the handlers catch; Exception stands for all."""
    kinds = [h.type.elts if isinstance(h.type, ast.Tuple) else [h.type] for h in attempt.handlers]
    names = {ast.unparse(kind) if kind is not None else "Exception" for several in kinds for kind in several}
    return names | ({"Exception"} if "BaseException" in names else set())


def raised(statements: list[ast.stmt]) -> set[str]:
    """Names of the classes that the statements themselves raise and do not catch."""
    found: set[str] = set()
    for part in statements:
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if isinstance(part, ast.With) and any(ast.unparse(i.context_expr) == "catching()" for i in part.items):
            continue
        if isinstance(part, ast.Raise) and isinstance(part.exc, ast.Call):
            found.add(ast.unparse(part.exc.func).rpartition(".")[2])
        if isinstance(part, ast.Try):
            kinds = caught(part)
            found |= set() if "Exception" in kinds else raised(part.body) - kinds
            found |= raised([*part.orelse, *part.finalbody, *(s for h in part.handlers for s in h.body)])
            continue
        for block in ("body", "orelse"):
            found |= raised(getattr(part, block, []))
        for case in getattr(part, "cases", []):
            found |= raised(case.body)
    return found


def offences() -> Iterator[str]:
    for path in sorted(ROOT.rglob("*.py")):
        classes = {
            n.name: ast.get_docstring(n)
            for n in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(n, ast.ClassDef)
        }
        for node, owner in public_functions(path):
            doc = documentation(node, classes.get(owner) if owner else None)
            where = f"{path.relative_to(ROOT.parent)}:{node.lineno} {node.name}"
            arrays, errors = touches_arrays(node), raised(node.body)
            if not (arrays or errors) or inherits_documentation(module_name(path), owner, node.name):
                continue
            if arrays and not SHAPE.search(doc):
                yield f"{where}: no shape"
            if arrays and not DTYPE.search(doc):
                yield f"{where}: no dtype"
            for error in sorted(errors):
                if not re.search(rf"\b{error}\b", doc):
                    yield f"{where}: raises {error}, which its docstring does not name"


def test_public_docstrings_name_shapes_dtypes_and_errors():
    found = list(offences())
    assert not found, "\n".join(found)


def test_there_is_one_form_of_sections():
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.fullmatch(r"\s+(?:Args|Parameters|Return|Raise|Yield):|\s+(?:Arguments|Returns|Raises): \S.*", line):
                found.append(f"{path.relative_to(ROOT.parent)}:{number} {line.strip()}")
    assert not found, "\n".join(found)


def test_the_search_for_offences_finds_them():
    source = """
def f(a: np.ndarray) -> list[torch.Tensor]:
    try:
        raise KeyError("caught")
    except KeyError:
        raise ValueError("not caught") from None
    for _ in a:
        with a:
            raise other.TypeProblem("deep")
"""
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    assert touches_arrays(node) and raised(node.body) == {"ValueError", "TypeProblem"}
    assert SHAPE.search("float64 (N,)") and SHAPE.search("(T+1, N, K)") and SHAPE.search("(groups + 1,)")
    assert not SHAPE.search("the images (as they are), the best of (all)") and not DTYPE.search(
        "the values of the boxes"
    )
