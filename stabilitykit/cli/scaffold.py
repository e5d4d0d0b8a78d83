"""Start a plugin package: templates filled in, written whole or not at all."""

from __future__ import annotations

import importlib.util
import keyword
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from stabilitykit import __version__
from stabilitykit.base.errors import UsageProblem
from stabilitykit.plugins.registry import Registry

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
SUFFIX = ".tmpl"


# Kind -> (what its class is called after the name, what its package needs beside stabilitykit).
KINDS = {
    "property": ("Property", ("numpy",)),
    "model": ("Model", ("torch", "safetensors")),
    "dataset": ("Dataset", ("numpy",)),
    "command": ("", ("click",)),
    "section": ("", ("markupsafe",)),
}


def new_package(kind: str, name: str, parent: Path, registry: Registry | None = None) -> Path:
    """Write the plugin package ``stabilitykit-NAME`` with a working thing of one kind into ``parent``.

    Arguments:
        kind: a key of :data:`KINDS`.
        name: snake_case; becomes the thing's name (a command's with ``-`` for ``_``) and part of the package's.
        parent: an existing folder.
        registry: to see which names are taken; default: load the installed plugins.

    Returns:
        The new folder.

    Raises:
        UsageProblem: a name that cannot be used or is taken, a target that exists, a folder that cannot be written.
    """
    check_name(kind, name)
    package, distribution = f"stabilitykit_{name}", f"stabilitykit-{name.replace('_', '-')}"
    command = name.replace("_", "-")
    shown = command if kind == "command" else name
    owner = _owner(kind, shown, registry or Registry.load())
    if owner:
        raise UsageProblem(f"{kind} {shown!r} is already provided by {owner}; choose another name")
    if importlib.util.find_spec(package) is not None:
        raise UsageProblem(f"a package {package!r} can already be imported here; choose another name")
    suffix, needs = KINDS[kind]
    values = {
        "kind": kind,
        "name": name,
        "shown": shown,
        "command": command,
        "package": package,
        "distribution": distribution,
        "class_name": "".join(part.capitalize() for part in name.split("_")) + suffix,
        "dependencies": ", ".join(f'"{need}"' for need in needs),
        "version": __version__,
    }
    templates = files("stabilitykit.cli") / "templates"
    return write_package([templates / "common", templates / kind], Path(parent) / distribution, values)


def _owner(kind: str, name: str, registry: Registry) -> str:
    """Who provides ``name`` already: a thing of the same kind, or a plugin; empty: nobody."""
    host = registry.host
    if kind == "command":
        from stabilitykit.cli import COMMANDS

        taken = dict.fromkeys(COMMANDS, "stabilitykit") | {c.name: c.distribution for c in host.commands}
    elif kind == "section":
        from stabilitykit.reporting.core_sections import SECTIONS

        taken = {section.name: "stabilitykit" for section in SECTIONS} | {s.name: s.distribution for s in host.sections}
    else:
        taken = {c.name: c.owner for c in host.components if c.kind == kind}
    plugins = {record.name: f"plugin {record.name} of {record.owner}" for record in host.records}
    return taken.get(name) or plugins.get(name, "")


def check_name(kind: str, name: str) -> None:
    """UsageProblem unless ``name`` is a lower-case Python name that is no word and no module of the language."""
    if keyword.iskeyword(name):
        raise UsageProblem(f"{name!r} is a word of the Python language; choose another name")
    if name in sys.stdlib_module_names:
        raise UsageProblem(f"{name!r} is a module of Python's standard library; choose another name, e.g. my_{name}")
    if not NAME.fullmatch(name):
        close = re.sub(r"_+", "_", re.sub(r"[^a-z0-9]+", "_", name.lower())).strip("_")
        hint = f", e.g. {close}" if NAME.fullmatch(close) and not keyword.iskeyword(close) else ""
        raise UsageProblem(
            f"{name!r} is no name for a {kind}: use lower-case letters, digits and single "
            f"underscores, starting with a letter{hint}"
        )


def write_package(templates: Sequence[Traversable], target: Path, values: Mapping[str, str]) -> Path:
    """Fill in every file of the folders ``templates`` and put the result at ``target`` in one rename.

    File and folder names may hold ``__key__`` for a key of ``values``; contents use ``$key``.

    Raises:
        UsageProblem: ``target`` exists already, its folder does not, or nothing can be written there.
    """
    if not target.parent.is_dir():
        raise UsageProblem(f"{target.parent} is no folder; create it first or choose another with --directory")
    if target.exists() or target.is_symlink():
        raise UsageProblem(f"{target} exists already; nothing was written. Remove it or choose another name")
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UsageProblem(f"cannot write into {target.parent}: {error.strerror or error}") from error
    try:
        for template in templates:
            _fill(template, temporary, values)
        temporary.chmod(0o777 & ~_umask())  # mkdtemp makes the folder private
        os.rename(temporary, target)
    except OSError as error:
        raise UsageProblem(f"cannot write {target}: {error.strerror or error}; nothing was written") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _fill(template: Traversable, folder: Path, values: Mapping[str, str]) -> None:
    for entry in template.iterdir():
        name = entry.name.removesuffix(SUFFIX)
        # A folder's name may look like __package__, which is also a key; __init__ is none.
        for key, value in values.items():
            name = name.replace(f"__{key}__", value)
        if entry.is_dir():
            (folder / name).mkdir()
            _fill(entry, folder / name, values)
        elif entry.name.endswith(SUFFIX):
            text = Template(entry.read_text(encoding="utf-8")).substitute(values)
            (folder / name).write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
