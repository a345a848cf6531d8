"""The command line `holdtrue`: what an operator does with a task hub, and a developer with an app.

It only talks to a hub through the public client (and, for `run`, the public host).  Nothing of Holdtrue
imports it.  It imports late, so that `--help` and shell completion answer at once.
"""

import os
import sys


def main() -> None:
    """The entry point of the `holdtrue` command; ends the process with a code of `exits.ExitCode`."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by who started us
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - until the process ends
    try:
        from holdtrue.cli.program import run_program

        run_program()
    except KeyboardInterrupt:  # before any command could answer it
        sys.exit(130)
