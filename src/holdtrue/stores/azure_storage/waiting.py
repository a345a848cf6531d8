"""Which instances wait for code or for a repair: rows of the hub's own table, one for each, by name.

A host that joins with new code wakes those that it can serve; nothing scans the histories for them.
"""

from .access import Access
from .names import escape_key, unescape_key
from .service import ANY, Do, Operation, Test

PARTITION = "waiting"


class WaitingInstances:
    """The instances that are held, or whose code nobody had."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._noted: set[str] = set()

    async def note(self, instance_id: str, name: str) -> None:
        """An instance of this orchestration waits."""
        operation = Operation(do=Do.REPLACE, partition=PARTITION, key=escape_key(instance_id), values={"Name": name})
        await self._access.write_own(operation)
        self._noted.add(instance_id)

    async def goes_on(self, instance_id: str) -> None:
        """It waits no more (a stale note would only cost a look)."""
        if instance_id in self._noted:
            self._noted.discard(instance_id)
            await self._access.delete_own(
                Operation(do=Do.DELETE, partition=PARTITION, key=escape_key(instance_id), etag=ANY)
            )

    async def all(self) -> dict[str, str]:
        """All instances that are noted, each with its orchestration; some may have gone on since."""
        rows = await self._access.query_own(Test("PartitionKey", "eq", PARTITION))
        found = {unescape_key(row.key): str(row.values.get("Name") or "") for row in rows}
        self._noted.update(found)
        return found

    async def of(self, names: frozenset[str]) -> list[str]:
        """The instances of these orchestrations that wait; they are noted here from now on."""
        found = []
        for row in await self._access.query_own(Test("PartitionKey", "eq", PARTITION)):
            if row.values.get("Name") in names:
                found.append(unescape_key(row.key))
        self._noted.update(found)
        return found
