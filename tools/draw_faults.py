"""Draws the table of every request × every fault in docs/reliability.md, from what `make faults-table` has saved."""

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[1]
SAVED = ROOT / "tests" / "data" / "faults_table.json"
PAGE = ROOT / "docs" / "reliability.md"
BEGIN = "<!-- drawn by `make docs` from tests/data/faults_table.json: begin -->"
END = "<!-- drawn by `make docs` from tests/data/faults_table.json: end -->"

LONG_WRONG = 0.6
"""Seconds: a status that is wrong for longer counts."""
WAITED_SHARE = 0.6
"""An instance that stood still for so much of the time-out of a message has waited for it."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of one case: `fault` at the `nth` request of a kind.

    `met`: the request came, and was spoiled.  Seconds: `took` from the fault to the instance's end, `stood` the
    longest time in between without any request for it, `wrong` how long a client read a wrong status at a stretch.
    `for_ever`: it stayed wrong as long as it was watched.  `ended`: it came to its end at all; `right`: with the right
    result.
    """

    kind: str
    nth: int
    fault: str
    met: bool = True
    took: float = 0.0
    stood: float = 0.0
    wrong: float = 0.0
    for_ever: bool = False
    ended: bool = True
    right: bool = True


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """The outcomes of one provider.

    `hidden` is for how many seconds a message is hidden that was got; `cases` how many there are in all, of which
    `outcomes` are those that were played; `request` is how long a request took meanwhile, in seconds.
    """

    name: str
    hidden: int
    cases: int
    request: float
    outcomes: list[Outcome]

    @property
    def met(self) -> list[Outcome]:
        return [one for one in self.outcomes if one.met]

    def has_waited(self, one: Outcome) -> bool:
        """Whether a case has waited for a message's time-out."""
        return one.stood >= WAITED_SHARE * self.hidden


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What one run has found: the columns, and on how many cores."""

    cores: int
    columns: list[Column]


def load() -> Saved:
    """What was saved last."""
    return msgspec.json.decode(SAVED.read_bytes(), type=Saved)


def save(saved: Saved) -> None:
    """Keep it; a line for each outcome."""
    text = msgspec.json.encode(saved).decode()
    SAVED.write_text(text.replace('{"kind"', '\n{"kind"') + "\n")


def drawn(saved: Saved) -> str:
    """What belongs between the marks."""
    return f"{BEGIN}\n\n{table(saved)}\n\n{waits(saved)}\n\n{END}"


def redraw(page: str, saved: Saved) -> str:
    """The page with its drawn part new; raises ValueError where the marks are not there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has lost its marks: put them back around the drawn table")
    return before + drawn(saved) + after


Cell = Callable[[Column], str]


def table(saved: Saved) -> str:
    """What went wrong, and in how many cases; the first column as measured with the provider's source of June 2025."""

    def count(counts: Callable[[Column, Outcome], bool], seconds: Callable[[Outcome], float] | None = None) -> Cell:
        def cell(column: Column) -> str:
            some = [one for one in column.met if counts(column, one)]
            number = f"**{len(some)}**" if some else "0"
            return f"{number} ({_among(some, seconds)})" if some and seconds is not None else number

        return cell

    still = f"stood still for {WAITED_SHARE:.0%} of a message's time-out and more"
    rows: list[tuple[str, str, Cell]] = [
        ("cases", "201", _cases),
        ("status wrong for ever", "**7**", count(lambda column, one: one.for_ever)),
        (
            f"status wrong for more than {LONG_WRONG:g} s",
            "**8**",
            count(lambda column, one: one.wrong > LONG_WRONG, lambda one: one.wrong),
        ),
        (still, "**49**", count(lambda column, one: column.has_waited(one), lambda one: one.stood)),
        ("wrong result", "0", count(lambda column, one: one.ended and not one.right)),
        ("did not end", "0", count(lambda column, one: not one.ended)),
        ("a message is hidden for", "20 s", lambda column: f"{column.hidden} s"),
        ("a request took meanwhile", "·", lambda column: f"{column.request * 1_000:.0f} ms"),
    ]
    lines = [_line(["", ".NET of June 2025", *(column.name for column in saved.columns)])]
    lines.append(_line(["---"] * (2 + len(saved.columns))))
    lines += [_line([what, june, *(cell(column) for column in saved.columns)]) for what, june, cell in rows]
    return "\n".join(lines)


def waits(saved: Saved) -> str:
    """The longest standstill after each fault, and the longest time to the end."""
    faults = list(dict.fromkeys(one.fault for column in saved.columns for one in column.met))

    def cell(column: Column, fault: str) -> str:
        some = [one for one in column.met if one.fault == fault]
        if not some:
            return "·"
        longest = max(some, key=lambda one: one.stood)
        return f"{longest.stood:.1f} s ({longest.kind}); {max(one.took for one in some):.1f} s"

    lines = [_line(["longest standstill (at which request); longest time to the end", *_names(saved.columns)])]
    lines.append(_line(["---"] * (1 + len(saved.columns))))
    lines += [_line([fault, *(cell(column, fault) for column in saved.columns)]) for fault in faults]
    return "\n".join(lines)


def _names(columns: Sequence[Column]) -> list[str]:
    return [column.name for column in columns]


def _cases(column: Column) -> str:
    met = len(column.met)
    if len(column.outcomes) < column.cases:
        return f"{met}, drawn from {column.cases}"
    return f"{met} of {column.cases}" if met < column.cases else str(met)


def _among(some: Sequence[Outcome], seconds: Callable[[Outcome], float]) -> str:
    """By where the fault struck, and for how long at most."""
    groups: dict[str, list[Outcome]] = {}
    for one in some:
        at_get = one.kind.startswith("queue get ")
        group = "killed" if one.fault == "killed" else "a get was spoiled" if at_get else "others"
        groups.setdefault(group, []).append(one)
    return "; ".join(
        f"{group} {len(groups[group])}, {max(map(seconds, groups[group])):.1f} s at most"
        for group in ("killed", "a get was spoiled", "others")
        if group in groups
    )


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
