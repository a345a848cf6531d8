"""Draws `docs/reference/cli.md` from the commands themselves, so that the page cannot lag behind.

`python -m holdtrue.cli.reference > docs/reference/cli.md`; a test compares the two.
"""

import enum
import inspect
import sys
from collections.abc import Iterator
from typing import Any

import typer

from holdtrue.cli.app import GLOBAL_PANEL
from holdtrue.cli.exits import MEANINGS

_INTRODUCTION = """\
# The command line

<!-- Drawn from the code by `python -m holdtrue.cli.reference`; change it there. -->

`holdtrue` works on one task hub: the file given by `--hub`, else by the environment variable `HOLDTRUE_HUB`,
else `holdtrue.db` in the current directory. A hub that does not exist is an error, but for `run`, `start`,
`restore` and `import-history`, which make it. `--hub`, `--json` and `--debug` may stand before or after the command.
`holdtrue --install-completion` sets up completion for your shell.

## What goes in

- **JSON** (an input, an event's data, an output): the text itself, `@file` for the text in that file, `-` for
  standard input. A text needs its quotes: `holdtrue start greet '"Ada"'`. A negative number needs `--` before
  it, as every argument that begins with a dash: `holdtrue start count -- -5`.
- **Times**: ISO 8601 (`2026-01-31T08:00:00Z`; without a zone it is UTC), a date, `now`, or from now: `+10m`, `-1h`.
- **Durations**: `500ms`, `90s`, `10m`, `1h30m`, `2d`, `1w`; a bare number is seconds.

## What comes out

Results go to standard output, remarks and errors to standard error. On a terminal there are tables, trees and
colours (none with `NO_COLOR`); elsewhere plain aligned lines, `-` for an empty cell. Times are UTC, ISO 8601
with `Z`. Control characters in texts from the hub are shown as escapes.

Commands that take several ids show a bar while a person looks on.

With `--json` each line of standard output is one JSON document: one in all for `show`, `info` and what acts on
one thing; one for each instance, schedule, tick or dead letter for `list` and `ticks`; one for each instance for
commands that take several ids; one for each instance that does not fit, then the counts, for `check-replay`.
Payloads stand in them as the JSON that they are. `run` tells `serving` and `stopped`; its log on standard error
stays plain text. An error is a document on standard error:
`{"error": {"type": "InstanceNotFound", "message": "...", "exit_code": 3}}`, a remark is one too: `{"note": "..."}`.
A `list` that left instances out says so in a remark whose `next` is the token for `--after`.

## Exit codes
"""


def _cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def _default(parameter: Any) -> str:
    value = parameter.default
    if isinstance(value, enum.Enum):
        value = value.value
    if parameter.param_type_name == "argument" or value is None or value is False or callable(value):
        return ""
    if value is True:
        value = parameter.opts[0]
    return f" Default: `{value}`."


def _value(parameter: Any) -> str:
    """What a value looks like: its metavar, its choices, or its type."""
    if getattr(parameter, "is_flag", False):
        return ""
    if parameter.metavar:
        return f" {parameter.metavar}"
    choices = getattr(getattr(parameter, "type_descriptor", None), "choices", None) or getattr(
        getattr(parameter, "type", None), "choices", None
    )
    if choices:
        return " " + "\\|".join(str(choice.value if isinstance(choice, enum.Enum) else choice) for choice in choices)
    return " N"


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name) + ("..." if parameter.nargs == -1 else "")
    return name if parameter.required else f"[{name}]"


def _spelling(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_argument(parameter)}`"
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    value = _value(parameter)
    return names + (f" {value.strip()}" if value else "")


def _options(command: Any, *, with_global: bool) -> Iterator[str]:
    for parameter in command.params:
        if getattr(parameter, "hidden", False) or "--help" in parameter.opts:
            continue
        if not with_global and getattr(parameter, "rich_help_panel", None) == GLOBAL_PANEL:
            continue
        yield f"| {_spelling(parameter)} | {_cell(parameter.help or '')}{_default(parameter)} |"


def _usage(path: str, command: Any) -> str:
    words = [path]
    words += [_argument(p) for p in command.params if p.param_type_name == "argument"]
    return " ".join([*words, "[options]"])


def _command(path: str, command: Any) -> Iterator[str]:
    yield f"### `{_usage(path, command)}`"
    yield ""
    yield inspect.cleandoc(command.help or "")
    yield ""
    rows = list(_options(command, with_global=False))
    if rows:
        yield from ("| | |", "|---|---|", *rows, "")


def render() -> str:
    """The page."""
    from holdtrue.cli.program import app

    root: Any = typer.main.get_command(app)
    lines = [_INTRODUCTION, "| Code | Meaning |", "|---|---|"]
    lines += [f"| {int(code)} | {_cell(meaning)} |" for code, meaning in MEANINGS.items()]
    lines += ["", "## Global options", "", "| | |", "|---|---|", *_options(root, with_global=True), ""]
    lines += ["## Commands", ""]
    for name, command in root.commands.items():
        children = getattr(command, "commands", None)
        if children is None:
            lines += _command(f"holdtrue {name}", command)
            continue
        lines += [f"### `holdtrue {name}`", "", inspect.cleandoc(command.help or ""), ""]
        for child_name, child in children.items():
            lines += [line.replace("### ", "#### ", 1) for line in _command(f"holdtrue {name} {child_name}", child)]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
