"""A hub that is there, and the fake client that answers for it."""

from pathlib import Path

import pytest

from tests.unit.cli.support import FakeClient


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a hub's file in it, made the current one; no client ever opens it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HOLDTRUE_HUB", raising=False)
    path = tmp_path / "holdtrue.db"
    path.touch()
    return path


@pytest.fixture
def client(hub: Path, monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """The client that every command gets."""
    fake = FakeClient()
    monkeypatch.setattr("holdtrue.cli.app.open_client", lambda name: fake)
    return fake
