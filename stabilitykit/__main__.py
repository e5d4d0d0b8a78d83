"""``python -m stabilitykit`` and the ``stabilitykit`` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; every expected error is one line on stderr and an exit code."""
    from .cli import run

    sys.exit(run())


if __name__ == "__main__":
    main()
