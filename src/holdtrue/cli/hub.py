"""Commands on a whole hub: figures, backup, restore."""

from pathlib import Path
from typing import Annotated

import typer

from holdtrue.cli.app import Session, command
from holdtrue.cli.exits import CommandError, ExitCode


@command("info")
def info(session: Session) -> ExitCode | None:
    """Show the hub's figures.

    Instances by status, messages, activities, dead letters, workers that serve it, size.
    """
    with session.client() as client:
        figures = client.info()
    instances = {_status(name): count for name, count in figures.instances.items()}
    document = {
        "hub": session.hub,
        "instances": instances,
        "messages": figures.messages,
        "activities": figures.activities,
        "dead_letters": figures.dead_letters,
        "workers": list(figures.hosts),
        "bytes": figures.size,
        "schema_version": figures.schema_version,
    }
    if session.out.json:
        session.out.document(document)
        return None
    session.out.fields(
        [
            ("Hub", session.hub),
            ("Instances", str(sum(instances.values()))),
            *((f"  {status}", str(count)) for status, count in sorted(instances.items()) if count),
            ("Messages", str(figures.messages)),
            ("Activities", str(figures.activities)),
            ("Dead letters", (str(figures.dead_letters), "red" if figures.dead_letters else "")),
            ("Workers", ", ".join(figures.hosts) or "none"),
            ("Size", _size(figures.size)),
            ("Schema version", str(figures.schema_version)),
        ]
    )
    return None


def _status(name: str) -> str:
    """The family's spelling of a status's name."""
    from holdtrue.cli.views import STATUS_NAMES
    from holdtrue.core.projection import Status

    return STATUS_NAMES[Status[name]]


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{count} bytes" if unit == "bytes" else f"{size:.1f} {unit}"


@command("backup")
def backup(
    session: Session,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="The file to write.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Take the place of a file that is there.")] = False,
) -> ExitCode | None:
    """Write a copy of the hub while work goes on."""
    from holdtrue.cli.backups import replacing

    session.require_hub()
    if target.exists() and (not force or target.is_dir()):
        hint = "Name a file in it." if target.is_dir() else "Name another file, or add --force."
        raise CommandError(f"{str(target)!r} exists already. {hint}", ExitCode.REFUSED)
    if target.exists() and target.samefile(session.hub_path()):
        raise CommandError("The backup cannot take the place of the hub itself; name another file.", ExitCode.REFUSED)
    # The old backup stays until the new one is whole.
    with replacing(target) as written, session.client() as client:
        client.backup(str(written))
    size = target.stat().st_size
    session.out.say(f"Wrote {target} ({_size(size)}).", {"operation": "backup", "target": str(target), "bytes": size})
    return None


@command("restore")
def restore(
    session: Session,
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="A file that `backup` wrote.", show_default=False)],
    force: Annotated[bool, typer.Option("--force", help="Take the place of the hub that is there.")] = False,
) -> ExitCode | None:
    """Make the hub from a backup.

    Stop all workers of the hub first.
    """
    from holdtrue.cli.backups import set_aside
    from holdtrue.stores.sqlite.backup import restore as restore_hub

    target = session.hub_path()
    if not source.is_file():
        raise CommandError(f"There is no file {str(source)!r}.", ExitCode.NOT_FOUND)
    if not target.exists():
        restore_hub(str(target), str(source))
    elif not force:
        raise CommandError(
            f"There is a hub {str(target)!r} already. Restore into another with --hub, or add --force to lose it.",
            ExitCode.REFUSED,
        )
    elif target.samefile(source):
        raise CommandError("The backup and the hub are one file; there is nothing to restore.", ExitCode.REFUSED)
    else:
        _refuse_busy(session)
        with set_aside(target):
            restore_hub(str(target), str(source))
    session.out.say(
        f"Restored {target} from {source}.", {"operation": "restore", "hub": str(target), "source": str(source)}
    )
    return None


def _refuse_busy(session: Session) -> None:
    """Raise CommandError while workers serve the hub; a damaged hub may be replaced."""
    from holdtrue.stores.errors import StoreCorrupt

    try:
        with session.client() as client:
            workers = client.info().hosts
    except StoreCorrupt:
        return
    if workers:
        raise CommandError(
            f"The hub {session.hub!r} is being served by {', '.join(workers)}. Stop these workers first.",
            ExitCode.REFUSED,
        )
