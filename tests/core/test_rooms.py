"""The rooms of the core: every module imports, and what a room may not touch it does not load."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import stabilitykit

ROOT = Path(stabilitykit.__file__).parents[1]
PLUGINS = sorted(p.name for p in (ROOT / "plugins").glob("stabilitykit_*") if (p / "__init__.py").exists())
PUBLIC = ("stabilitykit", "stabilitykit.testing", "stabilitykit.reporting", "stabilitykit.search")


def modules_of(package: str) -> list[str]:
    """The package and all modules below it, by files and not by what imports them."""
    folder = ROOT / package if package == "stabilitykit" else ROOT / "plugins" / package
    found = [m.name for m in pkgutil.walk_packages([str(folder)], f"{package}.", onerror=lambda name: None)]
    return [package, *(name for name in found if not name.endswith("__main__"))]


def in_a_fresh_process(code: str) -> object:
    """What ``code`` leaves in ``found``, run by an interpreter that has imported nothing of ours."""
    script = f"import importlib, json, sys\n{code}\nprint(json.dumps(found))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def loaded_by(*names: str) -> set[str]:
    """Modules that importing ``names`` loads."""
    code = f"for name in {list(names)!r}: importlib.import_module(name)\nfound = sorted(sys.modules)"
    return set(in_a_fresh_process(code))


def rooms_of(modules: set[str]) -> set[str]:
    """The rooms of the core that modules of ``modules`` stand in."""
    return {m.split(".")[1] for m in modules if m.startswith("stabilitykit.")}


def room(name: str) -> list[str]:
    """Modules of one room of the core."""
    found = [m for m in modules_of("stabilitykit") if m.split(".")[1:2] == [name]]
    assert len(found) > 1, f"stabilitykit/{name} holds no module"
    return found


def test_every_module_imports():
    names = [name for package in ("stabilitykit", *PLUGINS) for name in modules_of(package)]
    assert len(PLUGINS) >= 9 and len(names) > 200
    code = f"""found = {{}}
for name in {names!r}:
    try:
        importlib.import_module(name)
    except BaseException as error:
        found[name] = repr(error)"""
    assert in_a_fresh_process(code) == {}


def test_every_file_belongs_to_a_package():
    """A folder without __init__.py (an ignore rule hid one once) is found by no tool that walks packages."""
    folders = {file.parent for top in ("stabilitykit", "plugins") for file in (ROOT / top).rglob("*.py")}
    assert [str(f) for f in folders if not (f / "__init__.py").exists() and f.name not in ("plugins", "data")] == []


def test_what_is_public_keeps_its_promise():
    code = f"""found = []
for name in {PUBLIC!r}:
    module = importlib.import_module(name)
    found += [f"{{name}}.{{thing}}" for thing in module.__all__ if not hasattr(module, thing)]"""
    assert in_a_fresh_process(code) == []


def test_finding_plugins_loads_no_torch():
    loaded = loaded_by(*room("plugins"), *PLUGINS)
    assert "torch" not in loaded and "pluggy" in loaded


def test_the_base_loads_only_numpy_and_nothing_above():
    loaded = loaded_by(*room("base"))
    assert not {"torch", "pandas", "numba", "pluggy", "click"} & loaded
    assert rooms_of(loaded) == {"base"}


def test_search_loads_nothing_of_the_rest():
    loaded = loaded_by(*room("search"))
    assert rooms_of(loaded) == {"search"} and not {"pandas", "pluggy", "click"} & loaded
