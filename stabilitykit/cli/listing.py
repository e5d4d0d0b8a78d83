"""``stabilitykit models|datasets|properties|plugins list`` and ``plugins check``: no torch is imported to list."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stabilitykit.base.errors import UsageProblem
from stabilitykit.base.text import one_line
from stabilitykit.cli.completion import complete
from stabilitykit.plugins.component import ComponentKind

if TYPE_CHECKING:
    from stabilitykit.plugins.loading import PluginHost

_format = click.option(
    "--format", "output_format", type=click.Choice(["table", "json"]), default="table", show_default=True
)
_strict = click.option("--strict-plugins", is_flag=True, help="Exit 3 when any plugin fails to load.")


def _listing_group(kind: ComponentKind, plural: str) -> click.Group:
    @click.group(plural, help=f"List {plural} and their options.")
    def group() -> None:
        pass

    @group.command("list", help=f"List every {kind} with its distribution and options.")
    @_format
    @_strict
    def list_(output_format: str, strict_plugins: bool) -> int:
        from stabilitykit.plugins.registry import Registry, warn_failures

        registry = Registry.load(strict=strict_plugins)
        warn_failures(registry.host)
        found = registry.components(kind)
        if output_format == "json":
            print(json.dumps([_as_json(c) for c in found], indent=1))
            return 0
        rows = [(c.name, c.summary, c.owner, c.reference) for c in found]
        _print_table(plural, ("name", "summary", "from", "reference"), rows)
        for clash_kind, name, owners in registry.clashes():
            if clash_kind == kind:
                click.echo(
                    f"clash: {kind} {name} is registered by {' and '.join(owners)}; choose with DISTRIBUTION:{name}",
                    err=True,
                )
        return 0

    @group.command("show", help=f"Show one {kind} with all its options.")
    @click.argument("name", shell_complete=complete(kind))
    @_format
    def show(name: str, output_format: str) -> int:
        from stabilitykit.plugins.registry import Registry

        component = Registry.load().resolve_component(kind, name)
        if output_format == "json":
            print(json.dumps(_as_json(component), indent=1))
            return 0
        click.echo(
            "\n".join(
                one_line(line)
                for line in (
                    f"{component.name}: {component.summary}",
                    f"from {component.owner}, {component.target}",
                    component.reference and f"reference: {component.reference}",
                    component.needs and f"needs: {', '.join(component.needs)}",
                    component.wants and f"wants: {', '.join(component.wants)}",
                )
                if line
            )
        )
        rows = [
            (
                ("* " if o.name == component.primary else "") + o.name,
                o.type,
                "required" if o.required else str(o.default),
                o.help + (f" [{', '.join(map(str, o.choices))}]" if o.choices else ""),
            )
            for o in component.options
        ]
        if rows:
            _print_table("options (* may be given as a bare value)", ("name", "type", "default", "help"), rows)
        return 0

    return group


models = _listing_group("model", "models")
datasets = _listing_group("dataset", "datasets")
properties = _listing_group("property", "properties")


@click.group("plugins", help="List plugins and check them against the contracts.")
def plugins() -> None:
    pass


@plugins.command("list", help="Every plugin found, what it provides, and why it failed if it did.")
@_format
@_strict
def plugins_list(output_format: str, strict_plugins: bool) -> int:
    from stabilitykit.plugins.registry import Registry

    host = Registry.load(strict=strict_plugins).host
    if output_format == "json":
        print(json.dumps([vars(r) for r in host.records], indent=1))
        return 0
    _print_table(
        "plugins",
        ("name", "distribution", "status", "provides"),
        [(r.name, r.owner, r.status if r.ok else f"failed: {r.error}", ", ".join(r.provides)) for r in host.records],
    )
    return 0


@plugins.command("check")
@click.argument("name", required=False)
@click.option("-m", "--model", help="Properties are checked on this model instead of a tiny one.")
@click.option("-d", "--dataset", help="Images for properties (with --model) and for models.")
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="[COMPONENT:]NAME=VALUE",
    help="Build components with this option; repeat for several.",
)
@click.option("--limit", type=click.IntRange(2), default=24, show_default=True, help="Images of --dataset looked at.")
@click.option("--run", type=click.Path(path_type=Path), help="A run folder that report sections must show.")
@_format
def plugins_check(
    name: str | None,
    model: str | None,
    dataset: str | None,
    options: tuple[str, ...],
    limit: int,
    run: Path | None,
    output_format: str,
) -> int:
    """Check what plugin NAME offers against the contracts; exit 1 if a check fails.

    NAME is a plugin, a distribution, or one model, dataset, property, command or report section. Without it, all
    plugins are checked that do not come with stabilitykit.

    \b
    Examples:
      stabilitykit plugins check confidence
      stabilitykit plugins check confidence --option first=1 --model resnet18-digits --dataset digits
      stabilitykit plugins check my-network --option checkpoint=weights.safetensors --dataset digits
      stabilitykit plugins check my-section --run runs/digits
    """
    from stabilitykit.plugins.registry import Registry
    from stabilitykit.testing import Inputs, check_plugin

    registry = Registry.load()
    names = [name] if name else _of_others(registry.host)
    inputs = Inputs(options, model, dataset, limit, run)
    checks = [check for each in names for check in check_plugin(each, registry, inputs)]
    failed = sum(not check.ok for check in checks)
    if output_format == "json":
        print(json.dumps([vars(c) for c in checks], indent=1, default=str))
    else:
        _print_table(
            f"plugin {', '.join(names)}: {len(checks)} checks, {failed} failed",
            ("check", "result", "message"),
            [(c.name, "ok" if c.ok else "FAILED", c.message) for c in checks],
        )
    return 1 if failed else 0


def _of_others(host: PluginHost) -> list[str]:
    """Distributions with plugins that do not come with stabilitykit."""
    names = {record.distribution for record in host.records} - {"stabilitykit"}
    if not names:
        raise UsageProblem("no plugin of another distribution is installed; give the NAME of one that comes with this")
    return sorted(names)


def _as_json(component: Any) -> dict[str, Any]:
    return {
        "name": component.name,
        "summary": component.summary,
        "distribution": component.distribution,
        "version": component.version,
        "target": component.target,
        "reference": component.reference,
        "needs": list(component.needs),
        "wants": list(component.wants),
        "primary": component.primary,
        "options": [
            {
                "name": o.name,
                "type": o.type,
                "default": o.default,
                "required": o.required,
                "help": o.help,
                "choices": o.choices,
            }
            for o in component.options
        ],
    }


def _print_table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from stabilitykit.reporting.console import Console

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(cell)) for cell in row))
    Console(width=140).print(table)
