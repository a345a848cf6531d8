"""The whole program: every command in the order in which `--help` lists it, and how it is run."""

import contextlib
import io
import os
import sys

import typer

from holdtrue.cli import control, dead_letters, histories, hub, init, instances, schedules, settings, settling, worker
from holdtrue.cli.app import app
from holdtrue.cli.exits import ExitCode

__all__ = ["app", "run_program"]

COMMAND_MODULES = (init, worker, instances, control, schedules, dead_letters, hub, histories, settings, settling)
"""In the order of the help; importing a module registers its commands."""

_PLACES = {module.__name__: place for place, module in enumerate(COMMAND_MODULES)}
# Whoever imported one of them alone has registered its commands first.
app.registered_commands.sort(key=lambda registered: _PLACES[registered.callback.__module__])
_GROUPS = [module.commands for module in (schedules, dead_letters, settings, settling)]
app.registered_groups.sort(key=lambda registered: _GROUPS.index(registered.typer_instance))


def run_program() -> None:
    """Run with the process's arguments and exit."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a letter must not end a command half-way.
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")
    try:
        try:
            typer.main.get_command(app)(prog_name="holdtrue")
        finally:
            sys.stdout.flush()
    except OSError as error:
        # What is still in the buffer must not be tried again, and told of, at the interpreter's end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            with contextlib.suppress(OSError):
                sys.stderr.write(f"Error: the output cannot be written: {error.strerror}.\n")
        sys.exit(ExitCode.FAILED)
