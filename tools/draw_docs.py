"""Draws what the docs show of the code: events and statuses in docs/reference/history.md, commands in cli.md,
settings in azure-storage-settings.md, the saved table of faults in ../reliability.md.

`make docs` writes it; a test of the house fails while page and code differ.  It stands between two marks,
and nothing else of the page is touched.
"""

import inspect
from pathlib import Path

from holdtrue.cli.reference import render
from holdtrue.core.events import EVENT_TYPES
from holdtrue.core.projection import TRANSITIONS, Status
from tools import draw_faults, draw_settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "history.md"
COMMANDS = PAGE.with_name("cli.md")
BEGIN = "<!-- drawn by `make docs` from holdtrue.core: begin -->"
END = "<!-- drawn by `make docs` from holdtrue.core: end -->"

_WORDS = {
    Status.PENDING: "Pending",
    Status.RUNNING: "Running",
    Status.SUSPENDED: "Suspended",
    Status.COMPLETED: "Completed",
    Status.FAILED: "Failed",
    Status.CANCELED: "Canceled",
    Status.TERMINATED: "Terminated",
    Status.CONTINUED_AS_NEW: "ContinuedAsNew",
}
_COLUMNS = (Status.PENDING, Status.RUNNING, Status.SUSPENDED)


def transitions() -> str:
    """Event × status before → status after, for the statuses that are no end."""
    head = ["No.", "Event", *(_WORDS[status] for status in _COLUMNS), "after an end"]
    lines = [_line(head), _line(["---"] * len(head))]
    for number, kind in enumerate(EVENT_TYPES):
        row = TRANSITIONS[kind]
        cells = [_cell(status, row.get(status)) for status in _COLUMNS]
        ends = "stays" if any(status in row for status in Status if status.is_terminal) else "·"
        lines.append(_line([str(number), f"`{kind.__name__}`", *cells, ends]))
    return "\n".join(lines)


def members() -> str:
    """Each event's members and what it says."""
    lines = [_line(["No.", "Event", "Members", "Meaning"]), _line(["---"] * 4)]
    for number, kind in enumerate(EVENT_TYPES):
        own = [f"`{name}`" for name in kind.__struct_fields__ if name not in ("timestamp", "event_id")]
        meaning = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ")
        lines.append(_line([str(number), f"`{kind.__name__}`", ", ".join(own) or "none", meaning]))
    return "\n".join(lines)


def drawn() -> str:
    """What belongs between the marks."""
    return f"{BEGIN}\n\n### Events and statuses\n\n{transitions()}\n\n### Members\n\n{members()}\n\n{END}"


def redraw(page: str) -> str:
    """A page with its drawn part new; raises ValueError where the marks are not there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has lost its marks: put them back around the drawn tables")
    return before + drawn() + after


def _cell(before: Status, after: Status | str | None) -> str:
    if after is None:
        return "·"
    if isinstance(after, str):
        return after
    return "stays" if after == before else f"→ {_WORDS[after]}"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(redraw(PAGE.read_text()))
    COMMANDS.write_text(render())
    draw_settings.PAGE.write_text(draw_settings.page())
    draw_faults.PAGE.write_text(draw_faults.redraw(draw_faults.PAGE.read_text(), draw_faults.load()))
    print(f"drew {PAGE.name}, {COMMANDS.name}, {draw_settings.PAGE.name} and {draw_faults.PAGE.name}")
