"""An Azure Storage account in memory: it answers as the real service does, in the time of an `Environment`.

Several hosts of a simulation share one `StorageModel`; what each of them meets on its way there is a
`FaultyService` of its own (`storage_faults`).
"""

from urllib.parse import quote

from holdtrue.environment import Environment
from holdtrue.stores.azure_storage.service import Blobs, Queues, Tables

from .storage_account import AZURITE, REAL, Account, Manner
from .storage_blobs import ModelBlobs
from .storage_queues import ModelQueues
from .storage_tables import ModelTables

__all__ = ["AZURITE", "REAL", "Manner", "StorageModel"]


class StorageModel:
    """The account, as the port `Service` says.

    Its clock is that of `environment`, which should be the service's own: hosts whose clock is wrong have theirs.
    Pages, receipts and ids come from the environment's chance.  `manner` is `REAL` or `AZURITE`.
    """

    def __init__(self, environment: Environment, *, manner: Manner = REAL, name: str = "model") -> None:
        self.account = Account(environment, manner)
        self.tables: Tables = ModelTables(self.account)
        self.queues: Queues = ModelQueues(self.account)
        self.blobs: Blobs = ModelBlobs(self.account)
        self._name = name

    async def open(self) -> None:
        """Nothing is to be done: who opens and closes it shares it with others."""

    async def close(self) -> None:
        """It keeps what it holds."""

    def blob_url(self, container: str, blob: str) -> str:
        """The absolute URL of a blob."""
        return f"https://{self._name}.blob.core.windows.net/{container}/{quote(blob)}"
