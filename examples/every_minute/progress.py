"""What a person sees of the storm: a live table and a bar on a terminal, plain lines without one."""

import sys
from types import TracebackType

import msgspec
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


class View(msgspec.Struct):
    """The storm at one moment, in words and numbers."""

    months: int = 0
    status: str = ""
    step: str = ""
    kills: int = 0
    ticks: str = ""
    slowest: float = 0.0
    workers: list[str] = []


class Screen:
    """Shows views; as a context manager it holds the terminal."""

    def __init__(self, wanted: int, kills: int) -> None:
        self._wanted, self._kills = wanted, kills
        self._live: Live | None = None
        self._shown = -1
        self._progress = Progress(
            TextColumn("months loaded"), BarColumn(bar_width=40), MofNCompleteColumn(), TimeElapsedColumn()
        )
        self._bar = self._progress.add_task("months", total=wanted)
        if sys.stdout.isatty():
            self._live = Live(console=Console(), refresh_per_second=8, transient=True)

    def __enter__(self) -> "Screen":
        if self._live is not None:
            self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def event(self, text: str) -> None:
        """Something happened that is worth a line of its own."""
        if self._live is None:
            print(text, flush=True)
        else:
            self._live.console.print(text, highlight=False)

    def show(self, view: View) -> None:
        """The present state; without a terminal, a line for every fifth month."""
        if self._live is None:
            if view.months // 5 > self._shown:
                self._shown = view.months // 5
                print(f"  {view.months:2} of {self._wanted} months, {view.kills} kills, {view.ticks}", flush=True)
            return
        table = Table.grid(padding=(0, 2))
        for name, text in (
            ("instance", f"{view.status}  {view.step}"),
            ("ticks", view.ticks),
            ("kills", f"{view.kills} of {self._kills}"),
            ("slowest recovery", f"{view.slowest:.2f} s"),
            *((f"worker {number}", text) for number, text in enumerate(view.workers)),
        ):
            table.add_row(name, text)
        self._progress.update(self._bar, completed=min(view.months, self._wanted))
        self._live.update(Group(table, self._progress))
