"""Commands for schedules."""

from collections import deque
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.cli.app import Session, command, group
from holdtrue.cli.exits import ExitCode, UsageProblem
from holdtrue.cli.instances import JSON_FORMS
from holdtrue.cli.output import Cell, exact, instant
from holdtrue.cli.values import MOMENTS, optional_moment, optional_seconds, parse_json, parse_tags

if TYPE_CHECKING:
    from holdtrue.client.schedules import ScheduleInfo, ScheduleTick

commands = group("schedule", "Schedules: start orchestrations by a cron or at an interval.")

ScheduleArgument = Annotated[str, typer.Argument(metavar="SCHEDULE", help="The schedule's id.", show_default=False)]


class OverlapName(StrEnum):
    """What a tick does while the run before has not ended."""

    SKIP = "skip"
    QUEUE = "queue"
    ALLOW = "allow"
    REPLACE = "replace"


class MissedName(StrEnum):
    """What becomes of ticks that nobody fired in time."""

    SKIP = "skip"
    ONE = "one"
    ALL = "all"


def info_document(info: "ScheduleInfo") -> dict[str, Any]:
    """A schedule with its state."""
    from holdtrue.cli.views import payload

    spec = info.spec
    return {
        "schedule_id": spec.schedule_id,
        "orchestrator": spec.orchestrator,
        "input": payload(spec.input),
        "instance_id": spec.instance_id,
        "cron": spec.cron,
        "interval_seconds": None if spec.interval is None else spec.interval.total_seconds(),
        "time_zone": spec.time_zone,
        "overlap": str(spec.overlap),
        "missed": str(spec.missed),
        "missed_limit": spec.missed_limit,
        "grace_seconds": spec.grace.total_seconds(),
        "jitter_seconds": spec.jitter.total_seconds(),
        "start_at": exact(spec.start_at),
        "end_at": exact(spec.end_at),
        "tags": spec.tags or {},
        "version": spec.version,
        "keep_ticks_seconds": spec.keep_ticks.total_seconds(),
        "paused": info.paused,
        "next_due": exact(info.next_due),
        "queued_since": exact(info.queued_since),
        "last_instance_id": info.last_instance_id,
        "last_tick": None if info.last_tick is None else tick_document(info.last_tick),
    }


def tick_document(tick: "ScheduleTick") -> dict[str, Any]:
    """The record of a tick."""
    return {
        "schedule_id": tick.schedule_id,
        "due": exact(tick.due),
        "decided_at": exact(tick.decided_at),
        "decision": tick.decision,
        "count": tick.count,
        "instance_id": tick.instance_id,
        "execution_id": tick.execution_id,
        "status": tick.status,
        "reason": tick.reason,
    }


def _rhythm(info: "ScheduleInfo") -> str:
    spec = info.spec
    if spec.cron is not None:
        return spec.cron if spec.time_zone == "UTC" else f"{spec.cron} ({spec.time_zone})"
    return f"every {spec.interval}"


def _state(info: "ScheduleInfo") -> Cell:
    if info.paused:
        return "paused", "yellow"
    return ("active", "green") if info.next_due is not None else ("over", "dim")


_DECISION_STYLES = {"started": "green", "replaced": "yellow", "skipped": "yellow", "held": "bold red", "missed": "red"}


def _tell(session: Session, done: str, info: "ScheduleInfo") -> None:
    if info.paused:
        then = "paused"
    elif info.next_due is None:
        then = "over, it fires no more"
    else:
        then = f"next due {instant(info.next_due)}"
    session.out.say(f"{done} {info.schedule_id}: {then}.", info_document(info))


@command("create", to=commands)
def create(
    session: Session,
    schedule_id: ScheduleArgument,
    orchestrator: Annotated[
        str, typer.Argument(metavar="NAME", help="The orchestration that it starts.", show_default=False)
    ],
    data: Annotated[str | None, typer.Argument(metavar="INPUT", help=f"Its input: {JSON_FORMS}.")] = None,
    cron: Annotated[
        str | None,
        typer.Option(
            "--cron",
            metavar="CRON",
            help="NCRONTAB: [second] minute hour day month weekday; fires where day and weekday both fit.",
        ),
    ] = None,
    every: Annotated[str | None, typer.Option("--every", metavar="DURATION", help="Or at this interval.")] = None,
    time_zone: Annotated[
        str, typer.Option("--time-zone", metavar="ZONE", help="Whose clock the cron means, as Europe/Vienna.")
    ] = "UTC",
    instance_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="One fixed instance id (a singleton); else each tick gets its own."),
    ] = None,
    overlap: Annotated[OverlapName, typer.Option(help="While the run before has not ended.")] = OverlapName.SKIP,
    missed: Annotated[
        MissedName, typer.Option(help="Ticks that nobody fired in time: runs for none, one, all.")
    ] = MissedName.ONE,
    missed_limit: Annotated[int | None, typer.Option("--missed-limit", min=1, help="At most so many with all.")] = None,
    grace: Annotated[
        str | None, typer.Option("--grace", metavar="DURATION", help="How late a tick may be and is not missed.")
    ] = None,
    jitter: Annotated[
        str | None, typer.Option("--jitter", metavar="DURATION", help="Delay each tick by a part of this.")
    ] = None,
    start_at: Annotated[str | None, typer.Option("--start", metavar="TIME", help=f"Not before: {MOMENTS}.")] = None,
    end_at: Annotated[str | None, typer.Option("--end", metavar="TIME", help="Not after.")] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="A tag of the instances.")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--of-version", metavar="TEXT", help="The orchestration's version.")
    ] = None,
    keep_ticks: Annotated[
        str | None, typer.Option("--keep-ticks", metavar="DURATION", help="How long records of ticks are kept.")
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Create it paused.")] = False,
    put: Annotated[bool, typer.Option("--put", help="Where it exists, give it this definition.")] = False,
) -> ExitCode | None:
    """Create a schedule.

    Workers of the hub fire it; two of them never fire one tick twice.
    """
    if (cron is None) == (every is None):
        raise UsageProblem("Give exactly one of --cron and --every.")
    members: dict[str, Any] = {
        "cron": cron,
        "interval": optional_seconds(every, "--every"),
        "instance_id": instance_id,
        "missed_limit": missed_limit,
        "grace": optional_seconds(grace, "--grace"),
        "jitter": optional_seconds(jitter, "--jitter"),
        "start_at": optional_moment(start_at, "--start"),
        "end_at": optional_moment(end_at, "--end"),
        "tags": parse_tags(tags),
        "version": version,
        "keep_ticks": optional_seconds(keep_ticks, "--keep-ticks"),
    }
    members = {name: value for name, value in members.items() if value is not None}
    members |= {"time_zone": time_zone, "overlap": overlap.value, "missed": missed.value, "paused": paused}
    if data is not None:
        members["input"] = parse_json(data)
    with session.client() as client:
        make = client.schedules.put if put else client.schedules.create
        _tell(session, "Put" if put else "Created", make(schedule_id, orchestrator, **members))
    return None


@command("list", to=commands)
def list_schedules(session: Session) -> ExitCode | None:
    """List the schedules."""
    with session.client() as client:
        infos = client.schedules.list()
    if session.out.json:
        for info in infos:
            session.out.document(info_document(info))
        return None
    rows: list[list[Cell]] = [
        [
            info.schedule_id,
            info.spec.orchestrator,
            _rhythm(info),
            _state(info),
            instant(info.next_due, "seconds"),
            _last(info.last_tick, "seconds"),
        ]
        for info in infos
    ]
    columns = ("SCHEDULE", "ORCHESTRATION", "WHEN", "STATE", "NEXT DUE", "LAST TICK")
    session.out.table(columns, rows, empty="No schedules.")
    return None


def _last(tick: "ScheduleTick | None", timespec: str = "milliseconds") -> Cell:
    if tick is None:
        return ""
    return f"{tick.decision} {instant(tick.due, timespec)}", _DECISION_STYLES.get(tick.decision, "")


@command("show", to=commands)
def show(session: Session, schedule_id: ScheduleArgument) -> ExitCode | None:
    """Show a schedule: its definition and state."""
    with session.client() as client:
        info = client.schedules.get(schedule_id)
    if session.out.json:
        session.out.document(info_document(info))
        return None
    spec, tick = info.spec, info.last_tick
    session.out.fields(
        [
            ("Schedule", (info.schedule_id, "bold")),
            ("Orchestration", spec.orchestrator + (f" (version {spec.version})" if spec.version else "")),
            ("Input", spec.input or ""),
            ("Instance", spec.instance_id or "one for each tick"),
            ("When", _rhythm(info)),
            ("Starts", instant(spec.start_at)),
            ("Ends", instant(spec.end_at)),
            ("Jitter", f"up to {spec.jitter}" if spec.jitter else ""),
            ("Overlap", str(spec.overlap)),
            ("Missed", str(spec.missed) + (f" (at most {spec.missed_limit})" if spec.missed == "all" else "")),
            ("Tags", ", ".join(f"{key}={value}" for key, value in (spec.tags or {}).items())),
            ("State", _state(info)),
            ("Next due", instant(info.next_due)),
            ("Queued", f"since {instant(info.queued_since)}" if info.queued_since else ""),
            ("Last tick", _last(tick)),
            ("Reason", (tick.reason if tick is not None else None) or ""),
            ("Last run", info.last_instance_id or ""),
        ]
    )
    return None


@command("pause", to=commands)
def pause(session: Session, schedule_id: ScheduleArgument) -> ExitCode | None:
    """Let a schedule rest."""
    with session.client() as client:
        _tell(session, "Paused", client.schedules.pause(schedule_id))
    return None


@command("resume", to=commands)
def resume(
    session: Session,
    schedule_id: ScheduleArgument,
    catch_up: Annotated[
        bool, typer.Option("--catch-up/--no-catch-up", help="Ticks of the pause count as missed, or never were.")
    ] = True,
) -> ExitCode | None:
    """Let a schedule go on."""
    with session.client() as client:
        _tell(session, "Resumed", client.schedules.resume(schedule_id, catch_up=catch_up))
    return None


@command("trigger", to=commands)
def trigger(session: Session, schedule_id: ScheduleArgument) -> ExitCode | None:
    """Make a run now, paused or not.

    The overlap policy holds: exit code 4 if it made no run and queued none.
    """
    with session.client() as client:
        tick = client.schedules.trigger(schedule_id)
    words = [tick.decision, tick.instance_id or "", f"({tick.reason})" if tick.reason else ""]
    session.out.say(" ".join(word for word in words if word), tick_document(tick))
    return None if tick.started or tick.decision == "queued" else ExitCode.REFUSED


@command("delete", to=commands)
def delete(session: Session, schedule_id: ScheduleArgument) -> ExitCode | None:
    """Delete a schedule and the records of its ticks; runs that it started go on."""
    with session.client() as client:
        client.schedules.delete(schedule_id)
    session.out.say(f"Deleted {schedule_id}.", {"schedule_id": schedule_id, "operation": "delete"})
    return None


@command("next", to=commands)
def next_runs(
    session: Session,
    schedule_id: ScheduleArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=10_000, help="How many.")] = 5,
) -> ExitCode | None:
    """Show when the next ticks are due."""
    with session.client() as client:
        moments = client.schedules.next_runs(schedule_id, count)
    if not moments and not session.out.json:
        session.out.note("None: it is paused or over.")
    for moment in moments:
        session.out.say(instant(moment), {"schedule_id": schedule_id, "due": exact(moment)})
    return None


@command("ticks", to=commands)
def ticks(
    session: Session,
    schedule_id: ScheduleArgument,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help=f"Due later than: {MOMENTS}.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="The latest so many; 0 for all.")] = 100,
) -> ExitCode | None:
    """Show what became of past ticks."""
    after = optional_moment(since, "--since")
    with session.client() as client:
        kept = deque(client.schedules.all_ticks(schedule_id, after=after), maxlen=limit or None)
    if session.out.json:
        for tick in kept:
            session.out.document(tick_document(tick))
        return None
    rows: list[list[Cell]] = [
        [
            instant(tick.due),
            (tick.decision + (f" ×{tick.count}" if tick.count > 1 else ""), _DECISION_STYLES.get(tick.decision, "")),
            tick.instance_id or "",
            (tick.status or "").capitalize(),
            tick.reason or "",
        ]
        for tick in kept
    ]
    session.out.table(("DUE", "DECISION", "INSTANCE", "STATUS SEEN", "REASON"), rows, empty="No ticks.")
    return None
