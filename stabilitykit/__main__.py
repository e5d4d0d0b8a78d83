"""``python -m stabilitykit`` and the ``stabilitykit`` command."""

from __future__ import annotations

import os
import sys
from typing import Any


def main() -> None:
    """Run the command line under supervision; every expected error is one line on stderr and an exit code.

    With STABILITYKIT_DEBUG=1, and where processes cannot fork, everything runs in this one process.
    """
    if not hasattr(os, "fork") or os.environ.get("STABILITYKIT_DEBUG"):
        sys.exit(_command())
    from stabilitykit.supervision.supervisor import supervise

    sys.exit(supervise(_command, _show))


def _command() -> int:
    from stabilitykit.cli import run

    return run()


def _show(recorder: Any, printing: dict[str, Any]) -> Any:
    from stabilitykit.cli.printing import show_run

    return show_run(recorder, printing)


if __name__ == "__main__":
    main()
