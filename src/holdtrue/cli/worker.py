"""`holdtrue run`: a worker that serves an application's orchestrations and activities."""

import logging
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdtrue.cli.app import ACCOUNT, Session, command
from holdtrue.cli.exits import CommandError, ExitCode, UsageProblem
from holdtrue.cli.loading import AppName, load_app, parse_app
from holdtrue.cli.output import counted, is_terminal
from holdtrue.cli.values import optional_seconds

if TYPE_CHECKING:
    from holdtrue.authoring.app import App
    from holdtrue.engine.settings import HostSettings


class LogLevel(StrEnum):
    """How much a worker tells on standard error."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@command("run")
def run(
    session: Session,
    app: Annotated[
        str,
        typer.Argument(
            metavar="APP", help="The application: module:attribute, or file.py[:attribute].", show_default=False
        ),
    ],
    reload: Annotated[
        bool, typer.Option("--reload", help="For development: start the worker anew when a Python file changes.")
    ] = False,
    reload_dirs: Annotated[
        list[Path] | None,
        typer.Option("--reload-dir", metavar="DIR", help="Watch this folder (default: the application's)."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--worker-name", metavar="TEXT", help="The worker's name in logs and `info`.")
    ] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="TAG", help="Also serve activities with this tag; may be given again."),
    ] = None,
    orchestrations: Annotated[
        int | None, typer.Option("--orchestrations", min=1, help="Orchestrations worked on at once.")
    ] = None,
    activities: Annotated[int | None, typer.Option("--activities", min=1, help="Activities running at once.")] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Threads for sync activities.")] = None,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="Processes for activities with cpu=True.")
    ] = None,
    drain: Annotated[
        str | None, typer.Option("--drain", metavar="DURATION", help="What runs may take so long to end at a stop.")
    ] = None,
    no_schedules: Annotated[bool, typer.Option("--no-schedules", help="Leave the schedules to other workers.")] = False,
    log_level: Annotated[LogLevel, typer.Option("--log-level", help="What is told on standard error.")] = LogLevel.INFO,
) -> ExitCode | None:
    """Serve an application until it is stopped.

    Ctrl-C or SIGTERM lets it drain and end; a second signal stops it at once.
    Makes the hub if it is not there. Any number of workers can serve one hub.
    """
    session.require_hub(create=True)
    where = parse_app(app)
    given: dict[str, Any] = {
        "name": name,
        "tags": tuple(tags) if tags else None,
        "active_instances": orchestrations,
        "activity_slots": activities,
        "activity_threads": threads,
        "activity_processes": processes,
        "drain_seconds": optional_seconds(drain, "--drain"),
        "schedules": False if no_schedules else None,
    }
    from holdtrue.cli.reloading import DRAIN_SECONDS, end_with_parent

    drain_seconds = DRAIN_SECONDS if given["drain_seconds"] is None else given["drain_seconds"]
    if reload:
        return _run_reloading(session, where, reload_dirs, drain_seconds)
    end_with_parent(drain_seconds)
    _log_to_stderr(log_level)
    loaded = load_app(where)
    from holdtrue.engine.settings import HostSettings

    given = _of_account(session.hub) | {key: value for key, value in given.items() if value is not None}
    settings = HostSettings(own_process=True, **given)
    _serve(session, loaded, f"{where.module}:{where.attribute}" if where.attribute else where.module, settings)
    return None


def _of_account(hub: str) -> dict[str, Any]:
    """What the host.json of a hub in an account says of its hosts; the command's options go before it."""
    if not hub.startswith(ACCOUNT):
        return {}
    from holdtrue.core.errors import InvalidInput
    from holdtrue.stores.azure_storage.opening import hub_and_settings

    try:
        _, settings = hub_and_settings(hub, os.environ)
    except InvalidInput as error:
        raise UsageProblem(f"--hub: {error}.") from None
    found = {"active_instances": settings.max_concurrent_orchestrations}
    found["activity_slots"] = found["activity_threads"] = settings.max_concurrent_activities
    return {key: value for key, value in found.items() if value is not None}


def _serve(session: Session, app: "App", title: str, settings: "HostSettings") -> None:
    from holdtrue.host import run as run_host

    counts = (
        f"{counted(len(app.orchestrators), 'orchestration', 'orchestrations')}, "
        f"{counted(len(app.activities), 'activity', 'activities')}"
    )
    session.out.say(
        f"Serving {title} ({counts}) on {session.hub}. Ctrl-C drains and stops.",
        {
            "event": "serving",
            "app": title,
            "hub": session.hub,
            "orchestrations": sorted(app.orchestrators),
            "activities": sorted(app.activities),
        },
    )
    run_host(app, session.hub, settings=settings)
    session.out.say("Stopped.", {"event": "stopped"})


def _run_reloading(session: Session, where: AppName, folders: list[Path] | None, drain: float) -> ExitCode | None:
    from holdtrue.cli.reloading import run_reloading, worker_command

    for folder in folders or ():
        if not folder.is_dir():
            raise CommandError(f"--reload-dir: {str(folder)!r} is not a folder.", ExitCode.USAGE)
    arguments = [argument for argument in sys.argv[1:] if argument != "--reload"]
    watched = [folder.resolve() for folder in folders] if folders else [where.folder]
    code = run_reloading(worker_command(arguments), watched, session.out.note, drain=drain)
    if code in (ExitCode.INTERRUPTED, ExitCode.STOPPED):
        return ExitCode(code)
    return ExitCode.OK if code in (0, -15) else ExitCode.FAILED


def _log_to_stderr(level: LogLevel) -> None:
    from time import gmtime

    form = "%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s"
    formatter = logging.Formatter(form, datefmt="%Y-%m-%dT%H:%M:%S")
    formatter.converter = gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if level is LogLevel.INFO and not is_terminal(sys.stderr):
        # A log file wants the engine's own words; libraries' only when something is wrong.
        for library in ("asyncio",):
            logging.getLogger(library).setLevel(logging.WARNING)
