"""The proof: what the hub and the job's tables say afterwards, read afresh, against what must be so.

`python -m examples.every_minute.report DIRECTORY` prints it; exit code 1 and the instance, month or
execution named where anything differs.  `differences` is a pure function of the evidence, so that tests
can plant a lie and see it found.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

import holdtrue
from holdtrue.core.events import ExecutionStarted, HistoryEvent
from holdtrue.core.projection import Status, initial, project

from . import job, tables, weather


class Tick(msgspec.Struct, frozen=True):
    """The schedule's record of one tick (times in seconds since 1970 UTC)."""

    due: float
    decided_at: float
    decision: str
    execution: str | None
    status: str | None


class Instance(msgspec.Struct, frozen=True):
    """An instance as its status says (`claims`) and its history."""

    instance_id: str
    claims: dict[str, Any]
    history: list[HistoryEvent]


class Evidence(msgspec.Struct, frozen=True):
    """All that the proof is read from."""

    rows: list[tables.ReportRow]
    attempts: list[tables.Attempt]
    ticks: list[Tick]
    instances: list[Instance]
    messages: int
    activities: int
    dead_letters: list[str]


class Run(msgspec.Struct, frozen=True):
    """One execution by the log: from its first line to its last."""

    execution: str
    months: tuple[str | None, ...]
    begun_at: float
    ended_at: float | None


def runs(attempts: Sequence[tables.Attempt]) -> list[Run]:
    """The log's lines by execution, in order of their beginnings."""
    lines: dict[str, list[tables.Attempt]] = {}
    for attempt in attempts:
        lines.setdefault(attempt.execution, []).append(attempt)
    return [
        Run(
            execution,
            tuple(dict.fromkeys(line.month for line in of)),
            min(line.begun_at for line in of),
            None if any(line.ended_at is None for line in of) else max(line.ended_at or 0.0 for line in of),
        )
        for execution, of in lines.items()
    ]


def differences(evidence: Evidence, at_least: int) -> list[str]:
    """Every way in which the evidence is not as it must be, in words; none is the proof."""
    return [
        *_months(evidence, at_least),
        *_overlaps(evidence),
        *_ticks(evidence),
        *_statuses(evidence),
        *_leftovers(evidence),
    ]


def _months(evidence: Evidence, at_least: int) -> list[str]:
    found = []
    times = Counter(row.month for row in evidence.rows)
    found += [f"month {month} is in the report table {count} times" for month, count in times.items() if count > 1]
    if len(times) < at_least:
        found.append(f"{len(times)} months were loaded, {at_least} should have been")
    expected = list(weather.months())[: len(times)]
    found += [f"month {month} was left out" for month in expected if month not in times]
    for row in evidence.rows:
        right = _directly(row.month)
        if row.figures != right:
            found.append(
                f"month {row.month} (execution {row.execution}): the report says {row.figures}, the data {right}"
            )
    loaders: dict[str, set[str]] = {}
    for attempt in evidence.attempts:
        if attempt.month is not None:
            loaders.setdefault(attempt.month, set()).add(attempt.execution)
    for month, executions in loaders.items():
        if len(executions) > 1:
            found.append(f"month {month} was loaded by {len(executions)} executions: {', '.join(sorted(executions))}")
        if month not in times:
            found.append(f"month {month} was begun by {', '.join(sorted(executions))} and has no row")
    for row in evidence.rows:
        if row.execution not in loaders.get(row.month, ()):
            found.append(f"month {row.month} was written by execution {row.execution}, which never logged an attempt")
    return found


def _directly(month: str) -> weather.Figures:
    """The month's figures by another way than the job's: one pass over the file's days, with no sums of lists."""
    count = rain = wind = wet = 0
    high, low = -(10**6), 10**6
    for date, day in weather.days().items():
        if date.startswith(month + "-"):
            count += 1
            rain += day.precipitation
            wind += day.wind
            wet += day.weather == "rain"
            high, low = max(high, day.temp_max), min(low, day.temp_min)
    return weather.Figures(month, count, rain, high, low, wind, wet)


def _overlaps(evidence: Evidence) -> list[str]:
    found = []
    by_log = runs(evidence.attempts)
    for run in by_log:
        if run.ended_at is None:
            found.append(f"execution {run.execution} began {run.months} and never ended")
        if len(run.months) > 1:
            found.append(f"execution {run.execution} went from one month to another: {run.months}")
    for before, after in zip(by_log, by_log[1:], strict=False):
        if before.ended_at is not None and after.begun_at < before.ended_at:
            both = before.ended_at - after.begun_at
            found.append(f"executions {before.execution} and {after.execution} overlapped by {both:.3f} s")
    return found


def _ticks(evidence: Evidence) -> list[str]:
    found = []
    times = Counter(tick.due for tick in evidence.ticks)
    found += [f"the tick due at {due} was decided {count} times" for due, count in times.items() if count > 1]
    by_log = {run.execution: run for run in runs(evidence.attempts)}
    started = [tick for tick in evidence.ticks if tick.decision == "started"]
    executions = Counter(tick.execution for tick in started)
    found += [f"execution {name} was started by {count} ticks" for name, count in executions.items() if count > 1]
    found += [f"execution {name} was logged, and no tick started it" for name in by_log if name not in executions]
    before = None
    for tick in started:
        run = by_log.get(tick.execution or "")
        if run is None:
            found.append(
                f"execution {tick.execution} was started by the tick due at {tick.due} and logged nothing: lost"
            )
            continue
        if run.begun_at < tick.decided_at - 0.001:
            found.append(f"execution {run.execution} began before its tick was decided")
        if before is not None and (before.ended_at is None or before.ended_at > tick.decided_at + 0.001):
            found.append(f"execution {run.execution} was started while {before.execution} still ran")
        before = run
    found += [
        f"the tick due at {tick.due} was decided {tick.decision!r} seeing {tick.status}"
        for tick in evidence.ticks
        if tick.decision not in ("started", "skipped", "missed")
    ]
    return found


def _statuses(evidence: Evidence) -> list[str]:
    found = []
    for instance in evidence.instances:
        truth = refold(instance.history)
        for name, value in instance.claims.items():
            if truth.get(name) != value:
                found.append(
                    f"instance {instance.instance_id!r}: its status says {name} {value!r}, "
                    f"its history {truth.get(name)!r}"
                )
        if not instance.claims["runtime_status"].is_terminal:
            found.append(f"instance {instance.instance_id!r} is stuck: {instance.claims['runtime_status'].name}")
    return found


def refold(history: Sequence[HistoryEvent]) -> dict[str, Any]:
    """What a history alone says of an instance's status."""
    started = next((event for event in history if isinstance(event, ExecutionStarted)), None)
    if started is None:
        return {}
    truth = project(initial(started), history)
    return {
        "execution_id": truth.execution_id,
        "name": truth.name,
        "runtime_status": truth.status,
        "output": truth.output,
        "failure": truth.failure,
    }


def _leftovers(evidence: Evidence) -> list[str]:
    found = [f"dead letter: {letter}" for letter in evidence.dead_letters]
    if evidence.messages:
        found.append(f"{evidence.messages} messages wait in the hub, and nobody is left who should handle them")
    if evidence.activities:
        found.append(f"{evidence.activities} activities are left over in the hub")
    return found


async def gather(directory: Path) -> Evidence:
    """Read it all: the hub through a client of its own, the tables from their file."""
    rows, attempts = tables.read(job.table_file(directory))
    instances = []
    async with holdtrue.Client(str(job.hub_file(directory))) as client:
        async for status in client.query():
            claims = {
                "execution_id": status.execution_id,
                "name": status.name,
                "runtime_status": Status(status.runtime_status),
                "output": status.serialized_output,
                "failure": status.failure,
            }
            instances.append(
                Instance(status.instance_id, claims, [e async for e in client.history(status.instance_id)])
            )
        ticks = [
            Tick(tick.due.timestamp(), tick.decided_at.timestamp(), tick.decision, tick.execution_id, tick.status)
            async for tick in client.schedules.all_ticks(job.SCHEDULE)
        ]
        info = await client.info()
        letters = [f"{letter.letter.instance_id}: {letter.letter.reason}" async for letter in client.dead_letters()]
    return Evidence(rows, attempts, ticks, instances, info.messages, info.activities, letters)


def summary(evidence: Evidence) -> list[str]:
    """What there is, in figures."""
    logged = runs(evidence.attempts)
    decisions = Counter(tick.decision for tick in evidence.ticks)
    latest = max((tick.decided_at - tick.due for tick in evidence.ticks if tick.decision != "missed"), default=0.0)
    again = len(evidence.attempts) - len(logged)
    return [
        f"months in the table    {len(evidence.rows)} of {len(weather.months())}",
        f"ticks of the schedule  {len(evidence.ticks)}: "
        + ", ".join(f"{count} {decision}" for decision, count in sorted(decisions.items())),
        f"latest tick            decided {latest:.2f} s after it was due",
        f"executions logged      {len(logged)}; first steps run again after a kill: {again}",
        f"instances in the hub   {len(evidence.instances)}, "
        f"{sum(len(instance.history) for instance in evidence.instances)} events folded again",
    ]


def main() -> int:
    """Print the proof for a directory; 1 where anything differs."""
    directory = Path(sys.argv[1])
    at_least = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    evidence = asyncio.run(gather(directory))
    print("\n".join(summary(evidence)))
    found = differences(evidence, at_least)
    for line in found:
        print(f"DIFFERENCE: {line}")
    if found:
        print(f"NOT PROVEN: {len(found)} differences; hub and tables are in {directory}")
        return 1
    print("PROVEN: every month exactly once, every figure as in the data, no two runs at once,")
    print("        every status as its history says, nothing stuck, lost or dead-lettered.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
