"""Whether somebody else serves a hub, before a host of ours does."""

from holdtrue.core.events import Ticks
from holdtrue.environment import Environment

from .board import Board
from .partitions import (
    OUR_PREFIX,
    HubServed,
    HubServedByDotNet,
    Lease,
    Situation,
    Terms,
    ask_time,
    dotnet_owners,
    live_owners,
)
from .service import NotThere, ServiceError

LOOK_SECONDS = 1.0
LONGEST = 35.0
"""Seconds after which a lease has ended that nobody renews (.NET takes 30), where no reading shows renewals."""


async def refuse_beside(
    board: Board, terms: Terms, environment: Environment, *, anyone: bool = False, other_kind: bool = False
) -> None:
    """Return when no .NET worker serves the hub by this board (`anyone`: no host at all).

    A lease that a stopped one has left is waited for.  Raises HubServed, HubServedByDotNet for a .NET worker, where
    one lives.  `other_kind`: our hosts are to share out the partitions by another board, and do not need this one.
    """
    first: dict[str, Lease] | None = None
    owners = live_owners if anyone else dotnet_owners
    until = environment.monotonic() + max(LONGEST, terms.lease + terms.lease / 6)
    while True:
        try:
            leases = await board.read()
        except NotThere:
            if other_kind:
                return
            raise
        known = board.known()
        there = owners(leases, known.sightings, known.at_least, terms)
        if not there:
            return
        if first is None:
            first = {lease.partition: lease for lease in leases}
        for lease in leases:
            owner = lease.current_owner if board.shows_renewals else lease.current_owner or lease.next_owner
            lives = (
                _renewed(first.get(lease.partition), lease) if board.shows_renewals else environment.monotonic() > until
            )
            if owner in there and lives:
                raise _served(board, lease.partition, str(owner), other_kind=other_kind)
        if not known.measured:
            await _ask_time(board, leases, terms, known.now)
        await environment.sleep(LOOK_SECONDS)


async def _ask_time(board: Board, leases: list[Lease], terms: Terms, now: Ticks) -> None:
    situation = Situation(
        me="", terms=terms, held={}, sightings=board.known().sightings, now=now, at_least=None, measured=False
    )
    for step in ask_time(leases, situation):
        try:
            await board.write(step)
        except (ServiceError, TimeoutError):
            pass  # the next look asks again


def _served(board: Board, partition: str, owner: str, *, other_kind: bool) -> HubServed:
    ours = owner.startswith(OUR_PREFIX)
    who = f"{owner!r}" if ours else f"the .NET worker {owner!r}"
    told = f"the hub's {board.name} says that {who} serves {partition!r}, and has renewed it: "
    if other_kind:
        told += (
            "its useTablePartitionManagement is not this host's, and hosts of the two kinds do not see each other. "
            "Stop all hosts of one kind, and start those of the other then"
        )
    elif ours:
        told += "stop all hosts of the hub, and try again"
    else:
        told += (
            "two engines would take each other's activities. Stop that worker, or allow both beside each other in the "
            "settings"
        )
    return HubServed(told) if ours else HubServedByDotNet(told)


def _renewed(before: Lease | None, after: Lease) -> bool:
    if before is None or before.current_owner != after.current_owner:
        return True
    return before.last_renewal != after.last_renewal
