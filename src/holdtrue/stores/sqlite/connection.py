"""Opens connections to the hub's file: where it may lie, its settings, its schema version.

Knows nothing of what the tables mean.  The file itself is only ever opened by SQLite: closing any other
descriptor of it would drop the locks that SQLite holds for this process.
"""

import os
import re
import stat
import sys
from collections.abc import Mapping

import apsw

from holdtrue.core.errors import InvalidInput
from holdtrue.stores import errors

from . import statements
from .errors import translate

SCHEMA_VERSION = 1
APPLICATION_ID = 0x486F6C64
BUSY_MILLISECONDS = 10_000

_SETTINGS = "pragma cache_size = -65536; pragma temp_store = memory; pragma mmap_size = 0; pragma foreign_keys = off"
_NETWORK = frozenset(
    "nfs nfs4 cifs smb smb2 smb3 smbfs 9p afs ceph glusterfs lustre gpfs ocfs2 gfs2 ncpfs beegfs orangefs coda davfs "
    "vboxsf vmhgfs prl_fs fuse.sshfs fuse.glusterfs fuse.ceph fuse.ceph-fuse fuse.s3fs fuse.rclone fuse.gcsfuse "
    "fuse.davfs fuse.blobfuse fuse.blobfuse2 fuse.goofys fuse.juicefs fuse.vmhgfs-fuse fuse.moosefs".split()
)
"""Also folders that a virtual machine shares with its host: their locks are as little to be trusted."""
_OCTAL = re.compile(rb"\\([0-7]{3})")


def usable(path: str) -> str:
    """The one absolute path of a hub's file, whatever links lead there; raises InvalidInput where there can be none."""
    try:
        path.encode()
        if not path:
            raise ValueError("it is empty")
        return os.path.realpath(path)
    except ValueError as error:
        raise InvalidInput(f"{path!r} cannot be the path of a hub ({error}); choose another one") from error


def check_place(path: str) -> None:
    """Raise StoreUnavailable for a directory, a file that may not be written, and a file that has other names.

    SQLite would open a read-only file, and make a log beside it that stays read-only.  Under each of several
    names it would keep a log of its own: what one process writes, those under the other name would lose.
    """
    try:
        found = os.stat(path)
    except OSError:
        return
    if stat.S_ISDIR(found.st_mode):
        raise errors.StoreUnavailable(f"hub {path!r} is a directory; give the path of a file in it")
    if not os.access(path, os.R_OK | os.W_OK):
        raise translate(apsw.ReadOnlyError(), path)
    if found.st_nlink > 1:
        raise errors.StoreUnavailable(
            f"hub {path!r} has {found.st_nlink} names (hard links), and a log beside each. Remove the other names "
            "(a copy is made by `holdtrue backup`), then open it again"
        )


def refuse_network(path: str, mounts: str = "/proc/self/mounts") -> None:
    """Raise UnsuitableFileSystem where the file would lie on a network file system."""
    kind = _file_system(os.path.dirname(path), mounts)
    if kind in _NETWORK:
        raise errors.UnsuitableFileSystem(
            f"hub {path!r} lies on a network file system ({kind}), where locks and syncs cannot be trusted. "
            "Put it on a local disk, or use the PostgreSQL store"
        )


def _file_system(directory: str, mounts: str) -> str | None:
    if not sys.platform.startswith("linux"):
        return None
    best, kind = "", None
    try:
        with open(mounts, "rb") as lines:
            for line in lines:
                fields = line.split()
                # Written as bytes, a space as \040.
                point = os.fsdecode(_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), fields[1]))
                inside = directory == point or directory.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best):
                    best, kind = point, os.fsdecode(fields[2])
    except (OSError, IndexError):
        return None
    return kind


def connect(path: str, *, create: bool = False, synchronous: str = "full") -> apsw.Connection:
    """A connection for writing; raises typed errors.  Only with `create` is a missing file made."""
    flags = apsw.SQLITE_OPEN_READWRITE
    if create:
        flags |= apsw.SQLITE_OPEN_CREATE
    try:
        connection = apsw.Connection(path, flags=flags, statementcachesize=256)
    except apsw.CantOpenError as error:
        if not create and not os.path.exists(path):
            raise missing(path) from error
        raise translate(error, path) from error
    except apsw.Error as error:
        raise translate(error, path) from error
    try:
        connection.set_busy_timeout(BUSY_MILLISECONDS)
        connection.execute(_SETTINGS)
        connection.execute({"full": "pragma synchronous = full", "normal": "pragma synchronous = normal"}[synchronous])
        # `checkpoints` does it, and is told where it fails.
        connection.wal_autocheckpoint(0)
    except apsw.Error as error:
        connection.close(True)
        raise translate(error, path) from error
    return connection


def connect_reader(path: str) -> apsw.Connection:
    """A connection that only reads."""
    connection = connect(path)
    connection.execute("pragma query_only = on; pragma cache_size = -16384")
    return connection


def shut(connection: apsw.Connection) -> None:
    """Close a connection, whatever the disk says: what it fails to bring from the log into the file stays there."""
    try:
        connection.close()
    except apsw.Error:
        connection.close(True)


def missing(path: str) -> errors.StoreMissing:
    """The error for a hub's file that is gone."""
    return errors.StoreMissing(
        f"hub {path!r}: the file (or its -wal or -shm beside it) is gone or was replaced while the hub was open; "
        "nothing of this call was kept. Put it back, or restore a backup, and open the hub again"
    )


def outdated(path: str) -> errors.SchemaTooNew:
    """The error for a hub that was migrated while it was open."""
    return errors.SchemaTooNew(
        f"hub {path!r} was brought to a later schema version while it was open; nothing of this call was written. "
        "Start again with the newer Holdtrue that did it"
    )


def prepare(connection: apsw.Connection, path: str, steps: Mapping[int, str] | None = None) -> None:
    """Make the tables of a new hub, or bring an older one up to this version.

    Raises SchemaTooNew for a hub of a later version, StoreCorrupt for a file that is no hub.
    `steps` are the migrations (for tests: others than ours).
    """
    steps = statements.migrations() if steps is None else steps
    newest = max([SCHEMA_VERSION, *steps])
    try:
        if _version(connection, path, newest) == newest:
            return
        if not connection.execute("select 1 from sqlite_schema limit 1").fetchone():
            connection.execute("pragma page_size = 4096; pragma auto_vacuum = incremental; pragma journal_mode = wal")
        connection.execute("begin immediate")
        try:
            # Another process may have done it while we waited.
            version = _version(connection, path, newest)
            if version == 0:
                connection.execute(statements.schema())
                connection.execute(f"pragma application_id = {APPLICATION_ID}")
                version = SCHEMA_VERSION
            for step in range(version + 1, newest + 1):
                connection.execute(steps[step])
            connection.execute(f"pragma user_version = {newest}")
            connection.execute(statements.sql.set_version, (newest,))
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise
    except apsw.Error as error:
        raise translate(error, path) from error


def check_version(connection: apsw.Connection, path: str) -> None:
    """Raise SchemaTooNew for a hub of a later version, StoreCorrupt for a file that is no hub.  Writes nothing."""
    try:
        version = _version(connection, path, SCHEMA_VERSION)
    except apsw.Error as error:
        raise translate(error, path) from error
    if not version:
        raise errors.StoreCorrupt(f"{path!r} is an empty file, and no Holdtrue hub; choose another path")


def _version(connection: apsw.Connection, path: str, newest: int) -> int:
    version = connection.execute("pragma user_version").get
    application = connection.execute("pragma application_id").get
    if version == 0 and application == 0:
        if connection.execute("select 1 from sqlite_schema limit 1").fetchone():
            raise errors.StoreCorrupt(f"{path!r} is an SQLite file, but no Holdtrue hub; choose another path")
        return 0
    if application != APPLICATION_ID:
        raise errors.StoreCorrupt(f"{path!r} is an SQLite file of another application; choose another path")
    if version > newest:
        raise errors.SchemaTooNew(
            f"hub {path!r} has schema version {version}, this Holdtrue knows up to {newest}: "
            "use the newer Holdtrue that wrote it"
        )
    return int(version)
