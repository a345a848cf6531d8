"""Who serves a hub, as a client sees it: it need not know by which kind of leases its partitions are shared out."""

from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.stores.errors import StoreMissing

from .access import Access
from .blob_leases import OWNERSHIP, UNKNOWN, content_in
from .partitions import OUR_PREFIX, is_lease, read_lease
from .service import NotThere, ServiceError

SKEW_TICKS: Ticks = 60 * TICKS_PER_SECOND
"""A host counts as live for so long after its lease, in case that this process's clock is ahead."""


async def dotnet_serves(access: Access) -> bool:
    """Whether a .NET worker has a partition, is to have one, or had one until a moment ago."""
    return any(not name.startswith(OUR_PREFIX) for name in await owners(access))


async def owners(access: Access) -> set[str]:
    """The hosts that have a partition, are to have one, or had one until a moment ago.

    Raises StoreError where the account does not answer.
    """
    return await _by_table(access) | await _by_blobs(access)


async def _by_table(access: Access) -> set[str]:
    found: set[str] = set()
    since = access.environment.now() - SKEW_TICKS
    try:
        rows = await access.query(access.names.partitions, None)
    except StoreMissing:
        return found
    for row in filter(is_lease, rows):
        lease = read_lease(row)
        if lease.expires_at is None or lease.expires_at >= since:
            found.update(name for name in (lease.current_owner, lease.next_owner) if name is not None)
    return found


async def _by_blobs(access: Access) -> set[str]:
    """The service itself says whose lease has ended."""
    blobs, container = access.service.blobs, access.names.leases
    found: set[str] = set()
    token: str | None = None
    try:
        while True:
            page, token = await blobs.list_blobs(container, OWNERSHIP, token=token)
            for info in page:
                if info.leased:
                    content = content_in(await blobs.get_blob(container, info.name), info.name)
                    found.add(content.owner or UNKNOWN)
            if token is None:
                return found
    except NotThere:
        return found
    except ServiceError as error:
        raise access.failure(f"container {container}", error) from error
