"""Every test here runs against every store of `STORES`: a new store is one more line."""

from pathlib import Path

import pytest

from holdtrue.environment import Environment
from holdtrue.stores.memory import MemoryHub, MemoryStore, read_backup
from holdtrue.stores.protocol import TaskHubStore
from tests.conformance.acting import Hub, Opener


def _sqlite(place: Path, environment: Environment, lease: float) -> TaskHubStore:
    from holdtrue.stores.sqlite import SqliteStore

    return SqliteStore(str(place / "hub.db"), environment=environment, lease_seconds=lease)


_in_memory: dict[Path, MemoryHub] = {}


def _memory(place: Path, environment: Environment, lease: float) -> TaskHubStore:
    if place not in _in_memory:
        copy = place / "hub.db"
        _in_memory[place] = read_backup(str(copy)) if copy.exists() else MemoryHub()
    return MemoryStore(_in_memory[place], environment=environment, lease_seconds=lease)


STORES: dict[str, Opener] = {
    "sqlite": _sqlite,
    "memory": _memory,
}


@pytest.fixture(params=STORES)
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Hub:
    """A new, empty task hub."""
    _in_memory.clear()
    return Hub(STORES[request.param], tmp_path)
