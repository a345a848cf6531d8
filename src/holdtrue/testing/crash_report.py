"""What a check for crash safety found: each finding with its line, the fault in words, and the two runs beside each
other."""

import os
import re
import textwrap
from collections.abc import Sequence
from difflib import SequenceMatcher
from enum import StrEnum

import msgspec

from .crash_errors import CrashUnsafe

WIDTH = 52
"""Characters of a column."""
SHOWN_AROUND = 3
"""So many lines that are the same are shown beside one that is not."""


class FindingKind(StrEnum):
    """What is wrong."""

    NOT_IDEMPOTENT = "not idempotent"
    """An activity that ran again had its effect again, or gave another result."""
    KEY_IGNORED = "key ignored"
    """An activity ran again and never looked at its idempotency key; whether that does harm is not known."""
    MEMORY = "state in memory"
    """An orchestrator keeps something in memory, which a restart loses and a replay does again."""
    NONDETERMINISM = "nondeterminism"
    """An orchestrator decides otherwise when its code is run again."""
    ORDER = "order"
    """What comes of it depends on which of several results came first."""
    OUTCOME = "another outcome"
    """It ends otherwise, and no reason was seen."""


_ADVICE = {
    FindingKind.NOT_IDEMPOTENT: "activities run at least once: store ctx.idempotency_key with the effect, in one "
    "transaction, and give the stored result when the key is there already",
    FindingKind.KEY_IGNORED: "store ctx.idempotency_key with the effect, or give state= to see whether the effect "
    "comes twice, or name the activity in idempotent= where a second run does no harm",
    FindingKind.MEMORY: "keep it in local variables of the orchestrator, hand it on as input, or keep it outside and "
    "reach it by an activity",
    FindingKind.NONDETERMINISM: "take time, ids and chance from ctx, and everything else from activities",
    FindingKind.ORDER: "wait with when_all and take the results in the order of the tasks; where the first one is to "
    'count, allow it: allowed=("order",)',
    FindingKind.OUTCOME: "look at where the two runs part",
}


class Finding(msgspec.Struct, kw_only=True):
    """One thing that differs from the undisturbed run.

    `place` is the `file:line` in the user's code, `called_at` the line that calls the activity.  `fault` says what was
    done to the run, `differences` what came of it, `run` under which name (`only=`) it can be run again; `others` are
    the names of the other runs that showed the same.  `undisturbed` and `disturbed` are the two runs, a line a step.
    """

    kind: FindingKind
    what: str
    place: str | None
    called_at: str | None
    fault: str
    run: str
    differences: list[str]
    undisturbed: list[str]
    disturbed: list[str]
    others: list[str] = []

    def __str__(self) -> str:
        where = shown_place(self.place) if self.place else "(no line of the code is known)"
        if self.called_at:
            where += f", called at {shown_place(self.called_at)}"
        lines = [
            f"{self.kind.upper()}: {self.what}",
            f"  {where}",
            *_wrapped(f"What was done: {shown_places(self.fault)}."),
        ]
        lines += [line for difference in self.differences for line in _wrapped(shown_places(difference))]
        lines += _wrapped(f"To mend it: {_ADVICE[self.kind]}.")
        lines += ["", *beside(self.undisturbed, self.disturbed), ""]
        count = len(self.others)
        more = f" ({count} more run{'s' if count > 1 else ''} showed it)" if count else ""
        lines += _wrapped(f"Again: check_crash_safety(..., only={self.run!r}){more}")
        return "\n".join(lines)


class CrashReport(msgspec.Struct, kw_only=True):
    """What came of a check.

    `ok` is true where nothing was found.  `runs` counts the runs, the undisturbed ones included; `notes` say what
    was not compared or not tried, and what is as it was allowed to be.
    """

    orchestration: str
    findings: list[Finding]
    notes: list[str]
    runs: int

    @property
    def ok(self) -> bool:
        """True where nothing was found."""
        return not self.findings

    def raise_if_unsafe(self) -> None:
        """Raises CrashUnsafe, an AssertionError with the report, where something was found."""
        if not self.ok:
            raise CrashUnsafe(str(self))

    def __str__(self) -> str:
        count = len(self.findings)
        found = "nothing found" if not count else f"{count} finding{'s' if count > 1 else ''}"
        parts = [f"Crash safety of {self.orchestration!r}: {found} in {self.runs} runs"]
        parts += [f"{number}. {finding}" for number, finding in enumerate(self.findings, 1)]
        parts += ["\n".join(_wrapped(shown_places(f"Note: {note}."), "")) for note in self.notes]
        return "\n\n".join(parts)


def beside(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """Two runs as two columns, what is the same on one line; long stretches of that are left out."""
    rows: list[tuple[str, str, str]] = []
    for tag, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            rows += [(one, " ", one) for one in left[a:b]]
        else:
            length = max(b - a, d - c)
            one = [*left[a:b], *[""] * (length - (b - a))]
            other = [*right[c:d], *[""] * (length - (d - c))]
            rows += [(x, "|", y) for x, y in zip(one, other, strict=True)]
    lines = [_row("undisturbed", " ", "with the fault"), _row("-" * 11, " ", "-" * 14)]
    differs = [number for number, row in enumerate(rows) if row[1] != " "]
    skipped = 0
    for number, row in enumerate(rows):
        near = any(abs(number - other) <= SHOWN_AROUND for other in differs)
        if near or len(rows) <= 4 * SHOWN_AROUND:
            if skipped:
                lines.append(f"    ... {skipped} the same ...")
            skipped = 0
            lines.append(_row(*row))
        else:
            skipped += 1
    if skipped:
        lines.append(f"    ... {skipped} the same ...")
    return lines


def _row(left: str, mark: str, right: str) -> str:
    return f"  {left[:WIDTH]:<{WIDTH}} {mark} {right[:WIDTH]}".rstrip()


def _wrapped(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(
        text,
        110,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def shown_place(place: str) -> str:
    """A `file:line`, from the working directory where it lies in it."""
    file, _, line = place.rpartition(":")
    near = os.path.relpath(file) if os.path.isabs(file) else file
    return f"{file if near.startswith('..') else near}:{line}"


def shown_places(text: str) -> str:
    """A text with each place in it shown so."""
    return re.sub(r"(?<![\w/])/\S+\.py:\d+", lambda found: shown_place(found[0]), text)
