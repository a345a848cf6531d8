"""One emulator for the tests of a process; each test works in an account of its own."""

from collections.abc import Iterator

import pytest

from tests.azurite.running import Azurite, start


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """A running Azurite."""
    running = start()
    yield running
    running.stop()
