"""Hubs whose partitions .NET shares out by leases on blobs (`useTablePartitionManagement` false).

Holdtrue's hosts share out partitions by the table alone.  Hosts of the two kinds do not see each other, so one of
ours makes sure that nobody holds such a lease before it serves a hub.
"""

import msgspec

from holdtrue.environment import Environment

from .names import HubNames
from .partitions import HubServedByDotNet
from .service import Blobs, NotThere

LONGEST = 35.0
"""Seconds after which a lease that nobody renews has ended (.NET takes 30)."""
_PROBE = "00000000-0000-0000-0000-000000000001"


class _Content(msgspec.Struct, rename="pascal"):
    owner: str | None = None


async def refuse_beside_blob_leases(blobs: Blobs, names: HubNames, environment: Environment) -> None:
    """Return when no worker holds a partition by a blob's lease; what a dead one has left is waited for.

    Raises HubServedByDotNet where one keeps a lease.
    """
    until = environment.monotonic() + LONGEST
    while True:
        held = await _held(blobs, names)
        if held is None:
            return
        if environment.monotonic() > until:
            blob, owner = held
            raise HubServedByDotNet(
                f"the .NET worker {owner!r} holds the lease of {names.leases}/{blob}: it serves the hub "
                f"{names.hub!r} with useTablePartitionManagement false. Stop all such workers; the hub's next hosts "
                "share out its partitions by the table"
            )
        await environment.sleep(1.0)


async def _held(blobs: Blobs, names: HubNames) -> tuple[str, str] | None:
    """A blob whose lease is held, and by whom."""
    token: str | None = None
    while True:
        try:
            page, token = await blobs.list_blobs(names.leases, "ownership/", token=token)
        except NotThere:
            return None
        for blob in page:
            owner = _owner(await blobs.get_blob(names.leases, blob.name))
            if owner is not None and not await _is_free(blobs, names, blob.name):
                return blob.name, owner
        if token is None:
            return None


async def _is_free(blobs: Blobs, names: HubNames, blob: str) -> bool:
    try:
        if not await blobs.acquire_lease(names.leases, blob, 15, _PROBE):
            return False
        await blobs.release_lease(names.leases, blob, _PROBE)
    except NotThere:
        return True
    return True


def _owner(data: bytes | None) -> str | None:
    try:
        return msgspec.json.decode(data or b"{}", type=_Content).owner
    except msgspec.DecodeError:
        return None
