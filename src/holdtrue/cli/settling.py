"""Handing a hub in Azure Storage over to .NET."""

import asyncio
import os
from typing import TYPE_CHECKING, Annotated

import typer

from holdtrue.cli.app import Session, command, group
from holdtrue.cli.exits import ExitCode, UsageProblem

if TYPE_CHECKING:
    from holdtrue.engine.finishing import EpisodeFinisher
    from holdtrue.stores.azure_storage.settling import Settled

commands = group("hub", "Hubs in Azure Storage: hand one over to .NET workers.")


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
    from holdtrue.stores.azure_storage.opening import SCHEME, open_hub

    if not session.hub.startswith(SCHEME):
        raise UsageProblem(f"--hub: {session.hub!r} is no hub in Azure Storage; give {SCHEME}NAME.")
    from holdtrue.environment import REAL

    store = open_hub(session.hub, REAL, os.environ)
    finisher = None if application is None else _finisher(application)

    async def run() -> "Settled":
        await store.open()
        try:
            return await store.settle(finisher, leave=leave)
        finally:
            await store.close()

    return _tell(session, asyncio.run(run()))


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
