"""A task hub in this process's memory, for tests, simulations and work that may go with the process."""

from .backup import read as read_backup
from .hub import MemoryHub
from .store import MemoryStore

__all__ = ["MemoryHub", "MemoryStore", "named_hub", "read_backup"]

_NAMED: dict[str, MemoryHub] = {}


def named_hub(name: str) -> MemoryHub:
    """The hub of this name, which all of this process share; `""` gives a fresh one of one's own."""
    if not name:
        return MemoryHub()
    hub = _NAMED.get(name)
    if hub is None:
        hub = _NAMED[name] = MemoryHub(f"memory:{name}")
    return hub
