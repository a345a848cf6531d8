"""Files of hubs as wholes: what is new takes its place only when it is whole, and what was there is back otherwise.

Only SQLite opens these files: closing any other descriptor of one would drop the locks of this process on it.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from holdtrue.cli.exits import CommandError, ExitCode

_PARTS = ("", "-wal", "-shm")
"""A hub's file, and what SQLite may keep beside it."""


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A name beside `target` to write to, which takes its place when all went well and is gone otherwise."""
    if not target.parent.is_dir():
        raise CommandError(f"There is no folder {str(target.parent)!r}; make it first.", ExitCode.USAGE)
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise CommandError(f"This user may not write in {str(target.parent)!r}; name another file.", ExitCode.FAILED)
    written = target.with_name(f".{target.name}.{os.getpid()}.new")
    written.unlink(missing_ok=True)
    try:
        yield written
        written.replace(target)
        sync_folder(target.parent)
    finally:
        written.unlink(missing_ok=True)


@contextlib.contextmanager
def set_aside(hub: Path) -> Iterator[None]:
    """Move a hub out of the way, to be deleted when all went well and put back otherwise."""
    moved: list[tuple[Path, Path]] = []
    try:
        for part in _PARTS:
            here, away = Path(f"{hub}{part}"), Path(f"{hub}.replaced{part}")
            if here.exists():
                here.rename(away)
                moved.append((here, away))
        yield
    except BaseException:
        for here, away in moved:
            away.rename(here)
        raise
    sync_folder(hub.absolute().parent)
    for _, away in moved:
        away.unlink()


def sync_folder(folder: Path) -> None:
    """Make changes of names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
