"""What a plugin may register: every field of a component, command or section has the type the core relies on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stabilitykit.base.errors import PluginProblem
from stabilitykit.plugins.component import KINDS, Adapter, Command, Component, Option, ReportSection

# Names are typed by people and stand in tables; a summary is one line of `list`.
LONGEST_NAME, LONGEST_TEXT = 80, 1000
OPTION_TYPES = ("str", "int", "float", "bool", "path", "ints", "floats")


def check_component(component: Component) -> None:
    """PluginProblem, naming component and field, for anything but well-typed fields."""
    _name("component", component.name, forbidden=":,= \t\n/\\")
    who = f"component {component.name}"
    _target(who, component.target)
    _texts(who, summary=component.summary, reference=component.reference)
    for what in ("needs", "wants", "options"):
        if isinstance(getattr(component, what), str) or not isinstance(getattr(component, what), Sequence):
            raise PluginProblem(f"{who}: {what} is {_shown(getattr(component, what))}, expected a tuple")
    for need in (*component.needs, *component.wants):
        if not isinstance(need, str):
            raise PluginProblem(f"{who}: it needs {_shown(need)}, expected the name of a property")
    for option in component.options:
        if not isinstance(option, Option):
            raise PluginProblem(f"{who}: an option is {_shown(option)}, expected a stabilitykit.Option")
        _name(f"{who}: option", option.name, forbidden=":,= \t\n")
        _texts(f"{who}: option {option.name}", help=option.help)
        if option.type not in OPTION_TYPES:
            raise PluginProblem(
                f"{who}: option {option.name} is of type {_shown(option.type)}, expected one of "
                f"{', '.join(OPTION_TYPES)}"
            )
    names = [option.name for option in component.options]
    if len(set(names)) < len(names):
        raise PluginProblem(f"{who}: an option name stands twice in {names}")
    if component.primary is not None and component.primary not in names:
        raise PluginProblem(f"{who}: primary {_shown(component.primary)} is not one of {names}")


def check_adapter(adapter: Adapter) -> None:
    """PluginProblem unless the class is named with its module and the component is one."""
    if not isinstance(adapter.accepts, str) or "." not in adapter.accepts:
        raise PluginProblem(f"an adapter accepts {_shown(adapter.accepts)}, expected 'module.Class'")
    if not isinstance(adapter.component, Component) or adapter.component.kind not in KINDS:
        raise PluginProblem(f"the adapter of {adapter.accepts} has no component of kind {', '.join(KINDS)}")
    check_component(adapter.component)


def check_command(command: Command) -> None:
    """PluginProblem unless name, target and summary are what they should be."""
    _name("command", command.name, forbidden=" \t\n=")
    _target(f"command {command.name}", command.target)
    _texts(f"command {command.name}", summary=command.summary)


def check_section(section: ReportSection) -> None:
    """PluginProblem unless name, title, target and order are what they should be."""
    _name("report section", section.name)
    _target(f"report section {section.name}", section.target)
    _texts(f"report section {section.name}", title=section.title)
    if isinstance(section.order, bool) or not isinstance(section.order, (int, float)):
        raise PluginProblem(f"report section {section.name}: order is {_shown(section.order)}, expected a number")


def _name(what: str, name: Any, forbidden: str = "") -> None:
    if (
        not isinstance(name, str)
        or not name
        or not name.isprintable()
        or len(name) > LONGEST_NAME
        or any(c in name for c in forbidden)
    ):
        unwanted = (
            f" without any of  {' '.join(c for c in forbidden if c.isprintable() and c != ' ')}  or a blank"
            if forbidden
            else ""
        )
        raise PluginProblem(
            f"{what} name is {_shown(name)}, expected 1 to {LONGEST_NAME} printable characters{unwanted}"
        )


def _target(who: str, target: Any) -> None:
    if not isinstance(target, str) or ":" not in target:
        raise PluginProblem(f"{who}: target is {_shown(target)}, expected 'module:attribute'")


def _texts(who: str, **texts: Any) -> None:
    for what, text in texts.items():
        if not isinstance(text, str) or len(text) > LONGEST_TEXT:
            raise PluginProblem(f"{who}: {what} is {_shown(text)}, expected text of at most {LONGEST_TEXT} characters")


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, (str, int, float, type(None))) else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."
