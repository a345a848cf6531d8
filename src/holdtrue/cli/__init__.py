"""The command line `holdtrue`: what an operator does with a task hub, and a developer with an app.

It only talks to a hub through the public client (and, for `run`, the public host).  Nothing of Holdtrue
imports it.  It imports late, so that `--help` and shell completion answer at once.
"""


def main() -> None:
    """The entry point of the `holdtrue` command; ends the process with a code of `exits.ExitCode`."""
    from holdtrue.cli.program import run_program

    run_program()
