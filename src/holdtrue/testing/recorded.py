"""Recorded instances out of a hub: which ones, and each with all that belongs to it as it stands at one moment."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

import msgspec

from holdtrue.core.projection import TERMINAL, Status
from holdtrue.stores.protocol import InstanceCopy, InstanceQuery, Page

OPEN = frozenset(Status) - TERMINAL
_AT_ONCE = 100


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which instances: every given condition must hold.  Without `statuses`, those that have not ended; with `every`
    whatever their status.
    """

    every: bool = False
    statuses: frozenset[Status] | None = None
    name: str | None = None
    prefix: str | None = None

    @property
    def wanted(self) -> frozenset[Status] | None:
        """The statuses meant; None: any."""
        return self.statuses if self.statuses is not None else None if self.every else OPEN

    def fits(self, copy: InstanceCopy) -> bool:
        """Whether an instance is one of them."""
        p = copy.record.projection
        return (
            (self.wanted is None or p.status in self.wanted)
            and (self.name is None or p.name == self.name)
            and (self.prefix is None or p.instance_id.startswith(self.prefix))
        )


class RecordStore(Protocol):
    """What is needed of a store."""

    async def query(self, query: InstanceQuery) -> Page:
        """One page of instances."""

    async def copies(self, instance_ids: Sequence[str]) -> list[InstanceCopy | None]:
        """Instances with all that belongs to them."""

    async def children(self, instance_id: str) -> list[str]:
        """The ids of the instance's children."""


async def selected(store: RecordStore, selection: Selection) -> AsyncIterator[list[InstanceCopy]]:
    """The instances of a hub that are meant, some at a time, the oldest first.

    One that comes to be, ends or goes meanwhile may be among them or not.
    """
    token: str | None = None
    while True:
        page = await store.query(
            InstanceQuery(
                statuses=selection.wanted,
                name=selection.name,
                prefix=selection.prefix,
                page_size=_AT_ONCE,
                token=token,
                any_order=True,
            )
        )
        copies = await store.copies([record.projection.instance_id for record in page.records])
        # It may have gone on between the two looks.
        yield [copy for copy in copies if copy is not None and selection.fits(copy)]
        token = page.token
        if token is None:
            return


async def named(
    store: RecordStore, instance_ids: Iterable[str], *, with_children: bool = False
) -> tuple[list[InstanceCopy], list[str]]:
    """The instances of these ids, then (if asked) all below them; and the ids that there are none of."""
    found: dict[str, InstanceCopy] = {}
    missing: list[str] = []
    asked = list(dict.fromkeys(instance_ids))
    for instance_id, copy in zip(asked, await store.copies(asked), strict=True):
        if copy is None:
            missing.append(instance_id)
        else:
            found[instance_id] = copy
    below = list(found) if with_children else []
    while below:
        children = [child for child in await store.children(below.pop(0)) if child not in found]
        for child, copy in zip(children, await store.copies(children), strict=True):
            if copy is not None:
                found[child] = copy
                below.append(child)
    return list(found.values()), missing
