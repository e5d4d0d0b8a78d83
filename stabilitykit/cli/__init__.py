"""The command line: a lazy Click group, one file per command; plugins add commands through a hook."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from stabilitykit import __version__
from stabilitykit.base.errors import StabilityKitError, describe
from stabilitykit.base.text import printable_streams
from stabilitykit.base.watch import task, watch

# Command -> (module:attribute, summary). The module is imported when the command runs, so `--help` stays fast.
COMMANDS: dict[str, tuple[str, str]] = {
    "evaluate": ("stabilitykit.cli.evaluate:command", "Measure properties of models on datasets (the main job)."),
    "train": ("stabilitykit.cli.train:command", "Train a model on a dataset with the paper's recipe."),
    "report": ("stabilitykit.cli.report:command", "Write one offline HTML file about a run."),
    "compare": ("stabilitykit.cli.compare:command", "Put the constants of several runs side by side."),
    "gate": ("stabilitykit.cli.gate:command", "Fail a build when a run is not what it should be."),
    "verify": ("stabilitykit.cli.verify:command", "Recompute the witnesses of a run in float64."),
    "export": ("stabilitykit.cli.export:command", "Write a run's measurements as CSV, JSON, Parquet or LaTeX."),
    "schema": ("stabilitykit.cli.schema:command", "Print the JSON Schema of a file that is written or read."),
    "models": ("stabilitykit.cli.listing:models", "List models."),
    "datasets": ("stabilitykit.cli.listing:datasets", "List datasets."),
    "properties": ("stabilitykit.cli.listing:properties", "List properties."),
    "plugins": ("stabilitykit.cli.listing:plugins", "List or check plugins."),
    "new": ("stabilitykit.cli.new:command", "Start a plugin package of your own."),
}


class LazyGroup(click.Group):
    """Imports a command's module only when that command is run; asks plugins for theirs only when needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(self._plugin_commands(ctx))]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        found = None if name in COMMANDS else self._plugin_commands(ctx).get(name)
        if name not in COMMANDS and found is None:
            return None
        target = COMMANDS[name][0] if found is None else found.target
        module, _, attribute = target.partition(":")
        if found is None:
            own: click.Command = getattr(importlib.import_module(module), attribute)
            return own
        culprit = f"command {name} of {found.distribution} {found.version}"
        watch().blame(culprit)
        try:
            with task("command", name, culprit):
                command = getattr(importlib.import_module(module), attribute)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise click.ClickException(f"{culprit} cannot be loaded from {target}: {describe(error)}") from error
        if not isinstance(command, click.Command):
            raise click.ClickException(f"{target} is no click command")
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command that ``args`` begin with; click.UsageError with the nearest names where there is none."""
        import difflib

        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=2)
            hint = f"did you mean {' or '.join(close)}?" if close else "see stabilitykit --help"
            raise click.UsageError(f"no command {args[0]!r}; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])
        extra = self._plugin_commands(ctx)
        if extra:
            with formatter.section("Commands of plugins"):
                formatter.write_dl([(name, extra[name].summary) for name in sorted(extra)])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            name = ctx.invoked_subcommand
            expected = isinstance(
                error, (StabilityKitError, click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError)
            )
            if expected or name is None or name in COMMANDS or os.environ.get("STABILITYKIT_DEBUG"):
                raise
            found = self._plugin_commands(ctx)[name]
            raise StabilityKitError(
                f"command {name} of {found.distribution} {found.version} failed: "
                f"{describe(error, 600)}; STABILITYKIT_DEBUG=1 shows where"
            ) from error

    def _plugin_commands(self, ctx: click.Context) -> dict[str, Any]:
        """Commands of plugins by name, loaded once per command line."""
        from stabilitykit.plugins.loading import load_plugins

        meta = ctx.find_root().meta
        known: dict[str, Any] | None = meta.get("stabilitykit.commands")
        if known is not None:
            return known
        found: dict[str, Any] = meta.setdefault("stabilitykit.commands", {})
        for command in load_plugins().commands:
            if command.name in COMMANDS or command.name in found:
                owner = found[command.name].distribution if command.name in found else "stabilitykit"
                print(
                    f"warning: command {command.name} of {command.distribution} ignored: the name belongs to {owner}",
                    file=sys.stderr,
                )
                continue
            found[command.name] = command
        return found


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="stabilitykit")
def cli() -> None:
    """How stable is this residual network, block by block, and why should I believe the number?

    \b
    Start here:
      stabilitykit evaluate                      embedded model and images, g-expansivity
      stabilitykit evaluate --property table2    the paper's four constants
      stabilitykit audit timm:resnet50 --list-runs
      stabilitykit properties list
    """


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code; tracebacks only with STABILITYKIT_DEBUG=1."""
    from stabilitykit.base.progress import displayed_by
    from stabilitykit.cli.progress import Announcer

    with printable_streams(), Announcer().running() as announcer, displayed_by(announcer):
        return _run(arguments)


def _run(arguments: list[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a class name the terminal's encoding lacks is no crash
    try:
        os.getcwd()
    except OSError:  # Python and its libraries fail in a hundred odd ways without one
        print("error: the current folder does not exist any more; cd to one that does", file=sys.stderr)
        return 2
    try:
        result = cli.main(arguments, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("interrupted; finished cells are on disk, --resume goes on from there", file=sys.stderr)
        return 130
    except click.ClickException as error:
        error.show(file=sys.stderr)
        return 2
    except StabilityKitError as error:
        if os.environ.get("STABILITYKIT_DEBUG"):
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except SystemExit as stop:  # click's answer to a closed pipe, or a plugin command's own exit
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (OSError, MemoryError) as error:  # the machine's doing: a full disk behind stdout, no memory left
        if os.environ.get("STABILITYKIT_DEBUG"):
            raise
        print(f"error: {'not enough memory' if isinstance(error, MemoryError) else error}", file=sys.stderr)
        return 1
    except Exception as error:
        if os.environ.get("STABILITYKIT_DEBUG"):
            raise
        print(
            f"internal error: {describe(error, 600)}; this is a bug in stabilitykit, STABILITYKIT_DEBUG=1 shows where",
            file=sys.stderr,
        )
        return 1
