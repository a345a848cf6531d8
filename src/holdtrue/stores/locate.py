"""From a hub's URL to its store."""

import os
import re
from urllib.parse import unquote

from holdtrue.core.errors import InvalidInput
from holdtrue.environment import REAL, Environment

from .protocol import TaskHubStore

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)


def open_store(
    hub: str | os.PathLike[str] | TaskHubStore,
    environment: Environment = REAL,
    *,
    lease_seconds: float = 120.0,
    read_only: bool = False,
) -> TaskHubStore:
    """The store for a path, a `sqlite:///path` URL, or a store itself; it is not opened yet.

    `memory:` gives a hub in memory of one's own, `memory:NAME` the one of this name in this process;
    `azure-storage:HUB` is a task hub in the account that `AzureWebJobsStorage` connects to.  With `read_only`
    a file is never written to, and need not be writable: whatever would change the hub raises StoreUnavailable.
    Raises InvalidInput for a URL of a kind that there is no store for.
    """
    if not isinstance(hub, (str, os.PathLike)):
        return hub
    text = os.fspath(hub)
    if not text:
        raise InvalidInput("the hub's URL is empty: give a path like 'hub.db', or 'sqlite:///hub.db'")
    if text.startswith("memory:") and not text.startswith("memory:/"):
        from .memory import MemoryStore, named_hub

        return MemoryStore(
            named_hub(text.removeprefix("memory:")), environment=environment, lease_seconds=lease_seconds
        )
    if text.startswith("azure-storage:"):
        from .azure_storage.opening import open_hub

        return open_hub(text, environment, os.environ)
    if text == ":memory:":
        raise InvalidInput("':memory:' is no file: give 'memory:' for a hub in memory, or the path of a file")
    url = _URL.fullmatch(text)
    if url is not None:
        scheme, rest = url.groups()
        if scheme != "sqlite":
            raise InvalidInput(f"there is no store for {scheme!r} hubs: give a path, or 'sqlite:///path'")
        text = unquote(rest.removeprefix("/"))
        if not text or not rest.startswith("/"):
            raise InvalidInput(
                f"the hub's URL {os.fspath(hub)!r} names no file of this machine: give 'sqlite:///path', or "
                "'sqlite:////path' for one that begins at the root"
            )
    from .sqlite import ReadOnlySqliteStore, SqliteStore

    if read_only:
        return ReadOnlySqliteStore(text, environment=environment)
    return SqliteStore(text, environment=environment, lease_seconds=lease_seconds)
