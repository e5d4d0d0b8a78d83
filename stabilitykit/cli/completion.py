"""Completion of names in a shell: components, their options and the values of those that have a closed list.

``eval "$(_STABILITYKIT_COMPLETE=bash_source stabilitykit)"`` in ~/.bashrc turns it on (zsh_source, fish_source).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from stabilitykit.plugins.component import ComponentKind


def complete(kind: ComponentKind) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """What Click calls with the text typed so far, to complete a spec ``NAME:option=value,...`` of ``kind``.

    Listing components imports no plugin's code beyond its registration, so no torch.
    """

    def found(ctx: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem]:
        from stabilitykit.plugins.registry import Registry

        components = Registry.load().components(kind)
        name, colon, rest = typed.partition(":")
        if not colon:
            return [CompletionItem(c.name, help=c.summary) for c in components if c.name.startswith(typed)]
        named = next((c for c in components if c.name == name), None)
        if named is None:
            return []
        head, _, last = rest.rpartition(",")
        before = f"{name}:{head}," if head else f"{name}:"
        option, equals, value = last.partition("=")
        if equals:
            chosen = next((o for o in named.options if o.name == option), None)
            values = [] if chosen is None else ["true", "false"] if chosen.type == "bool" else chosen.choices or []
            texts = [f"{option}={v}" for v in values if str(v).startswith(value)]
            return [CompletionItem(before + text) for text in texts]
        return [CompletionItem(f"{before}{o.name}=", help=o.help) for o in named.options if o.name.startswith(last)]

    return found


def subjects(kind: ComponentKind, more: str = "") -> Callable[[Any], Any]:
    """The option ``-m``, ``-d`` or ``-p``: any number of models, datasets or properties, whose names are completed.

    Arguments:
        more: said in ``--help`` after how they are written.
    """
    many = {"model": "models", "dataset": "datasets", "property": "properties"}[kind]
    said = f"NAME[:option=value,...]; repeat for several{more}."
    return click.option(f"-{kind[0]}", f"--{kind}", many, multiple=True, help=said, shell_complete=complete(kind))
