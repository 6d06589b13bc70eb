"""The command `mesh`: one command group per file, loaded when it is called.

Rule: nothing heavy is imported before a command needs it; `mesh --help` loads click and nothing else of weight.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the command: runs it and exits with one of the codes in `mesh.cli.exits`."""
    try:
        from mesh.cli.app import run
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        print("mesh: the command line needs packages that are not installed: pip install 'natsmesh[engine]'", file=sys.stderr)
        sys.exit(14)
    sys.exit(run())
