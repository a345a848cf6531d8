"""Whole hubs in Azure Storage: handing one over to .NET, deleting one."""

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

import typer

from holdtrue.cli.app import ACCOUNT, Session, command, group
from holdtrue.cli.control import ask
from holdtrue.cli.exits import ExitCode, UsageProblem

if TYPE_CHECKING:
    from holdtrue.engine.finishing import EpisodeFinisher
    from holdtrue.stores.azure_storage.settling import Settled

commands = group("hub", "Hubs in Azure Storage: hand one over to .NET workers, delete one.")


@command("settle", to=commands)
def settle(
    session: Session,
    application: Annotated[
        str | None,
        typer.Option("--app", metavar="APP", help="The code, for episodes whose last part is missing: module:app."),
    ] = None,
    leave: Annotated[
        bool, typer.Option("--leave", help="Leave what .NET cannot go on with as it is, and hand over the rest.")
    ] = False,
) -> ExitCode | None:
    """Make a hub ready for .NET workers, when all hosts of Holdtrue have stopped or died.

    It sends what is owed, deletes what was used up, puts back what waits for its instance, and takes Holdtrue's own
    columns away.  What .NET cannot go on with is named, and then (without --leave) nothing is handed over.  It can be
    run again, whatever it was interrupted at.
    """
    _refuse_file(session)
    session.require_hub()
    from holdtrue.environment import REAL
    from holdtrue.stores.azure_storage.opening import open_hub

    store = open_hub(session.hub, REAL, os.environ)
    finisher = None if application is None else _finisher(application)

    async def run() -> "Settled":
        await store.open()
        try:
            return await store.settle(finisher, leave=leave)
        finally:
            await store.close()

    return _tell(session, asyncio.run(run()))


@command("delete", to=commands)
def delete(
    session: Session,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> ExitCode | None:
    """Delete a hub with all its instances: its tables, queues and containers.

    Refused while a host serves it; one that was killed counts for a minute after its lease.  It can be run again,
    whatever it was interrupted at.  Its name is free again after a minute.
    """
    _refuse_file(session)
    from holdtrue.environment import REAL
    from holdtrue.stores.azure_storage.opening import delete_hub_of

    if not yes:
        ask(session, "all instances")
    asyncio.run(delete_hub_of(session.hub, REAL, os.environ))
    session.out.say(f"Deleted {session.hub}.", {"operation": "delete", "hub": session.hub})
    return None


def _refuse_file(session: Session) -> None:
    if not session.hub.startswith(ACCOUNT):
        raise UsageProblem(f"--hub: {session.hub!r} is no hub in Azure Storage; give {ACCOUNT}NAME.")


def _finisher(application: str) -> "EpisodeFinisher":
    from holdtrue.cli.loading import load_app, parse_app
    from holdtrue.engine.finishing import EpisodeFinisher

    return EpisodeFinisher(load_app(parse_app(application)))


def _tell(session: Session, settled: "Settled") -> ExitCode | None:
    obstacles = [{"instance_id": one.instance_id, "reason": one.reason} for one in settled.obstacles]
    if session.out.json:
        session.out.document({"settled": settled.done, "ready": len(settled.ready), "obstacles": obstacles})
    else:
        for one in settled.obstacles:
            session.out.note(f"{one.instance_id}: {one.reason}")
        if settled.done:
            left = f"; {len(obstacles)} are left as they are" if obstacles else ""
            session.out.say(f"Settled: .NET can go on with {len(settled.ready)} instances{left}.", {})
        else:
            session.out.say(
                f"Nothing was handed over: .NET cannot go on with {len(obstacles)} instances. Let a host of Holdtrue "
                "bring them to where they can, or add --leave.",
                {},
            )
    return None if settled.done else ExitCode.REFUSED
