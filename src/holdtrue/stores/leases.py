"""Judges the leases of other hosts: a host that has not renewed its lease for the whole length of it has lost it.

Each host judges for itself, on its own monotonic clock, by watching whether others renew.  No clock is ever
compared with that of another, so that one which is wrong, or is set, costs nobody a lease.  In return a host that
has only just come watches for the length of a lease before it takes over from one that was stopped.
"""

from collections.abc import Iterable

import msgspec


class LeaseSeen(msgspec.Struct, frozen=True):
    """The lease of the host `number` as it stands in the hub: how often it was renewed, and its length."""

    number: int
    renewals: int
    seconds: float


class LeaseWatch:
    """What one host has seen of the leases of the others."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[int, float]] = {}

    def over(self, leases: Iterable[LeaseSeen], moment: float) -> set[int]:
        """The numbers of those whose lease is over at this moment (monotonic seconds); others are forgotten."""
        since: dict[int, tuple[int, float]] = {}
        over: set[int] = set()
        for lease in leases:
            seen = self._since.get(lease.number)
            if seen is None or seen[0] != lease.renewals:
                seen = (lease.renewals, moment)
            since[lease.number] = seen
            if moment - seen[1] > lease.seconds:
                over.add(lease.number)
        self._since = since
        return over
