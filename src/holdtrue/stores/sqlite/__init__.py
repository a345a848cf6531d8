"""The task hub in an SQLite file: the embedded default."""

from .backup import restore
from .store import SqliteStore

__all__ = ["SqliteStore", "restore"]
