"""The fixtures for pytest, in a pytest of its own."""

import subprocess
import sys
from pathlib import Path

CONFTEST = """
import pytest
from tests.unit.testing.hub_apps import app

pytest_plugins = ["holdtrue.testing.pytest_plugin"]

@pytest.fixture
def holdtrue_app():
    return app
"""

TESTS = """
import asyncio
from datetime import datetime, timedelta
import pytest
from holdtrue.testing import TestHub, WaitsForever

def test_month(hub):
    assert hub.wait(hub.start("month")).output == "2026-01-31 00:00:00"

def test_a_new_hub_for_each_test(hub):
    assert list(hub.client.query()) == [] and hub.now.year == 2026

class TestOptions:
    @pytest.fixture
    def hub_options(self):
        return {"now": datetime(2030, 1, 1), "fakes": {"charge": lambda order: "fake"}}

    def test_options(self, hub):
        assert hub.now.year == 2030
        assert hub.wait(hub.start("trying")).output == "fake"

def test_async(async_hub):
    async def main():
        month = await async_hub.start("month")
        await async_hub.advance(timedelta(days=30))
        assert (await async_hub.status(month)).has_ended
    asyncio.run(main())

def test_failing(hub):
    hub.wait(hub.start("listen"))
"""


def _pytest(folder: Path, conftest: str, tests: str) -> str:
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_user.py").write_text(tests)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", folder, folder],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_fixtures_open_a_hub_for_each_test(tmp_path: Path) -> None:
    said = _pytest(tmp_path, CONFTEST, TESTS)
    assert "1 failed, 4 passed" in said, said
    assert "WaitsForever: what is awaited does not come: nothing is due any more" in said
    assert "waits for the event 'told' (hub.raise_event)" in said


def test_without_an_app_it_says_what_to_do(tmp_path: Path) -> None:
    said = _pytest(tmp_path, 'pytest_plugins = ["holdtrue.testing.pytest_plugin"]\n', "def test_it(hub): ...\n")
    assert "define a fixture `holdtrue_app` that returns it" in said, said
