"""From a hub's URL to its store."""

import os
from urllib.parse import unquote

from holdtrue.core.errors import InvalidInput
from holdtrue.environment import REAL, Environment

from .protocol import TaskHubStore


def open_store(
    hub: str | os.PathLike[str] | TaskHubStore, environment: Environment = REAL, *, lease_seconds: float = 120.0
) -> TaskHubStore:
    """The store for a path, a `sqlite:///path` URL, or a store itself; it is not opened yet.

    Raises InvalidInput for a URL of a kind that there is no store for.
    """
    if not isinstance(hub, (str, os.PathLike)):
        return hub
    text = os.fspath(hub)
    if not text:
        raise InvalidInput("the hub's URL is empty: give a path like 'hub.db', or 'sqlite:///hub.db'")
    scheme, mark, rest = text.partition("://")
    if mark:
        if scheme != "sqlite":
            raise InvalidInput(f"there is no store for {scheme!r} hubs: give a path, or 'sqlite:///path'")
        text = unquote(rest.removeprefix("/"))
        if not text:
            raise InvalidInput(f"the hub's URL {os.fspath(hub)!r} names no file: give 'sqlite:///path'")
    from .sqlite import SqliteStore

    return SqliteStore(text, environment=environment, lease_seconds=lease_seconds)
