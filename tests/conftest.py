"""One emulator for the tests of a process that want one; each test works in an account of its own."""

from collections.abc import Iterator

import pytest

from tools.azurite import Azurite, start


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """A running Azurite."""
    running = start()
    yield running
    running.stop()
