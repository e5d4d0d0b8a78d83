"""Every hook a plugin may implement. A plugin is a module (or object) named by an entry point in the group
``stabilitykit``; it implements any of these with ``@stabilitykit.hookimpl``. Keep the module cheap to import."""

from __future__ import annotations

from typing import Any

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


@hookspec
def stabilitykit_cell_finished(cell: dict[str, Any], run: dict[str, Any]) -> None:
    """A cell (model, dataset, property) is finished or has failed; its file is on disk.

    Called at most once for every cell that is measured, in the order of the run. Cells that ``--resume`` keeps are not
    told again. On the command line the hook runs in a process of its own that lives to the end of the run: whatever it
    raises, prints, changes or takes in time (``STABILITYKIT_HOOK_TIMEOUT``, 60 s a call) is a warning with the plugin's
    name, and the run goes on meanwhile. The arguments are copies. Leave out an argument that is not used.

    Arguments:
        cell: the content of the cell's file (docs/files.md) with ``seconds``: ``model``, ``dataset``, ``property``,
            ``status``, ``error``, ``plugin``, ``record``, ``result``, ``seconds``.
        run: ``folder`` (a path as text, or None), ``request``, ``provenance``, ``pairs``, as far as they are known now.
    """


@hookspec
def stabilitykit_run_finished(run: dict[str, Any], cells: list[dict[str, Any]]) -> None:
    """All cells of a run are finished or have failed; its folder is complete, with its report where one was asked for.

    Called once, under the conditions of :func:`stabilitykit_cell_finished`; an interrupted run is not finished.

    Arguments:
        run: ``folder`` (a path as text, or None) and the content of run.json (docs/files.md).
        cells: every cell of the run, those that ``--resume`` kept, too, as :func:`stabilitykit_cell_finished` has them.
    """
