"""Copies of a hub: made while work goes on, and put back where a hub was lost."""

import os

import apsw

from holdtrue.environment import REAL, Environment
from holdtrue.stores import errors

from .connection import check_version, connect, prepare, refuse_network, usable
from .errors import translate
from .presence import appear
from .statements import sql

_PAGES = 4_096
_DAMAGED = (apsw.CorruptError, apsw.NotADBError)


def copy(path: str, target: str) -> None:
    """A consistent copy of the hub at `path` in a new file `target`; raises StoreError where that exists."""
    target = usable(target)
    if os.path.exists(target):
        raise _exists(target)
    unfinished = _unfinished(target)
    source = connect(path)
    try:
        # One reading transaction over the whole copy: writers go on, and the copy never begins anew.
        source.execute("begin")
        source.execute(sql.mark).fetchall()
        _copy(source, unfinished)
        _publish(unfinished, target)
    except FileExistsError as error:
        raise _exists(target) from error
    except OSError as error:
        raise _unnamed(target, error) from error
    except apsw.Error as error:
        raise translate(error, path if isinstance(error, _DAMAGED) else target) from error
    finally:
        source.close(True)
        _remove(unfinished)


def restore(path: str, backup: str, *, environment: Environment = REAL) -> None:
    """Make the hub at `path` anew from a backup; nobody holds anything in it.

    Raises StoreError where a hub stands at `path` (move it away first) or is open, StoreCorrupt for a damaged
    backup, and the typed errors of opening a hub for one that is none.
    """
    path, backup = usable(path), usable(backup)
    refuse_network(path)
    if not os.path.exists(backup):
        raise errors.StoreMissing(f"backup {backup!r}: there is no such file")
    for there in (path, f"{path}-wal", f"{path}-journal"):
        if os.path.exists(there):
            raise errors.StoreError(f"hub {path!r}: {there!r} exists; stop its workers and move it away first")
    presence = appear(path, environment)
    try:
        presence.sweep()
        turn = presence.try_exclusive()
        if presence.others() or turn is None:
            raise errors.StoreError(f"hub {path!r} is open in another process; stop its workers and clients first")
        with turn:
            source = connect(backup)
            unfinished = _unfinished(path)
            try:
                check_version(source, backup)
                _check(source, backup)
                _copy(source, unfinished)
                _publish(unfinished, path)
            except FileExistsError as error:
                raise errors.StoreError(f"hub {path!r} was made by another process meanwhile; stop it first") from error
            except OSError as error:
                raise _unnamed(path, error) from error
            except apsw.Error as error:
                raise translate(error, backup if isinstance(error, _DAMAGED) else path) from error
            finally:
                source.close(True)
                _remove(unfinished)
    finally:
        presence.close()


def _exists(target: str) -> errors.StoreError:
    return errors.StoreError(f"backup {target!r}: there is such a file already; give the name of a new one")


def _unfinished(target: str) -> str:
    """A name for the file while it is written, that nobody else writes to."""
    return f"{target}.{REAL.new_id()}.unfinished"


def _publish(unfinished: str, target: str) -> None:
    """Give the finished file its name, for good, or not at all; raises FileExistsError where another has it."""
    try:
        os.link(unfinished, target)
    except FileExistsError:
        raise
    except OSError:
        # A file system without links.
        os.rename(unfinished, target)
    try:
        _remove(unfinished)
        directory = os.open(os.path.dirname(target), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError:
        os.unlink(target)
        raise


def _remove(unfinished: str) -> None:
    for left in (unfinished, f"{unfinished}-journal", f"{unfinished}-wal", f"{unfinished}-shm"):
        if os.path.exists(left):
            os.unlink(left)


def _unnamed(target: str, error: OSError) -> errors.StoreUnavailable:
    return errors.StoreUnavailable(
        f"copy {target!r}: the disk refuses to name it ({error.strerror}); there is no such file now. Look at the "
        "system's log, then try it again"
    )


def _check(source: apsw.Connection, backup: str) -> None:
    """Raise StoreCorrupt for a damaged file: what cannot be read whole must not take a hub's place."""
    try:
        found = [str(row[0]) for row in source.execute("pragma quick_check(3)")]
    except apsw.Error as error:
        found = [str(error)]
    if found != ["ok"]:
        raise errors.StoreCorrupt(f"backup {backup!r} is damaged ({'; '.join(found)}); restore another one")


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
        prepare(copied, target)
        copied.execute("begin immediate")
        copied.execute(sql.restored)
        copied.execute("commit")
    finally:
        copied.close()
