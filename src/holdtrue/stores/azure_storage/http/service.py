"""The account over HTTP."""

from holdtrue.environment import REAL, Environment
from holdtrue.stores.azure_storage.service import Blobs, Queues, Tables

from .blobs import HttpBlobs, blob_path
from .connection import Connection
from .queues import HttpQueues
from .requests import Requests
from .tables import HttpTables


class HttpService:
    """A storage account, as the port `Service` says.

    `timeout` is how many seconds a request may take before its outcome counts as unknown; at most `at_once` are under
    way.  Between `open` and
    `close` it belongs to one event loop.
    """

    def __init__(
        self,
        connection: Connection,
        environment: Environment = REAL,
        *,
        timeout: float = 30.0,
        at_once: int | None = None,
    ) -> None:
        self._requests = Requests(connection, environment, timeout=timeout, at_once=at_once)
        self.tables: Tables = HttpTables(self._requests, environment)
        self.queues: Queues = HttpQueues(self._requests)
        self.blobs: Blobs = HttpBlobs(self._requests)

    async def open(self) -> None:
        """Connect: connections are made as they are needed."""
        await self._requests.open()

    async def close(self) -> None:
        """Give the connections back; idempotent."""
        await self._requests.close()

    def blob_url(self, container: str, blob: str) -> str:
        """The absolute URL of a blob."""
        return self._requests.connection.blob.url + blob_path(container, blob)
