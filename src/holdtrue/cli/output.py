"""How results leave the program: tables and trees for people, one JSON document a line for programs.

On a terminal rich draws; elsewhere come plain aligned lines without colours.  Texts from a hub (ids, names,
payloads) are never taken as markup, and their control characters are shown as escapes.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

Cell = str | tuple[str, str]
"""A text, or a text and the style in which a terminal shows it."""


@dataclass
class Node:
    """A line of a tree with what hangs below it."""

    text: str
    style: str = ""
    children: list["Node"] = field(default_factory=list)


def instant(moment: datetime | None, timespec: str = "milliseconds") -> str:
    """A time as UTC ISO text with `Z`; empty for none."""
    if moment is None:
        return ""
    if moment.tzinfo is not None:
        moment = moment.astimezone(UTC).replace(tzinfo=None)
    return moment.isoformat(timespec=timespec) + "Z"


def exact(moment: datetime | None) -> str | None:
    """A time as JSON output has it: UTC, microseconds, `Z`."""
    return None if moment is None else instant(moment, "microseconds")


def printable(text: str) -> str:
    """The text with control characters and the like as escapes, so that it cannot drive a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shorten(text: str, width: int) -> str:
    """At most `width` characters; an ellipsis stands for what was cut."""
    return text if len(text) <= width else text[: width - 1] + "…"


def counted(count: int, one: str, more: str) -> str:
    """`1 instance`, `2 instances`."""
    return f"{count} {one if count == 1 else more}"


def is_terminal(stream: TextIO) -> bool:
    """True where a person looks at a stream that can be drawn upon."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


class Output:
    """Standard output and error of one command; `json` true means documents, one a line."""

    def __init__(self, *, json: bool) -> None:
        self.json = json
        self.terminal = not json and is_terminal(sys.stdout)
        self._console: Any = None

    def document(self, value: Any) -> None:
        """One JSON document on a line of its own (nothing without `--json`)."""
        if self.json:
            _write_json(sys.stdout, value)

    def say(self, text: str, document: Any = None) -> None:
        """What was done: a line for people, or its document."""
        if self.json:
            self.document(document)
        else:
            sys.stdout.write(printable(text) + "\n")
            sys.stdout.flush()

    def note(self, text: str, **more: Any) -> None:
        """A remark that is no result, on standard error; with `--json` as `{"note": ...}` with `more` beside it."""
        if self.json:
            _write_json(sys.stderr, {"note": text, **more})
        else:
            sys.stderr.write(printable(text) + "\n")
            sys.stderr.flush()

    @contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
        """A bar on standard error while a person looks on and there is more than one thing to do.

        Yields what is to be called with the number done so far; without `total` that number is shown alone.
        """
        if self.json or total == 1 or not is_terminal(sys.stderr):
            yield lambda done: None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (
            [TextColumn("{task.completed} ...")] if total is None else [BarColumn(bar_width=30), MofNCompleteColumn()]
        )
        bar = Progress(
            TextColumn("{task.description}", markup=False),
            *columns,
            console=Console(stderr=True, highlight=False, markup=False),
            transient=True,
            # A result that goes into a file or a pipe must not be drawn above the bar instead.
            redirect_stdout=is_terminal(sys.stdout),
        )
        with bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)

    def error(self, message: str, code: int, kind: str) -> None:
        """Why the command ends; with `--json` as `{"error": {...}}` on standard error."""
        if self.json:
            _write_json(sys.stderr, {"error": {"type": kind, "message": message, "exit_code": int(code)}})
            return
        text = "\n".join(printable(line) for line in message.splitlines()) or kind
        if is_terminal(sys.stderr) and not os.environ.get("NO_COLOR"):
            text = f"\x1b[31mError:\x1b[0m {text}"
        else:
            text = f"Error: {text}"
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Cell]], *, empty: str) -> None:
        """Rows under headings; `empty` is said (on standard error) where there is none."""
        cells = [[_plain(cell) for cell in row] for row in rows]
        if not cells:
            self.note(empty)
            return
        if self.terminal:
            from rich import box
            from rich.table import Table
            from rich.text import Text

            table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
            # The first column names the row: whole where that leaves room, so that it can be copied.
            whole = max(len(row[0][0]) for row in cells) <= self._on_terminal().width // 2
            for number, column in enumerate(columns):
                table.add_column(column, overflow="fold", no_wrap=whole and number == 0)
            for row in cells:
                table.add_row(*(Text(text, style=style) for text, style in row))
            self._rich(table)
            return
        texts = [list(columns), *([text or "-" for text, _ in row] for row in cells)]
        widths = [max(len(row[i]) for row in texts) for i in range(len(columns))]
        for row_of_texts in texts:
            line = "  ".join(text.ljust(width) for text, width in zip(row_of_texts, widths, strict=True))
            sys.stdout.write(line.rstrip() + "\n")

    def fields(self, pairs: Iterable[tuple[str, Cell]]) -> None:
        """Names and values, a line each; empty values are left out."""
        shown = [(name, *_plain(value)) for name, value in pairs if _plain(value)[0]]
        width = max((len(name) for name, _, _ in shown), default=0) + 1
        for name, text, style in shown:
            label = (f"{name}:" if name else "").ljust(width)
            if self.terminal:
                from rich.text import Text

                self._rich(Text.assemble((label, "bold"), " ", (text, style)))
            else:
                sys.stdout.write(f"{label} {text}\n")

    def tree(self, root: Node) -> None:
        """A tree: drawn on a terminal, indented by two spaces a level elsewhere."""
        if self.terminal:
            from rich.text import Text
            from rich.tree import Tree

            drawn = Tree(Text(printable(root.text), style=root.style))
            pending: list[tuple[Any, Node]] = [(drawn, root)]
            while pending:
                branch, node = pending.pop()
                for child in node.children:
                    pending.append((branch.add(Text(printable(child.text), style=child.style)), child))
            self._rich(drawn)
            return
        stack = [(root, 0)]
        while stack:
            node, depth = stack.pop()
            sys.stdout.write("  " * depth + printable(node.text) + "\n")
            stack.extend((child, depth + 1) for child in reversed(node.children))

    def _rich(self, thing: Any) -> None:
        self._on_terminal().print(thing)

    def _on_terminal(self) -> Any:
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=sys.stdout, highlight=False, markup=False)
        return self._console


def _write_json(stream: TextIO, value: Any) -> None:
    import msgspec

    text = msgspec.json.encode(value).decode()
    if (stream.encoding or "").lower().replace("-", "") != "utf8":
        # What this stream cannot write as it is must be escaped as JSON does it.
        text = re.sub("[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], text)
    stream.write(text + "\n")
    stream.flush()


def _plain(cell: Cell) -> tuple[str, str]:
    if isinstance(cell, tuple):
        return printable(cell[0]), cell[1]
    return printable(cell), ""
