"""``stabilitykit schema [NAME]``: JSON Schemas of the files that are written and read."""

from __future__ import annotations

import click


@click.command("schema")
@click.argument("name", required=False)
def command(name: str | None) -> int:
    """Print the JSON Schema (draft 2020-12) called NAME; without NAME, which there are.

    Any validator of JSON Schema takes them; editors complete and check a configuration with `config`.

    \b
    Examples:
      stabilitykit schema
      stabilitykit schema cell > cell.schema.json
    """
    from stabilitykit.base.errors import UsageProblem
    from stabilitykit.base.names import did_you_mean
    from stabilitykit.runs.schema import SCHEMAS, schema_text

    if name is None:
        for known, described in SCHEMAS.items():
            print(f"{known:10} {described}")
        return 0
    if name not in SCHEMAS:
        raise UsageProblem(f"no schema {name!r}{did_you_mean(name, SCHEMAS, 'see `stabilitykit schema`')}")
    print(schema_text(name), end="")
    return 0
