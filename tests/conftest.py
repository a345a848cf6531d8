"""One emulator for the tests of a process that want one; each test works in an account of its own.  Nothing here
depends on the machine's speed, and so generated examples may take their time."""

import gc
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tools.azurite import Azurite, start


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="all of what is played in part else: make soak")


settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_sessionstart() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """Six thousand tests are a million objects, which stay: no collection need look at them."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """A running Azurite."""
    with start() as running:
        yield running
