"""Whether .NET workers serve a hub, as a client of ours sees it."""

from holdtrue.core.events import TICKS_PER_SECOND, Ticks

from .access import Access
from .partitions import OUR_PREFIX, is_lease, read_lease

SKEW_TICKS: Ticks = 60 * TICKS_PER_SECOND
"""A .NET worker counts as live for so long after its lease, in case that this process's clock is ahead."""


async def dotnet_serves(access: Access) -> bool:
    """Whether a .NET worker has a partition, is to have one, or had one until a moment ago."""
    since = access.environment.now() - SKEW_TICKS
    for row in await access.query(access.names.partitions, None):
        if not is_lease(row):
            continue
        lease = read_lease(row)
        ended = lease.expires_at is not None and lease.expires_at < since
        owners = [name for name in (lease.current_owner, lease.next_owner) if name is not None]
        if not ended and any(not name.startswith(OUR_PREFIX) for name in owners):
            return True
    return False
