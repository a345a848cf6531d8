"""From SQLite's errors to the store's typed ones: what happened to which hub, and what to do."""

import apsw

from holdtrue.stores import errors


def translate(error: Exception, path: str) -> Exception:
    """The typed error for one of SQLite's; any other comes back as it is."""
    if not isinstance(error, apsw.Error):
        return error
    typed = _translate(error, path)
    typed.__cause__ = error
    return typed


def _translate(error: apsw.Error, path: str) -> errors.StoreError:
    if isinstance(error, apsw.FullError):
        return errors.StoreUnavailable(
            f"hub {path!r}: the disk is full; nothing of this call was written. Free some space: work then goes on"
        )
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError | apsw.AuthError):
        return errors.StoreUnavailable(
            f"hub {path!r} cannot be written (read-only file, directory or disk); nothing of this call was "
            "written. Make the file and its directory writable: work then goes on"
        )
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return errors.StoreUnavailable(
            f"hub {path!r} is locked by another program; nothing of this call was written. "
            "End that program's transaction: work then goes on"
        )
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return errors.StoreCorrupt(
            f"hub {path!r} is damaged or no SQLite file ({error}). Restore a backup (`holdtrue.stores.sqlite.restore`)"
        )
    if isinstance(error, apsw.CantOpenError):
        return errors.StoreUnavailable(
            f"hub {path!r} cannot be opened. See that its directory exists and that this user may write there"
        )
    if isinstance(error, apsw.TooBigError):
        return errors.StoreError(f"hub {path!r}: a value is over SQLite's limit of 10⁹ bytes; make it smaller")
    if isinstance(error, apsw.IOError):
        return errors.StoreUnavailable(
            f"hub {path!r}: the disk reports an error ({error}); nothing of this call was written. "
            "Look at the system's log; work goes on when the disk does"
        )
    if isinstance(error, apsw.SQLError):
        return errors.StoreCorrupt(
            f"hub {path!r} does not have the tables of a hub ({error}). Is this file a hub? Else restore a backup"
        )
    return errors.StoreError(f"hub {path!r}: {type(error).__name__}: {error}")
