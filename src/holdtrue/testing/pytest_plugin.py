"""Fixtures for pytest: `hub` for sync tests, `async_hub` for async ones, whatever plugin runs those.

To be asked for: `pytest_plugins = ["holdtrue.testing.pytest_plugin"]` in the conftest.py at the root, or in the module
of the tests.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from holdtrue.authoring.app import App
from holdtrue.testing import AsyncTestHub, TestHub


@pytest.fixture
def holdtrue_app() -> App:
    """The app under test: each project defines this fixture."""
    raise pytest.UsageError(
        "the fixtures of holdtrue need your app: define a fixture `holdtrue_app` that returns it, in the conftest.py"
    )


@pytest.fixture
def hub_options() -> dict[str, Any]:
    """The options of `TestHub`, by name (`fakes`, `now`, `seed`, `schedules`); to be overridden where wanted."""
    return {}


@pytest.fixture
def hub(holdtrue_app: App, hub_options: dict[str, Any]) -> Iterator[TestHub]:
    """A hub in virtual time for a sync test, with one host of `holdtrue_app`."""
    with TestHub(holdtrue_app, **hub_options) as opened:
        yield opened


@pytest.fixture
def async_hub(holdtrue_app: App, hub_options: dict[str, Any]) -> Iterator[AsyncTestHub]:
    """The same for an `async def` test: its methods are awaited."""
    opened = AsyncTestHub(TestHub(holdtrue_app, **hub_options))
    opened.open()
    try:
        yield opened
    finally:
        opened.close()
