"""Fill the code blocks of docs/plugin.md that show generated packages and examples: python docs/generate_plugin.py.

A comment before a block says what stands in it: ``<!-- new KIND NAME: FILE SYMBOL -->`` is a function or class of a
file of the package that ``stabilitykit new KIND NAME`` writes, ``<!-- file PATH -->`` a file of this repository. With
--check nothing is written, and the exit status is 1 when the page is out of date.
"""

from __future__ import annotations

import ast
import re
import sys
import tempfile
from pathlib import Path

from stabilitykit.cli.scaffold import new_package
from stabilitykit.plugins.loading import PluginHost
from stabilitykit.plugins.registry import Registry

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "plugin.md"
BLOCK = re.compile(r"^(<!-- (?:new|file) [^\n]* -->\n+```python\n)(.*?)(^```$)", re.M | re.S)
NEW = re.compile(r"<!-- new (\w+) (\w+): (\S+) (\S+) -->")
FILE = re.compile(r"<!-- file (\S+) -->")


def page(text: str) -> str:
    """``text`` with its blocks filled."""
    return BLOCK.sub(lambda found: found[1] + _source(found[1]) + found[3], text)


def _source(comment: str) -> str:
    named = FILE.search(comment)
    if named is not None:
        return (ROOT / named[1]).read_text(encoding="utf-8")
    asked = NEW.search(comment)
    if asked is None:
        raise SystemExit(f"cannot read {comment.strip()!r}")
    kind, name, file, symbol = asked.groups()
    with tempfile.TemporaryDirectory() as folder:
        package = new_package(kind, name, Path(folder), Registry(PluginHost()))
        source = (package / "src" / f"stabilitykit_{name}" / file).read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == symbol:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            return "\n".join(source.splitlines()[first - 1 : node.end_lineno]) + "\n"
    raise SystemExit(f"{file} of a new {kind} holds no {symbol}")


def main() -> int:
    """Write the page, or with --check compare it."""
    before = TARGET.read_text(encoding="utf-8")
    after = page(before)
    if "--check" in sys.argv[1:]:
        if before != after:
            print(f"{TARGET} is out of date: run python docs/generate_plugin.py", file=sys.stderr)
        return int(before != after)
    TARGET.write_text(after, encoding="utf-8")
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
