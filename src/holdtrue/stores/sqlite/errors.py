"""From SQLite's errors to the store's typed ones: what happened to which hub, and what to do."""

import apsw
import msgspec

from holdtrue.core.errors import HoldtrueError
from holdtrue.stores import errors

from . import waiting


def translate(error: Exception, path: str) -> Exception:
    """The typed error for whatever went wrong; one that is typed comes back as it is."""
    if isinstance(error, HoldtrueError):
        return error
    if isinstance(error, apsw.Error):
        typed = _translate(error, path)
    elif isinstance(error, msgspec.DecodeError | UnicodeDecodeError):
        typed = unreadable(error, path)
    else:
        typed = errors.StoreError(
            f"hub {path!r}: {type(error).__name__}: {error}; nothing of this call was written. The file may be damaged "
            "(`pragma integrity_check` tells), else this is a defect of Holdtrue: please report it"
        )
    typed.__cause__ = error
    return typed


def unreadable(error: Exception, path: str) -> errors.StoreCorrupt:
    """The error for a row that holds what no store of ours writes."""
    return errors.StoreCorrupt(
        f"hub {path!r} holds what cannot be read ({error}): the file is damaged, or another program wrote to it. "
        "Restore a backup (`holdtrue restore`)"
    )


def _translate(error: apsw.Error, path: str) -> errors.StoreError:
    if isinstance(error, apsw.FullError):
        return errors.StoreUnavailable(
            f"hub {path!r}: the disk is full; nothing of this call was written. Free some space: work then goes on"
        )
    if isinstance(error, apsw.ReadOnlyError | apsw.PermissionsError | apsw.AuthError):
        return errors.StoreUnavailable(
            f"hub {path!r} cannot be written (read-only file, directory or disk); nothing of this call was "
            "written. Make the file, those beside it (-wal, -shm) and its directory writable: work then goes on"
        )
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        holder = waiting.holder(path)
        return errors.StoreUnavailable(
            f"hub {path!r} is locked by {holder or 'another program'}; nothing of this call was written. "
            f"{holder.advice() if holder else 'End its transaction'}: work then goes on"
        )
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return errors.StoreCorrupt(
            f"hub {path!r} is damaged or no SQLite file ({error}). Restore a backup (`holdtrue restore`)"
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
