"""Copies of a hub: made while work goes on, and put back where a hub was lost."""

import os

import apsw

from holdtrue.environment import REAL, Environment
from holdtrue.stores import errors

from .connection import connect, prepare, refuse_network
from .errors import translate
from .presence import Presence
from .statements import sql

_PAGES = 4_096


def copy(path: str, target: str) -> None:
    """A consistent copy of the hub at `path` in a new file `target`; raises StoreError where that exists."""
    target = os.path.abspath(target)
    if os.path.exists(target):
        raise errors.StoreError(f"backup {target!r}: there is such a file already; give the name of a new one")
    unfinished = f"{target}.unfinished"
    source = connect(path)
    try:
        # One reading transaction over the whole copy: writers go on, and the copy never begins anew.
        source.execute("begin")
        source.execute(sql.mark).fetchall()
        _copy(source, unfinished)
        os.rename(unfinished, target)
    except apsw.Error as error:
        raise translate(error, target) from error
    finally:
        source.close(True)
        for left in (unfinished, f"{unfinished}-journal", f"{unfinished}-wal", f"{unfinished}-shm"):
            if os.path.exists(left):
                os.unlink(left)


def restore(path: str, backup: str, *, environment: Environment = REAL) -> None:
    """Make the hub at `path` anew from a backup; nobody holds anything in it.

    Raises StoreError where a hub stands at `path` (move it away first) or is open, and the typed errors of
    opening a hub for a backup that is none.
    """
    path, backup = os.path.abspath(path), os.path.abspath(backup)
    refuse_network(path)
    if not os.path.exists(backup):
        raise errors.StoreMissing(f"backup {backup!r}: there is no such file")
    for there in (path, f"{path}-wal"):
        if os.path.exists(there):
            raise errors.StoreError(f"hub {path!r}: {there!r} exists; stop its workers and move it away first")
    presence = Presence(path, environment)
    try:
        presence.sweep()
        if presence.others():
            raise errors.StoreError(f"hub {path!r} is open in another process; stop its workers and clients first")
        with presence.exclusive():
            source = connect(backup)
            try:
                prepare(source, backup)
                unfinished = f"{path}.unfinished"
                _copy(source, unfinished)
                os.rename(unfinished, path)
            except apsw.Error as error:
                raise translate(error, path) from error
            finally:
                source.close(True)
    finally:
        presence.close()


def _copy(source: apsw.Connection, target: str) -> None:
    if os.path.exists(target):
        os.unlink(target)
    copied = apsw.Connection(target)
    try:
        with copied.backup("main", source, "main") as running:
            while not running.done:
                running.step(_PAGES)
        # The copy is one file, without a log beside it, and nobody holds anything in it.
        copied.execute("pragma journal_mode = delete").fetchall()
        copied.execute("begin immediate")
        copied.execute(sql.restored)
        copied.execute("commit")
    finally:
        copied.close()
