"""The goals, as ratios within one run, and the table that holds the results against them."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

US = "holdtrue"
LIMIT = "bare_loop"
Line = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """One figure of a run: `field` of the line of a system, scenario and case."""

    scenario: str
    case: str = ""
    field: str = "rate"
    system: str = US

    def values(self, lines: Iterable[Line], systems: Iterable[str] | None = None) -> dict[str, float]:
        """What the lines hold of it, by system; empty where it was not measured."""
        wanted = set(systems) if systems is not None else {self.system}
        return {
            line["system"]: float(line[self.field])
            for line in lines
            if line["system"] in wanted
            and line["scenario"] == self.scenario
            and line.get("case", "") == self.case
            and line.get(self.field) is not None
        }


@dataclass(frozen=True)
class Goal:
    """`ours` divided by another figure (`against`), by the best of the durable peers (`peers`), or by nothing."""

    text: str
    ours: Figure
    bound: float
    at_least: bool = True
    against: Figure | None = None
    peers: Figure | None = None


def _growth(rate: str) -> Goal:
    case = f"{rate}, time-ordered ids, {{}} instances"
    return Goal(
        f"{rate} rate with 10⁶ instances ÷ with none (time-ordered ids)",
        Figure("growth", case.format(1_000_000)),
        0.9,
        against=Figure("growth", case.format(0)),
    )


GOALS = (
    Goal("chain ÷ fastest durable peer", Figure("chain"), 15, peers=Figure("chain")),
    Goal("chain ÷ bare loop", Figure("chain"), 0.5, against=Figure("chain", system=LIMIT)),
    Goal("fan-out of 1,000 ÷ fastest durable peer", Figure("fanout", "1000"), 20, peers=Figure("fanout", "1000")),
    Goal("fan-out of 100 ÷ fastest durable peer", Figure("fanout", "100"), 6, peers=Figure("fanout", "100")),
    Goal(
        "latency p50 ÷ fastest durable peer",
        Figure("latency", "", "p50_ms"),
        0.5,
        False,
        peers=Figure("latency", "", "p50_ms"),
    ),
    Goal(
        "latency p50 ÷ bare loop", Figure("latency", "", "p50_ms"), 1.5, False, Figure("latency", "", "p50_ms", LIMIT)
    ),
    Goal(
        "starts, nothing runs them ÷ fastest durable peer",
        Figure("start", "nothing runs them"),
        15,
        peers=Figure("start"),
    ),
    Goal(
        "starts, a worker runs them ÷ fastest durable peer",
        Figure("start", "a worker runs them"),
        8,
        peers=Figure("start"),
    ),
    Goal("noisy: busy ÷ quiet", Figure("noisy", "busy"), 0.25, against=Figure("noisy", "quiet")),
    Goal(
        "two processes ÷ one", Figure("two_processes", "2 processes"), 1.3, against=Figure("two_processes", "1 process")
    ),
    Goal(
        "p99 of a commit, two processes ÷ one",
        Figure("two_processes", "2 processes", "p99_ms"),
        5,
        False,
        Figure("two_processes", "1 process", "p99_ms"),
    ),
    Goal("loop of 10,000 steps: last 1,000 ÷ first 1,000", Figure("long_loop", "last ÷ first", "value"), 1.5, False),
    Goal("memory of 100,000 waiting instances, MB", Figure("waiting_memory", "100000 wait", "value"), 400, False),
    Goal(
        "check-replay of 10,000 histories of 20 events, s",
        Figure("replay_check", "10000 histories of 20 events", "value"),
        20,
        False,
    ),
    Goal("idle worker, % of a core", Figure("idle", "alone", "value"), 0.5, False),
    _growth("start"),
    _growth("run"),
    _growth("query"),
)


@dataclass(frozen=True)
class Verdict:
    """What came of a goal: the ratio of each run, and beside whom."""

    goal: Goal
    ratios: tuple[float, ...] = ()
    ours: float | None = None
    others: float | None = None
    beside: str = ""

    @property
    def ratio(self) -> float | None:
        """The median run; None where the goal was not measured."""
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the bound."""
        if self.ratio is None:
            return None
        return self.ratio >= self.goal.bound if self.goal.at_least else self.ratio <= self.goal.bound


def judge(goal: Goal, runs: Sequence[Sequence[Line]], durable: Sequence[str]) -> Verdict:
    """Holds the lines of each run against a goal; `durable` names the peers that count."""
    ratios, ours, others, best_names = [], [], [], []
    for lines in runs:
        mine = goal.ours.values(lines).get(US)
        if mine is None:
            continue
        if goal.peers is not None:
            found = goal.peers.values(lines, durable)
            if not found:
                continue
            best = (max if goal.at_least else min)(found, key=lambda name: found[name])
            other = found[best]
        elif goal.against is not None:
            reference = goal.against.values(lines).get(goal.against.system)
            if reference is None:
                continue
            best, other = "" if goal.against.system == US else goal.against.system, reference
        else:
            best, other = "", 1.0
        ratios.append(mine / other)
        ours.append(mine)
        others.append(other)
        best_names.append(best)
    if not ratios:
        return Verdict(goal)
    middle = ratios.index(statistics.median_low(ratios))
    plain = goal.peers is None and goal.against is None
    return Verdict(goal, tuple(ratios), ours[middle], None if plain else others[middle], best_names[middle])


def number_text(value: float | None) -> str:
    """A figure as the tables show it: three digits that say something; empty for None."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """The table of ratios against each goal, in Markdown."""
    rows = ["| goal | wanted | ratio | runs | ours | against | |", "|---|---|---|---|---|---|---|"]
    for verdict in verdicts:
        sign = "≥" if verdict.goal.at_least else "≤"
        word = {True: "met", False: "NOT MET", None: "not measured"}[verdict.met]
        spread = (
            f"{number_text(min(verdict.ratios))} – {number_text(max(verdict.ratios))}"
            if len(verdict.ratios) > 1
            else ""
        )
        against = " ".join(part for part in (number_text(verdict.others), verdict.beside) if part)
        cells = (
            verdict.goal.text,
            f"{sign} {number_text(verdict.goal.bound)}",
            number_text(verdict.ratio),
            spread,
            number_text(verdict.ours),
        )
        rows.append("| " + " | ".join((*cells, against, word)) + " |")
    return "\n".join(rows)


COLUMNS: tuple[tuple[str, Figure], ...] = (
    ("chain, activities/s", Figure("chain")),
    ("fan-out of 100", Figure("fanout", "100")),
    ("of 1,000", Figure("fanout", "1000")),
    ("of 10,000", Figure("fanout", "10000")),
    ("latency p50, ms", Figure("latency", "", "p50_ms")),
    ("p99, ms", Figure("latency", "", "p99_ms")),
    ("starts/s", Figure("start")),
)


def comparison_table(runs: Sequence[Sequence[Line]], titles: Mapping[str, str], notes: Mapping[str, str]) -> str:
    """Medians of the runs for us and everybody beside us, in Markdown; marks say what a number leaves out."""
    rows = ["| | " + " | ".join(head for head, _ in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    remarks = []
    for system, title in titles.items():
        cells = []
        for _, figure in COLUMNS:
            if system == US and figure.scenario == "start":
                figure = Figure("start", "nothing runs them")
            seen = [value for lines in runs for value in figure.values(lines, [system]).values()]
            cells.append(number_text(statistics.median(seen)) if seen else "–")
        if any(cell != "–" for cell in cells):
            if note := notes.get(system):
                remarks.append(note)
                title += f" [{len(remarks)}]"
            rows.append("| " + " | ".join((title, *cells)) + " |")
    return "\n".join([*rows, "", *(f"[{number}] {remark}." for number, remark in enumerate(remarks, 1))]).rstrip()
