"""Who serves which control queue: the rows of the partitions table, and what a host does about them.

Two sorts of hosts read and write these rows: ours, whose names begin with `holdtrue-`, and .NET's.  A row names
its owner, until when, and who wants it next.  Every change replaces a row as it was read (If-Match); a refused
one means that somebody was faster: look again.

Whether an owner is gone is judged by no host's wall clock.  The owner's promise is the length between its
`LastRenewal` and `ExpiresAt`, both of one clock, and it begins at the service's own stamp of that renewal.  The
owner itself counts the same length on its monotonic clock from before it sent the renewal, less a margin: so it
has stopped before anyone of ours takes over.  `ExpiresAt` stands in the service's time as soon as a host knows
it, since .NET compares it with its wall clock.  Pure.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from holdtrue.core.errors import InvalidInput
from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.stores.errors import StoreError

from .names import fnv1a
from .service import Instant, Row, Value

OUR_PREFIX = "holdtrue-"
"""How the names of our owners begin."""
_CONTROL_QUEUE = re.compile(r".+-control-[0-9]{2}")
LONGEST_PROMISE: Ticks = 3_600 * TICKS_PER_SECOND
"""A row that promises more is taken to promise this."""


class HubServed(StoreError):
    """Hosts serve this hub, and what was asked for needs it without any.  Stop them; their partitions run out within
    their lease interval."""


class HubServedByDotNet(HubServed):
    """A .NET worker serves this hub; the work-item queue is shared, and it may not have our activities.

    Stop it (its partitions run out within its lease interval), or allow both beside each other in the settings.
    """


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """For how long, in seconds.  Raises InvalidInput where an owner could not renew in time."""

    lease: float = 30.0
    """A partition is ours for so long after a renewal."""
    acquire: float = 10.0
    """A host looks at the table, and renews, at least so often."""
    drain: float = 60.0
    """A partition that another wants is given up after so long, whatever still runs."""
    operation: float = 2.0
    """A request to the partitions table is given up after so long."""

    def __post_init__(self) -> None:
        if not 0 < self.acquire < self.lease - self.margin:
            raise InvalidInput(
                f"partitions are leased for {self.lease:g} s and renewed every {self.acquire:g} s: set the lease "
                "interval to more than the acquire interval, three times it at best"
            )

    @property
    def margin(self) -> float:
        """An owner stops so much earlier than others may take over."""
        return self.lease / 10


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table: a control queue and its owner."""

    partition: str
    etag: str
    timestamp: Ticks = 0
    current_owner: str | None = None
    next_owner: str | None = None
    owned_since: Ticks | None = None
    last_renewal: Ticks | None = None
    expires_at: Ticks | None = None
    is_draining: bool = False


def is_control_queue(name: str) -> bool:
    """Whether it is the name of a control queue."""
    return _CONTROL_QUEUE.fullmatch(name) is not None


def is_lease(row: Row) -> bool:
    """Whether a row of the table is that of a control queue."""
    return row.partition == "" and is_control_queue(row.key)


def read_lease(row: Row) -> Lease:
    """A row as a lease; what is not of the type it should be counts as not there."""

    def time(name: str) -> Ticks | None:
        value = row.values.get(name)
        return value.ticks if isinstance(value, Instant) else None

    def text(name: str) -> str | None:
        value = row.values.get(name)
        return value if isinstance(value, str) and value else None

    return Lease(
        partition=row.key,
        etag=row.etag,
        timestamp=row.timestamp,
        current_owner=text("CurrentOwner"),
        next_owner=text("NextOwner"),
        owned_since=time("OwnedSince"),
        last_renewal=time("LastRenewal"),
        expires_at=time("ExpiresAt"),
        is_draining=row.values.get("IsDraining") is True,
    )


def lease_values(lease: Lease) -> dict[str, Value | None]:
    """Its six columns beside the keys, all of them, as .NET writes them."""

    def instant(ticks: Ticks | None) -> Instant | None:
        return None if ticks is None else Instant(ticks)

    return {
        "CurrentOwner": lease.current_owner,
        "NextOwner": lease.next_owner,
        "OwnedSince": instant(lease.owned_since),
        "LastRenewal": instant(lease.last_renewal),
        "ExpiresAt": instant(lease.expires_at),
        "IsDraining": lease.is_draining,
    }


class Sighting(msgspec.Struct, frozen=True):
    """The first stamp under which a renewal was seen.  Whoever else writes the row gives it a newer one."""

    owner: str | None
    renewal: Ticks | None
    stamp: Ticks


def sight(before: Mapping[str, Sighting], leases: Sequence[Lease]) -> dict[str, Sighting]:
    """What is known of the rows' renewals after a reading."""
    seen = {}
    for lease in leases:
        known = before.get(lease.partition)
        if known is None or (known.owner, known.renewal) != (lease.current_owner, lease.last_renewal):
            known = Sighting(lease.current_owner, lease.last_renewal, lease.timestamp)
        seen[lease.partition] = known
    return seen


def runs_out(lease: Lease, sighting: Sighting, terms: Terms) -> Ticks:
    """When, in the service's time, the promise of a row's last renewal ends."""
    promise = int(terms.lease * TICKS_PER_SECOND)
    if lease.last_renewal is not None and lease.expires_at is not None:
        promise = min(max(lease.expires_at - lease.last_renewal, 0), LONGEST_PROMISE)
    return sighting.stamp + promise


class Hold(StrEnum):
    """What a host has to do with a partition that it holds."""

    SERVING = "serving"
    DRAINING = "draining"
    DRAINED = "drained"
    """Nothing of it is in work any more, or the time for that is over."""


class Move(StrEnum):
    """What a host does with a row."""

    CLAIM = "claim"
    RENEW = "renew"
    """Ours, and its row says more than that: set right.  (What is as it should be is prolonged by the renewals.)"""
    DRAIN = "drain"
    """Ours, while what is in work comes to its end."""
    RELEASE = "release"
    STEAL = "steal"
    """Put ourselves there as the next owner."""
    WITHDRAW = "withdraw"
    """Take ourselves back as the next owner: we stop."""
    TOUCH = "touch"
    """Write it as it is: its new stamp tells us the service's time."""


KEEPS = frozenset({Move.CLAIM, Move.RENEW, Move.DRAIN})
"""After these the partition is ours for another lease interval."""


class Step(msgspec.Struct, frozen=True):
    """One write: the row as it shall be, if it is still as it was read (`lease.etag`)."""

    move: Move
    lease: Lease


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a host does after a reading of the table.

    `measured`: the rows are in the service's time.  `soon`: a partition is on its way to or from us.  `runs_out`:
    when, in the service's time, the next foreign lease ends that is left as it is.  `mine`: how many rows name us
    as their owner after these steps.
    """

    steps: list[Step]
    measured: bool
    soon: bool
    runs_out: Ticks | None
    mine: int


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """What a host knows when it decides."""

    me: str
    terms: Terms
    held: Mapping[str, Hold]
    sightings: Mapping[str, Sighting]
    now: Ticks
    """The time to write down: the service's where it is known, else this host's."""
    at_least: Ticks | None
    """A time that the service's clock has reached for certain."""
    measured: bool
    """`now` is the service's time."""
    closing: bool = False

    def is_over(self, lease: Lease) -> bool:
        """Whether the promise of a row's owner has ended for certain."""
        end = runs_out(lease, self.sightings[lease.partition], self.terms)
        return self.at_least is not None and self.at_least >= end


def plan(leases: Sequence[Lease], known: Situation) -> Plan:
    """What to do about the rows of the table, all of them."""
    steps: list[Step] = []
    soon = known.closing
    ends: list[Ticks] = []
    mine = 0
    shares: dict[str, list[Lease]] = {}
    for lease in sorted(leases, key=lambda one: one.partition):
        step, wanted_by = _judge(lease, known)
        if step is not None:
            steps.append(step)
            soon |= step.move in (Move.DRAIN, Move.STEAL, Move.RELEASE)
        soon |= known.held.get(lease.partition) is Hold.DRAINING
        if wanted_by == known.me:
            mine += 1
            soon |= lease.current_owner not in (None, known.me)
        elif wanted_by is not None:
            shares.setdefault(wanted_by, []).append(lease)
        if step is None and lease.current_owner != known.me and (lease.current_owner or lease.next_owner):
            ends.append(runs_out(lease, known.sightings[lease.partition], known.terms))
    if not known.closing:
        stolen = _balance(len(leases), mine, shares, known)
        steps += stolen
        soon |= bool(stolen)
        if not steps and not known.measured:
            steps += ask_time(leases, known)
    return Plan(
        steps=steps,
        measured=known.measured,
        soon=soon,
        runs_out=min(ends, default=None),
        mine=_left(leases, steps, known.me),
    )


def _judge(lease: Lease, known: Situation) -> tuple[Step | None, str | None]:
    """What to do with a row, and whose share it counts for when all that is under way is done."""
    me = known.me
    wanted = lease.next_owner if lease.next_owner not in (None, me) else None
    if lease.current_owner == me:
        return _judge_own(lease, wanted, known)
    if known.closing:
        if lease.next_owner == me and not lease.is_draining:
            return _step(Move.WITHDRAW, lease, known), None
        return None, None
    if lease.current_owner is None and wanted is None:
        return _step(Move.CLAIM, lease, known), me
    if known.is_over(lease):
        return _step(Move.CLAIM, lease, known), me
    if lease.current_owner is not None and lease.next_owner is None and lease.is_draining:
        return _step(Move.STEAL, lease, known), me
    return None, lease.next_owner or lease.current_owner


def _judge_own(lease: Lease, wanted: str | None, known: Situation) -> tuple[Step | None, str | None]:
    hold = known.held.get(lease.partition)
    leaving = known.closing or wanted is not None
    after = wanted if leaving else known.me
    if hold is None:
        # A claim whose answer was lost, or a lease that ran out without anyone's taking over.
        return _step(Move.RELEASE if leaving else Move.CLAIM, lease, known), after
    if hold is Hold.DRAINED:
        return _step(Move.RELEASE, lease, known), wanted
    if hold is Hold.DRAINING or leaving:
        stands = hold is Hold.DRAINING and lease.is_draining
        return None if stands else _step(Move.DRAIN, lease, known), wanted
    stands = lease.next_owner is None and not lease.is_draining
    return None if stands else _step(Move.RENEW, lease, known), known.me


def _balance(count: int, mine: int, shares: Mapping[str, Sequence[Lease]], known: Situation) -> list[Step]:
    """Steal from those who have more than their share, until we have ours or nobody has too much."""
    fair = count // (len(shares) + 1)
    sizes = {owner: len(owned) for owner, owned in shares.items()}
    free = {
        owner: sorted(
            (one for one in owned if one.next_owner is None and one.current_owner and not one.is_draining),
            # Each host in another order: hosts that come together do not all want the same one.
            key=lambda one: fnv1a(f"{known.me}/{one.partition}".encode()),
        )
        for owner, owned in shares.items()
    }
    steps = []
    while mine <= fair:
        most = fair if mine < fair else fair + 1
        rich = [owner for owner in sorted(free) if free[owner] and sizes[owner] > most]
        if not rich or (mine == fair and min(sizes.values()) < fair):
            break  # what is too much there is for those who have less than we
        owner = max(rich, key=lambda one: sizes[one])
        steps.append(_step(Move.STEAL, free[owner].pop(0), known))
        sizes[owner] -= 1
        mine += 1
    return steps


def ask_time(leases: Sequence[Lease], known: Situation) -> list[Step]:
    """A host that has written nothing yet, and whose wall clock says that an owner is gone, asks for the time."""
    for lease in leases:
        if lease.current_owner and lease.expires_at is not None and lease.expires_at <= known.now:
            return [_step(Move.TOUCH, lease, known)]
    return []


def _step(move: Move, lease: Lease, known: Situation) -> Step:
    now, ends = known.now, known.now + int(known.terms.lease * TICKS_PER_SECOND)
    replace = msgspec.structs.replace
    match move:
        case Move.CLAIM:
            after = replace(
                lease,
                current_owner=known.me,
                next_owner=None,
                owned_since=now,
                last_renewal=now,
                expires_at=ends,
                is_draining=False,
            )
        case Move.RENEW:
            after = replace(lease, next_owner=None, last_renewal=now, expires_at=ends, is_draining=False)
        case Move.DRAIN:
            after = replace(lease, last_renewal=now, expires_at=ends, is_draining=True)
        case Move.RELEASE:
            after = replace(lease, current_owner=None, is_draining=False)
        case Move.STEAL:
            after = replace(lease, next_owner=known.me)
        case Move.WITHDRAW:
            after = replace(lease, next_owner=None)
        case Move.TOUCH:
            after = lease
    return Step(move, after)


def prolonged(lease: Lease, now: Ticks, terms: Terms) -> Lease:
    """A row of ours with another lease interval, and else as it is."""
    return msgspec.structs.replace(lease, last_renewal=now, expires_at=now + int(terms.lease * TICKS_PER_SECOND))


def _left(leases: Sequence[Lease], steps: Sequence[Step], me: str) -> int:
    after = {lease.partition: lease.current_owner for lease in leases}
    after.update((step.lease.partition, step.lease.current_owner) for step in steps)
    return sum(owner == me for owner in after.values())


def live_owners(
    leases: Sequence[Lease], sightings: Mapping[str, Sighting], at_least: Ticks | None, terms: Terms
) -> set[str]:
    """Names of the owners whose leases have not ended for certain."""
    found: set[str] = set()
    for lease in leases:
        if at_least is not None and at_least >= runs_out(lease, sightings[lease.partition], terms):
            continue
        found.update(name for name in (lease.current_owner, lease.next_owner) if name is not None)
    return found


def dotnet_owners(
    leases: Sequence[Lease], sightings: Mapping[str, Sighting], at_least: Ticks | None, terms: Terms
) -> set[str]:
    """Those of them that are not ours."""
    return {name for name in live_owners(leases, sightings, at_least, terms) if not name.startswith(OUR_PREFIX)}
