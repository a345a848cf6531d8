"""What is done about a sync that failed: the log is written again.

The system drops what it could not write, and a later sync succeeds without it.  Commits before it that waited
for a sync would then be missing on the disk, and all that stands after them in the log would be lost with them
at a power cut.  What the log holds can still be read: written once more, it is due for the next sync.
"""

import apsw

_BYTES = 1 << 16
"""SQLite moves less than twice as much in one call."""


def write_log_again(path: str) -> None:
    """Write the log of the hub at `path` over itself, and sync it; the caller holds the hub's write lock.

    Raises apsw.Error where the disk still fails.
    """
    # By SQLite's own means: they know of the locks that this process holds.
    log = apsw.VFSFile("", f"{path}-wal", [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE, 0])
    try:
        size = log.xFileSize()
        for at in range(0, size, _BYTES):
            log.xWrite(log.xRead(min(_BYTES, size - at), at), at)
        log.xSync(apsw.SQLITE_SYNC_NORMAL)
    finally:
        log.xClose()
