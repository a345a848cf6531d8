"""Commands that steer instances: suspend, resume, cancel, terminate, rewind, restart, purge."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from holdtrue.cli.app import Session, command, kind_of
from holdtrue.cli.exits import ExitCode, UsageProblem, code_of
from holdtrue.cli.instances import (
    JSON_FORMS,
    FromOption,
    InstanceArgument,
    NameOption,
    PrefixOption,
    StatusName,
    StatusOption,
    ToOption,
    statuses_of,
)
from holdtrue.cli.output import counted, is_terminal
from holdtrue.cli.values import optional_moment, parse_json

InstancesArgument = Annotated[
    list[str], typer.Argument(metavar="ID", help="One instance's id, or several.", show_default=False)
]
ReasonOption = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why; stands in the history.")]


def _on_each(
    session: Session, operation: str, done: str, given: list[str], act: Callable[[Any, str], object]
) -> ExitCode | None:
    """Do one thing to each instance; what fails is reported and does not stop the rest.

    `act` answers False where the instance had ended already, which is no failure of an operation that ends
    it.  The exit code is the failures', or 1 where there are several kinds.
    """
    codes: set[ExitCode] = set()
    ids = list(dict.fromkeys(given))
    with session.client() as client, session.out.progress(operation.capitalize(), len(ids)) as advance:
        for count, instance_id in enumerate(ids, 1):
            try:
                ended = act(client, instance_id) is False
            except Exception as error:  # reported, and the others get their turn
                if len(ids) == 1 or code_of(error) in (ExitCode.DEFECT, ExitCode.HUB_UNAVAILABLE):
                    raise
                codes.add(code_of(error))
                session.out.error(str(error), code_of(error), kind_of(error))
            else:
                document = {"instance_id": instance_id, "operation": operation, "had_ended": ended}
                session.out.say(f"{instance_id} had ended." if ended else f"{done} {instance_id}.", document)
            advance(count)
    return None if not codes else codes.pop() if len(codes) == 1 else ExitCode.FAILED


@command("suspend")
def suspend(session: Session, ids: InstancesArgument, reason: ReasonOption = None) -> ExitCode | None:
    """Let instances rest.

    What comes for them is kept, and takes effect when they are resumed.
    """
    return _on_each(session, "suspend", "Suspended", ids, lambda client, i: client.suspend(i, reason))


@command("resume")
def resume(session: Session, ids: InstancesArgument, reason: ReasonOption = None) -> ExitCode | None:
    """Let suspended instances go on."""
    return _on_each(session, "resume", "Resumed", ids, lambda client, i: client.resume(i, reason))


@command("cancel")
def cancel(session: Session, ids: InstancesArgument, reason: ReasonOption = None) -> ExitCode | None:
    """Ask instances to end.

    Their code can catch it to clean up. They end as Terminated.
    """
    return _on_each(session, "cancel", "Asked to cancel", ids, lambda client, i: client.cancel(i, reason))


@command("terminate")
def terminate(
    session: Session,
    ids: InstancesArgument,
    output: Annotated[str | None, typer.Option("--output", metavar="JSON", help=f"Their output: {JSON_FORMS}.")] = None,
    recursive: Annotated[bool, typer.Option("--recursive/--no-recursive", help="Their sub-orchestrations too.")] = True,
) -> ExitCode | None:
    """End instances at once, without asking their code."""
    value = None if output is None else parse_json(output, "--output")
    return _on_each(
        session,
        "terminate",
        "Told to terminate",
        ids,
        lambda client, i: client.terminate(i, value, recursive=recursive),
    )


@command("rewind")
def rewind(session: Session, ids: InstancesArgument, reason: ReasonOption = None) -> ExitCode | None:
    """Let failed instances go on from before their failure."""
    return _on_each(session, "rewind", "Rewound", ids, lambda client, i: client.rewind(i, reason))


@command("restart")
def restart(
    session: Session,
    instance_id: InstanceArgument,
    new_id: Annotated[
        str | None,
        typer.Option("--new-id", metavar="ID", help="Under this id; without it in the place of the old one."),
    ] = None,
) -> ExitCode | None:
    """Start an instance anew with the same input and print the id."""
    with session.client() as client:
        started = client.restart(instance_id, new_instance_id=new_id)
    session.out.say(started, {"instance_id": started, "operation": "restart", "restarted": instance_id})
    return None


@command("purge")
def purge(
    session: Session,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="Instances; or give filters instead.")] = None,
    status: StatusOption = None,
    name: NameOption = None,
    prefix: PrefixOption = None,
    created_from: FromOption = None,
    created_to: ToOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every ended instance of the hub.")] = False,
    recursive: Annotated[
        bool, typer.Option("--recursive/--no-recursive", help="Sub-orchestrations too (with ids; a filter never does).")
    ] = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before a purge by filter.")] = False,
) -> ExitCode | None:
    """Delete ended instances with their histories.

    Those named, or all that meet every filter given.
    """
    filters: dict[str, Any] = {
        "statuses": statuses_of(status),
        "name": name,
        "prefix": prefix,
        "created_from": optional_moment(created_from, "--created-from"),
        "created_to": optional_moment(created_to, "--created-to"),
    }
    filters = {key: value for key, value in filters.items() if value is not None}
    if ids and (filters or every):
        raise UsageProblem("Give ids or filters, not both.")
    if ids:
        return _purge_named(session, ids, recursive)
    if every == bool(filters):
        raise UsageProblem("Say what to purge: ids, or filters (--status, --name, --prefix, ...), or --all alone.")
    ended = {StatusName.COMPLETED, StatusName.FAILED, StatusName.TERMINATED, StatusName.CANCELED}
    if status and not ended.issuperset(status):
        raise UsageProblem("Only ended instances can be purged: completed, failed, terminated, canceled.")
    session.require_hub()
    if not yes:
        ask(session, "all ended instances" if every else "all ended instances that meet these filters")
    with session.client() as client, session.out.progress("Purged") as advance:
        purged = client.purge_where(**filters, progress=advance)
    session.out.say(
        f"Purged {counted(purged.instances, 'instance', 'instances')}.",
        {"operation": "purge", "purged": purged.instances},
    )
    return None


def _purge_named(session: Session, ids: list[str], recursive: bool) -> ExitCode | None:
    def act(client: Any, instance_id: str) -> None:
        if not client.purge(instance_id, recursive=recursive).instances:
            from holdtrue.client.errors import InstanceNotFound

            raise InstanceNotFound(instance_id)

    return _on_each(session, "purge", "Purged", ids, act)


def ask(session: Session, what: str) -> None:
    """Ask whether `what` is to be deleted; raises UsageProblem where nobody can answer."""
    if session.out.json or not is_terminal(sys.stdin):
        raise UsageProblem(f"This would delete {what}; add --yes to do it without being asked.")
    try:
        agreed = typer.confirm(f"Delete {what} of {session.hub}?")
    except typer.Abort:
        raise KeyboardInterrupt from None
    if not agreed:
        raise typer.Abort
