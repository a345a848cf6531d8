"""Every test here runs against every store of `STORES`: a new store is one more line."""

from pathlib import Path

import pytest

from holdtrue.environment import Environment
from holdtrue.stores.protocol import TaskHubStore
from tests.conformance.acting import Hub, Opener


def _sqlite(place: Path, environment: Environment, lease: float) -> TaskHubStore:
    from holdtrue.stores.sqlite import SqliteStore

    return SqliteStore(str(place / "hub.db"), environment=environment, lease_seconds=lease)


STORES: dict[str, Opener] = {
    "sqlite": _sqlite,
}


@pytest.fixture(params=STORES)
def hub(request: pytest.FixtureRequest, tmp_path: Path) -> Hub:
    """A new, empty task hub."""
    return Hub(STORES[request.param], tmp_path)
