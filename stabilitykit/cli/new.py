"""``stabilitykit new property NAME``: an installable plugin package whose tests pass at once."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("new")
def command() -> None:
    """Start a plugin package of your own."""


@command.command("property")
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("."),
    show_default=True,
    help="Existing folder to write the package into.",
)
def new_property(name: str, directory: Path) -> int:
    """Write the package stabilitykit-NAME with a working property NAME, its README and its tests."""
    from stabilitykit.cli.scaffold import new_property

    target = new_property(name, directory)
    click.echo(
        f"wrote {target}\nnext:  cd {target}  &&  pytest  &&  pip install -e .  &&  "
        f"stabilitykit evaluate --property {name}"
    )
    return 0
