"""Which instances wait for code or for a repair: rows of the hub's own table, one for each, by name.

Whoever gets a partition wakes those of it that it has the code of (`waking`); nothing scans the histories for them.
"""

from collections.abc import Callable, Set

from holdtrue.core.projection import Condition

from .access import Access
from .names import escape_key, unescape_key
from .sentinel import State
from .service import ANY, Do, Operation, Test

PARTITION = "waiting"


class WaitingInstances:
    """The instances that are held, or whose code nobody had."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._noted: set[str] = set()
        self._tried: dict[str, tuple[int, Condition | None]] = {}
        """Those that wait although this process has tried: how much history they had then, and why they wait."""
        self._doubtful: set[str] = set()
        """Those of them that another may have had since."""

    async def note(self, instance_id: str, name: str) -> None:
        """An instance of this orchestration is about to wait.

        Before that is written of it: a note too much costs a look, one that is missing would leave it for ever.
        """
        operation = Operation(do=Do.REPLACE, partition=PARTITION, key=escape_key(instance_id), values={"Name": name})
        await self._access.write_own(operation)
        self._noted.add(instance_id)

    def tried(self, instance_id: str, state: State) -> None:
        """It waits, as its sentinel says, although this process has tried."""
        self._tried[instance_id] = state.rows, state.condition

    def doubt(self, which: Callable[[str], bool]) -> None:
        """Others may have had these since."""
        self._doubtful.update(filter(which, self._tried))

    async def has_tried(self, instance_id: str) -> bool:
        """Whether it waits although this process has tried what there is.  Raises StoreError."""
        before = self._tried.get(instance_id)
        if before is None or instance_id not in self._doubtful:
            return before is not None
        sentinel = await self._access.sentinel(instance_id)
        if sentinel is None or (sentinel.state.rows, sentinel.state.condition) != before:
            del self._tried[instance_id]
        self._doubtful.discard(instance_id)
        return instance_id in self._tried

    async def goes_on(self, instance_id: str) -> None:
        """It waits no more (a stale note would only cost a look)."""
        self._tried.pop(instance_id, None)
        self._doubtful.discard(instance_id)
        if instance_id in self._noted:
            self._noted.discard(instance_id)
            await self._access.delete_own(
                Operation(do=Do.DELETE, partition=PARTITION, key=escape_key(instance_id), etag=ANY)
            )

    async def all(self) -> dict[str, str]:
        """All instances that are noted, each with its orchestration; some may have gone on since."""
        before = self._noted | self._tried.keys()
        rows = await self._access.query_own(Test("PartitionKey", "eq", PARTITION))
        found = {unescape_key(row.key): str(row.values.get("Name") or "") for row in rows}
        for instance_id in before - found.keys():  # it has gone on elsewhere
            self._noted.discard(instance_id)
            self._tried.pop(instance_id, None)
            self._doubtful.discard(instance_id)
        self._noted.update(found)
        return found

    async def of(self, names: Set[str]) -> list[str]:
        """The instances of these orchestrations that wait."""
        return [instance_id for instance_id, name in (await self.all()).items() if name in names]
