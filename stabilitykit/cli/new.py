"""``stabilitykit new KIND NAME``: an installable plugin package whose tests pass at once."""

from __future__ import annotations

from pathlib import Path

import click

# Kind -> (what it is as generated, what to run when it is installed).
OFFERED = {
    "property": ("the longest step of a trajectory", "stabilitykit evaluate --property {name}"),
    "model": ("a small residual network", "stabilitykit evaluate --model {name}"),
    "dataset": ("grey images in a text file", "stabilitykit plugins check {name}"),
    "command": ("the most frequent witnesses of a run", "stabilitykit {shown} runs/NAME"),
    "section": ("a table in the report", "stabilitykit report runs/NAME"),
}


@click.group("new")
def command() -> None:
    """Start a plugin package of your own: pyproject, a working implementation, tests, README."""


def _command(kind: str) -> click.Command:
    thing = f"report {kind}" if kind == "section" else kind
    what, then = OFFERED[kind]

    @click.command(
        kind,
        short_help=f"A package with a {thing}.",
        help=f"Write the package stabilitykit-NAME with a working {thing} NAME ({what}), its README and its tests.\n\n"
        "NAME is lower-case letters, digits and single underscores. Nothing that exists is overwritten.",
    )
    @click.argument("name")
    @click.option(
        "--directory",
        type=click.Path(path_type=Path),
        default=Path("."),
        show_default=True,
        help="Existing folder to write the package into.",
    )
    def new(name: str, directory: Path) -> int:
        from stabilitykit.cli.scaffold import new_package

        target = new_package(kind, name, directory)
        run = then.format(name=name, shown=name.replace("_", "-"))
        click.echo(f"wrote {target}\nnext:  cd {target}  &&  pytest  &&  pip install -e .  &&  {run}")
        return 0

    return new


for _kind in OFFERED:
    command.add_command(_command(_kind))
