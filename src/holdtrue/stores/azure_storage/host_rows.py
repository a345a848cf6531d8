"""The hosts of a hub and the code that they have: rows of the hub's own table, each renewed while its host lives.

Who reads a status learns from them whether anybody could go on with an instance.
"""

from collections import Counter
from collections.abc import Sequence

import msgspec

from holdtrue.core.events import TICKS_PER_SECOND, Ticks

from .access import Access, own_values
from .names import escape_key
from .sentinel import extra_text
from .service import ANY, Do, Operation, Test

PARTITION = "hosts"
RENEW_SECONDS = 60.0
"""So often a host says that it lives."""
DEAD_TICKS: Ticks = 3 * 60 * TICKS_PER_SECOND
"""One that has not said so for as long is gone."""
SHARED_SECONDS = 5.0
"""So often it is asked whether another host could take work."""
FRESH_SECONDS = 0.5
"""What was read is not read again within this."""


class HostRow(msgspec.Struct, frozen=True):
    """A host as its row tells it."""

    name: str
    orchestrators: list[str]
    queues: list[str]


class HostRows:
    """The hosts of a hub."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._found: list[tuple[Ticks, HostRow]] = []
        self._read_at: float | None = None
        self._mine: tuple[str, HostRow] | None = None
        self._written_at = 0.0
        self._elsewhere: frozenset[str] = frozenset()
        self._elsewhere_until = 0.0

    async def join(self, owner: str, name: str, orchestrators: Sequence[str], queues: Sequence[str]) -> None:
        """This process is a host, under an owner's name of its own, with this code."""
        self._mine = (owner, HostRow(name, sorted(orchestrators), sorted(queues)))
        await self._write()

    async def renew(self) -> None:
        """It lives; to be called now and then."""
        if self._mine is not None and self._access.environment.monotonic() - self._written_at >= RENEW_SECONDS:
            await self._write()

    async def _write(self) -> None:
        assert self._mine is not None
        owner, row = self._mine
        self._written_at = self._access.environment.monotonic()
        operation = Operation(do=Do.REPLACE, partition=PARTITION, key=escape_key(owner), values=extra_text(row))
        await self._access.write_own(operation)
        self._read_at = None

    async def leave(self) -> None:
        """It is a host no more."""
        if self._mine is not None:
            (owner, _), self._mine = self._mine, None
            self._read_at = None
            operation = Operation(do=Do.DELETE, partition=PARTITION, key=escape_key(owner), etag=ANY)
            await self._access.delete_own(operation)

    async def alive(self, *, anew: bool = False) -> list[HostRow]:
        """The hosts that live, as far as is known; with `anew` as they stand now."""
        now = self._access.environment.monotonic()
        if anew or self._read_at is None or now - self._read_at >= FRESH_SECONDS:
            rows = await self._access.query_own(Test("PartitionKey", "eq", PARTITION))
            self._found = [(row.timestamp, host) for row, host in own_values(rows, HostRow)]
            self._read_at = now
        clock = self._access.environment.now()
        return [host for at, host in self._found if clock - at < DEAD_TICKS]

    async def have_code(self, orchestrator: str) -> bool:
        """Whether some host has this orchestration."""
        return any(orchestrator in host.orchestrators for host in await self.alive())

    async def queues(self) -> frozenset[str]:
        """The activity queues that are served."""
        return frozenset(queue for host in await self.alive() for queue in host.queues)

    async def served_elsewhere(self) -> frozenset[str]:
        """The activity queues that another host than this one serves; asked for at most every few seconds."""
        now = self._access.environment.monotonic()
        if now >= self._elsewhere_until:
            counts = Counter(queue for host in await self.alive() for queue in host.queues)
            mine = () if self._mine is None else self._mine[1].queues
            counts.subtract(mine)
            self._elsewhere = frozenset(queue for queue, count in counts.items() if count > 0)
            self._elsewhere_until = now + SHARED_SECONDS
        return self._elsewhere
