"""Leases on blobs as a board (`useTablePartitionManagement` false), as .NET shares out partitions by them.

Each partition has two blobs.  The lease of `intent/…` says who is to have it: who wants a share takes that one, from
its owner too (the blob names the lease's id, by which it can be changed).  The lease of `ownership/…` says who has
it; nobody takes that from another: it is given up after the drain, or ends by itself.  So the service decides who
owns a partition, and no clock but its own; the owner counts on its monotonic one from before its request.
"""

import asyncio
import hashlib
from collections.abc import Awaitable
from typing import TypeVar

import msgspec

from holdtrue.environment import Environment

from .board import Known
from .partitions import Lease, Move, Step, Terms, is_control_queue, sight
from .service import BlobInfo, Blobs, Conflict

T = TypeVar("T")

INTENT, OWNERSHIP = "intent/", "ownership/"
UNKNOWN = "?"
"""The owner of a lease whose blob does not say who it is (yet)."""


class Content(msgspec.Struct, frozen=True, rename="pascal"):
    """What such a blob holds; `Token` is the id of its lease, `Epoch` how often it was taken."""

    partition_id: str
    owner: str | None = None
    token: str | None = None
    epoch: int = 0


def content_in(data: bytes | None, blob: str) -> Content:
    """What a blob says; one that nobody can read says no more than its name."""
    try:
        return msgspec.json.decode(data or b"", type=Content)
    except msgspec.DecodeError:
        return Content(_partition(blob) or "")


def lease_id(me: str, blob: str) -> str:
    """The id under which a host leases a blob: always the same, so that a request may be made again."""
    digits = hashlib.sha256(f"{me}\n{blob}".encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"


class _Blob(msgspec.Struct):
    """A blob as it was read last."""

    etag: str
    content: Content
    leased: bool

    @property
    def owner(self) -> str | None:
        """Who has its lease."""
        return (self.content.owner or UNKNOWN) if self.leased else None


class LeaseBlobs:
    """The blobs of one hub, as the host `me` sees and writes them."""

    shows_renewals = False

    def __init__(self, blobs: Blobs, container: str, me: str, environment: Environment, terms: Terms) -> None:
        self.name = f"container {container} of leases"
        self._blobs = blobs
        self._container = container
        self._me = me
        self._environment = environment
        self._terms = terms
        self._seen: dict[str, _Blob] = {}
        self._wanted: dict[str, float] = {}
        """Partitions whose intent is ours and that another has yet, and when it was renewed."""
        self._leases: list[Lease] = []

    def known(self) -> Known:
        """No clock decides here: whose lease has ended is not named."""
        return Known(sightings=sight({}, self._leases), now=self._environment.now(), at_least=None, measured=True)

    async def read(self) -> list[Lease]:
        seen: dict[str, _Blob] = {}
        token: str | None = None
        while True:
            page, token = await self._soon(self._blobs.list_blobs(self._container, "", token=token))
            found = [info for info in page if _partition(info.name) is not None]
            for info, blob in zip(found, await asyncio.gather(*map(self._look, found)), strict=True):
                seen[info.name] = blob
            if token is None:
                break
        self._seen = seen
        owned = [name.removeprefix(OWNERSHIP) for name in sorted(seen) if name.startswith(OWNERSHIP)]
        self._leases = [self._lease(partition) for partition in owned]
        await self._keep_wanted()
        return self._leases

    async def _look(self, info: BlobInfo) -> _Blob:
        """A blob as listed; its content is got where it has changed, and may be newer than the listing."""
        known = self._seen.get(info.name)
        if known is not None and known.etag == info.etag:
            return _Blob(info.etag, known.content, info.leased)
        data = await self._soon(self._blobs.get_blob(self._container, info.name))
        return _Blob(info.etag, content_in(data, info.name), info.leased)

    def _lease(self, partition: str) -> Lease:
        intent = self._seen.get(INTENT + partition)
        wanted, owner = None if intent is None else intent.owner, self._seen[OWNERSHIP + partition].owner
        # Who has given up the intent is about to give up the rest.
        leaving = owner is not None and (wanted is None or (owner == self._me and wanted != owner))
        return Lease(
            partition=partition,
            etag="",
            current_owner=owner,
            next_owner=None if wanted == owner else wanted,
            is_draining=leaving,
        )

    async def _keep_wanted(self) -> None:
        now = self._environment.monotonic()
        there = [one.partition for one in self._leases if one.next_owner == self._me]
        self._wanted = {partition: self._wanted.get(partition, 0.0) for partition in there}
        for partition, renewed in self._wanted.items():
            if now - renewed >= self._terms.acquire:
                blob = INTENT + partition
                await self._soon(self._blobs.renew_lease(self._container, blob, lease_id(self._me, blob)))
                self._wanted[partition] = now

    async def write(self, step: Step) -> Lease:
        partition = step.lease.partition
        intent, ownership = INTENT + partition, OWNERSHIP + partition
        match step.move:
            case Move.CLAIM:
                await self._take(intent)
                await self._take(ownership)
            case Move.RENEW:
                await self._take(ownership)
                await self._take(intent)
            case Move.STEAL:
                await self._take(intent, steal=True)
                self._wanted[partition] = self._environment.monotonic()
            case Move.DRAIN:
                await self._take(ownership)
                await self._give_up(intent)
            case Move.RELEASE:
                await self._give_up(intent)
                await self._give_up(ownership)
            case Move.WITHDRAW:
                await self._give_up(intent)
            case Move.TOUCH:
                pass  # nobody asks for the time here
        return step.lease

    async def _take(self, name: str, *, steal: bool = False) -> None:
        """Have its lease, for a whole interval from now on.  Raises Conflict where another has it."""
        before = self._seen.get(name)
        content = Content(_partition(name) or "") if before is None else before.content
        mine = lease_id(self._me, name)
        taken = await self._soon(self._blobs.acquire_lease(self._container, name, int(self._terms.lease), mine))
        if not taken and steal and content.token is not None:
            taken = await self._soon(self._blobs.change_lease(self._container, name, content.token, mine))
        if not taken:
            raise Conflict(409, "LeaseAlreadyPresent", f"another has the lease of {self._container}/{name}")
        if (content.owner, content.token) != (self._me, mine):
            await self._put(name, Content(content.partition_id, self._me, mine, content.epoch + 1), mine)

    async def _give_up(self, name: str) -> None:
        """Let another have its lease, where it is ours."""
        before = self._seen.get(name)
        if before is None or before.owner != self._me:
            return
        mine = lease_id(self._me, name)
        await self._put(name, msgspec.structs.replace(before.content, owner=None, token=None), mine)
        await self._soon(self._blobs.release_lease(self._container, name, mine))

    async def _put(self, name: str, content: Content, lease: str) -> None:
        data = msgspec.json.encode(content)
        await self._soon(self._blobs.put_blob(self._container, name, data, lease=lease))

    async def _soon(self, call: Awaitable[T]) -> T:
        async with asyncio.timeout(self._terms.operation):
            return await call


def _partition(blob: str) -> str | None:
    """The control queue whose blob it is."""
    for kind in (INTENT, OWNERSHIP):
        if blob.startswith(kind) and is_control_queue(blob.removeprefix(kind)):
            return blob.removeprefix(kind)
    return None
