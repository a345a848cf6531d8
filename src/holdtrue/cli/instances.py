"""Commands that start instances, look at them, wait for them, and raise events on them."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.cli.app import Session, command, streamed
from holdtrue.cli.exits import CommandError, ExitCode, UsageProblem
from holdtrue.cli.output import Node, instant
from holdtrue.cli.values import (
    MOMENTS,
    optional_moment,
    optional_seconds,
    parse_json,
    parse_moment,
    parse_tags,
    parse_when,
)

if TYPE_CHECKING:
    from holdtrue.cli.output import Cell
    from holdtrue.client.status import InstanceStatus
    from holdtrue.client.sync import SyncClient
    from holdtrue.core.projection import Status

JSON_FORMS = "JSON text, @file, or - for standard input"

InstanceArgument = Annotated[str, typer.Argument(metavar="ID", help="The instance's id.", show_default=False)]
TimeoutOption = Annotated[
    str | None, typer.Option("--timeout", metavar="DURATION", help="Give up after so long (30s, 5m); exit code 6.")
]


PAGE = 1_000
"""Instances that `list` asks for at once."""


class StatusName(StrEnum):
    """A runtime status as the user types it."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"
    TERMINATED = "terminated"
    PENDING = "pending"
    SUSPENDED = "suspended"


class Reuse(StrEnum):
    """What to do where an instance of that id exists."""

    DEFAULT = "default"
    ERROR = "error"
    REPLACE = "replace"
    IGNORE = "ignore"


StatusOption = Annotated[
    list[StatusName] | None,
    typer.Option(
        "--status",
        metavar="STATUS",
        help=f"Only instances in this status ({', '.join(StatusName)}); may be given again.",
        case_sensitive=False,
    ),
]
NameOption = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Only instances of this orchestration.")]
PrefixOption = Annotated[str | None, typer.Option("--prefix", metavar="TEXT", help="Only ids that begin so.")]
FromOption = Annotated[
    str | None, typer.Option("--created-from", metavar="TIME", help=f"Created then or later: {MOMENTS}.")
]
ToOption = Annotated[str | None, typer.Option("--created-to", metavar="TIME", help="Created before then.")]


def statuses_of(names: list[StatusName] | None) -> "set[Status] | None":
    """The runtime statuses meant; None where none was given."""
    if not names:
        return None
    from holdtrue.core.projection import Status

    return {Status[name.name] for name in names}


def found(client: "SyncClient", instance_id: str, *, waits: bool = False) -> "InstanceStatus":
    """An instance's status; raises InstanceNotFound where there is none of that id."""
    status = client.get_status(instance_id, waits=waits)
    if status is None:
        from holdtrue.client.errors import InstanceNotFound

        raise InstanceNotFound(instance_id)
    return status


@command("start")
def start(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The orchestration's name.", show_default=False)],
    data: Annotated[str | None, typer.Argument(metavar="INPUT", help=f"Its input: {JSON_FORMS}.")] = None,
    instance_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="The instance's id; a time-ordered one is made without it.")
    ] = None,
    reuse: Annotated[
        Reuse,
        typer.Option(
            help="Where an instance of that id exists: replace it if it has ended (default); refuse (error); "
            "replace it even while it runs; leave it and answer its id (ignore)."
        ),
    ] = Reuse.DEFAULT,
    if_not_running: Annotated[
        bool,
        typer.Option("--if-not-running", help="Start unless the instance --id runs; answers started, running or held."),
    ] = False,
    at: Annotated[str | None, typer.Option("--at", metavar="TIME", help=f"Start then: {MOMENTS}.")] = None,
    deadline: Annotated[
        str | None, typer.Option("--deadline", metavar="TIME", help="End it as Failed then: a time, or a duration.")
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="A tag; may be given again.")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--of-version", metavar="TEXT", help="The orchestration's version.")
    ] = None,
    start_id: Annotated[
        str | None, typer.Option("--start-id", metavar="TEXT", help="Makes a repeated start the same start.")
    ] = None,
    event: Annotated[
        str | None, typer.Option("--event", metavar="NAME[=JSON]", help="An event that comes right after the start.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the end, as `wait` does.")] = False,
    timeout: TimeoutOption = None,
) -> ExitCode | None:
    """Start an orchestration and print its instance id.

    Makes the hub if it is not there. The start is on disk when the command ends, whether a worker runs or not.
    """
    seconds = optional_seconds(timeout, "--timeout")
    if seconds is not None and not wait:
        raise UsageProblem("--timeout belongs to --wait: add --wait, or leave it out.")
    arguments: dict[str, Any] = {"tags": parse_tags(tags), "version": version}
    if data is not None:
        arguments["input"] = parse_json(data)
    if at is not None:
        arguments["start_at"] = parse_moment(at, "--at")
    if deadline is not None:
        arguments["deadline"] = parse_when(deadline, "--deadline")
    if if_not_running and (instance_id is None or reuse is not Reuse.DEFAULT or start_id or event):
        raise UsageProblem("--if-not-running needs --id, and goes without --reuse, --start-id and --event.")
    if not if_not_running:
        arguments |= {"reuse": reuse.value, "start_id": start_id}
        if event is not None:
            event_name, equals, text = event.partition("=")
            arguments["event"] = (event_name, parse_json(text, "--event") if equals else None)
    with session.client(create=True) as client:
        if if_not_running:
            assert instance_id is not None  # refused above
            outcome = client.start_if_not_running(name, instance_id=instance_id, **arguments)
            document = {
                "instance_id": outcome.instance_id,
                "outcome": str(outcome.outcome),
                "execution_id": outcome.execution_id,
                "reason": outcome.reason,
            }
            started = outcome.instance_id
            words = {"running": "is running already", "held": f"is held: {outcome.reason}"}
            if outcome.outcome == "started":
                text = started
            else:
                text = f"{started} {words.get(str(outcome.outcome), str(outcome.outcome))}"
        else:
            started = client.start(name, instance_id=instance_id, **arguments)
            document, text = {"instance_id": started}, started
        if not wait:
            session.out.say(text, document)
            return None
        if not session.out.json:
            session.out.note(text)
        return _wait(session, client, started, seconds)


@command("list")
def list_instances(
    session: Session,
    status: StatusOption = None,
    name: NameOption = None,
    prefix: PrefixOption = None,
    created_from: FromOption = None,
    created_to: ToOption = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", metavar="KEY=VALUE", help="Only instances with this tag.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most so many; 0 for all.")] = 100,
    after: Annotated[
        str | None,
        typer.Option("--after", metavar="TOKEN", help="Go on after the page that gave this token; same filters."),
    ] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="In order of creation.")] = False,
) -> ExitCode | None:
    """List instances, newest first. With --json one document a line, as they are read."""
    from holdtrue.cli.views import status_cell, status_document

    query: dict[str, Any] = {
        "statuses": statuses_of(status),
        "name": name,
        "prefix": prefix,
        "created_from": optional_moment(created_from, "--created-from"),
        "created_to": optional_moment(created_to, "--created-to"),
        "tags": parse_tags(tags),
        "newest_first": not oldest_first,
    }
    rows: list[list[Cell]] = []
    with session.client() as client:
        token, shown = after, 0
        while True:
            size = min(limit - shown, PAGE) if limit else PAGE
            page = client.query_page(**query, page_size=size, token=token)
            token, shown = page.token, shown + len(page.items)
            for instance in page.items:
                if session.out.json:
                    session.out.document(status_document(instance))
                else:
                    rows.append(
                        [
                            instance.instance_id,
                            instance.name,
                            status_cell(instance),
                            instant(instance.created_at, "seconds"),
                            instant(instance.last_updated_at, "seconds"),
                        ]
                    )
            if token is None or shown == limit:
                break
    if not session.out.json:
        session.out.table(("INSTANCE", "ORCHESTRATION", "STATUS", "CREATED", "UPDATED"), rows, empty="No instances.")
    if token is not None:
        session.out.note(f"There are more than these {shown}: go on with --after {token}, or --limit 0.", next=token)
    return None


@command("show")
def show(
    session: Session,
    instance_id: InstanceArgument,
    history: Annotated[bool, typer.Option("--history/--no-history", help="With the events of its history.")] = True,
    full: Annotated[
        bool, typer.Option("--full", help="Every event, payload and stack trace, whole and without a limit.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Events shown of each instance.")] = 200,
    depth: Annotated[int, typer.Option("--depth", min=0, help="Levels of sub-orchestrations.")] = 8,
) -> ExitCode | None:
    """Show an instance: its status and history.

    What it waits for, too; the history as a tree with its sub-orchestrations.
    With --json one document, with `history` and `children`, always whole.
    """
    from holdtrue.cli.views import status_fields

    with session.client() as client:
        status = found(client, instance_id, waits=True)
        if session.out.json:
            session.out.document(_document(client, status, history, depth))
            return None
        session.out.fields(status_fields(status, full=full))
        tree = _tree(client, status, history, full, limit, depth)
        if tree.children:
            session.out.say("")
            session.out.tree(tree)
    return None


def _document(client: "SyncClient", status: "InstanceStatus", history: bool, depth: int) -> dict[str, Any]:
    from holdtrue.cli.views import event_document, status_document
    from holdtrue.core.events import SubOrchestrationInstanceCreated

    document = status_document(status, waits=True)
    events, children = [], []
    seen: set[str] = set()
    with streamed(client.history(status.instance_id)) as stream:
        for event in stream:
            if history:
                events.append(event_document(event))
            if isinstance(event, SubOrchestrationInstanceCreated) and depth and event.instance_id not in seen:
                seen.add(event.instance_id)
                child = client.get_status(event.instance_id, waits=True)
                if child is not None:
                    children.append(_document(client, child, history, depth - 1))
    if history:
        document["history"] = events
    document["children"] = children
    return document


def _tree(client: "SyncClient", status: "InstanceStatus", history: bool, full: bool, limit: int, depth: int) -> Node:
    from holdtrue.cli.views import EventLines, status_cell
    from holdtrue.core.events import SubOrchestrationInstanceCreated

    cell = status_cell(status)
    root = Node(f"{status.instance_id} {status.name} {cell[0]}", cell[1])
    lines = EventLines(full=full)
    left_out, seen = 0, set[str]()
    with streamed(client.history(status.instance_id)) as stream:
        for event in stream:
            child_id = event.instance_id if isinstance(event, SubOrchestrationInstanceCreated) else None
            line = lines.line(event) if history else None
            if (line is None and child_id is None) or (not full and len(root.children) >= limit):
                left_out += line is not None or child_id is not None
                continue
            child = None
            if child_id is not None and depth and child_id not in seen:
                seen.add(child_id)
                child = client.get_status(child_id)
            branch = None if child is None else _tree(client, child, history, full, limit, depth - 1)
            if line is not None:
                root.children.append(Node(line[0], line[1], [branch] if branch is not None else []))
            elif branch is not None:
                root.children.append(branch)
    if left_out:
        root.children.append(Node(f"… {left_out} more (--full shows all)", "dim"))
    return root


@command("wait")
def wait(
    session: Session,
    instance_id: InstanceArgument,
    timeout: TimeoutOption = None,
    for_start: Annotated[bool, typer.Option("--start", help="Wait until it has begun, not until it ends.")] = False,
) -> ExitCode | None:
    """Wait for an instance's end and print its output.

    The exit code is 0 if it completed, 1 if it ended otherwise, 6 if --timeout came first.
    """
    seconds = optional_seconds(timeout, "--timeout")
    with session.client() as client:
        return _wait(session, client, instance_id, seconds, for_start=for_start)


def _wait(
    session: Session, client: "SyncClient", instance_id: str, seconds: float | None, *, for_start: bool = False
) -> ExitCode | None:
    from holdtrue.cli.views import STATUS_NAMES, status_document
    from holdtrue.core.projection import Status

    try:
        if for_start:
            status = client.wait_for_start(instance_id, timeout=seconds)
        else:
            status = client.wait_for_completion(instance_id, timeout=seconds)
    except TimeoutError:
        now = client.get_status(instance_id, waits=True)
        state = "" if now is None else f"; it is {_state(now)}"
        raise CommandError(
            f"Instance {instance_id!r} has not {'begun' if for_start else 'ended'} within {seconds:g} s{state}.",
            ExitCode.TIMEOUT,
        ) from None
    name = STATUS_NAMES[status.runtime_status]
    if session.out.json:
        session.out.document(status_document(status))
    elif for_start or status.runtime_status is not Status.COMPLETED:
        session.out.note(f"{instance_id} {name}")
        if status.failure is not None:
            session.out.note(f"{status.failure.error_type}: {status.failure.message}")
    if not session.out.json and status.serialized_output is not None:
        session.out.say(status.serialized_output)
    if for_start or status.runtime_status is Status.COMPLETED:
        return None
    return ExitCode.FAILED


def _state(status: "InstanceStatus") -> str:
    from holdtrue.cli.views import STATUS_NAMES

    state = STATUS_NAMES[status.runtime_status]
    if status.condition is not None:
        state += f", {status.condition.kind}: {status.condition.reason}"
    elif status.waits_for:
        state += f" and waits for {', '.join(status.waits_for[:3])}" + (", …" if len(status.waits_for) > 3 else "")
    return state


@command("raise")
def raise_event(
    session: Session,
    instance_id: InstanceArgument,
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event's name.", show_default=False)],
    data: Annotated[str | None, typer.Argument(metavar="DATA", help=f"What comes with it: {JSON_FORMS}.")] = None,
) -> ExitCode | None:
    """Raise an event on an instance.

    One that nobody waits for yet is kept; one for an ended instance is dropped: exit code 4.
    """
    value = None if data is None else parse_json(data, "data")
    with session.client() as client:
        if not client.raise_event(instance_id, event, value):
            raise CommandError(
                f"Instance {instance_id!r} has ended; the event was dropped. `holdtrue restart` starts it anew.",
                ExitCode.REFUSED,
            )
    session.out.say(f"Raised {event} on {instance_id}.", {"instance_id": instance_id, "raised": event})
    return None
