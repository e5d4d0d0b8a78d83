"""Every hook a plugin may implement. A plugin is a module (or object) named by an entry point in the group
``stabilitykit``; it implements any of these with ``@stabilitykit.hookimpl``. Keep the module cheap to import."""

from __future__ import annotations

import pluggy

from stabilitykit.plugins.component import Adapter, Command, Component, ReportSection

PROJECT = "stabilitykit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def stabilitykit_models() -> list[Component]:
    """Models this plugin offers (kind ``"model"``)."""
    return []


@hookspec
def stabilitykit_datasets() -> list[Component]:
    """Datasets this plugin offers (kind ``"dataset"``)."""
    return []


@hookspec
def stabilitykit_properties() -> list[Component]:
    """Properties this plugin measures (kind ``"property"``)."""
    return []


@hookspec
def stabilitykit_adapters() -> list[Adapter]:
    """Objects of other libraries that this plugin turns into models, datasets or properties."""
    return []


@hookspec
def stabilitykit_commands() -> list[Command]:
    """Commands this plugin adds to the ``stabilitykit`` command line."""
    return []


@hookspec
def stabilitykit_report_sections() -> list[ReportSection]:
    """Sections this plugin adds to the HTML report."""
    return []
