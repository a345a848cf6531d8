"""The task hub in an SQLite file: the embedded default."""

from .backup import restore
from .read_only import ReadOnlySqliteStore
from .store import SqliteStore

__all__ = ["ReadOnlySqliteStore", "SqliteStore", "restore"]
