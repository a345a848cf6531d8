"""What is renewed and when: messages in hand, partitions, the app lease.  Pure.

Who renews (`renewals`) is on the host's loop or in a process of the host's own; it decides here in both cases.
"""

import msgspec

from .partitions import Terms

FIRST_PAUSE = 0.1
"""Seconds to the next try of a lease whose renewal was not answered; each further pause is twice as long."""
LONGEST_PAUSE = 1.0
APP_LEASE_MARGIN = 0.1
"""The last part of the app lease in which it is not relied on."""


class Message(msgspec.Struct, frozen=True, array_like=True):
    """A message in hand: its number of ours, its queue, its id and receipt, and when its get was sent (monotonic)."""

    number: int
    queue: str
    id: str
    receipt: str
    taken_at: float


class AppLeaseHeld(msgspec.Struct, frozen=True, array_like=True):
    """The app lease: its container, and the id under which it is held."""

    container: str
    id: str


class RenewalTerms(msgspec.Struct, frozen=True, kw_only=True):
    """For how long all of it is renewed, and how often.  In seconds.

    `me` is the owner's name in the rows of `table`, or in the blobs of the container `leases` where that is given;
    `rows` says how long a partition is leased, `renew` how often it
    is renewed.  `silence` is after how long without a sign of the host's loop all is let go.
    """

    me: str
    table: str
    leases: str = ""
    rows: Terms
    renew: float
    app_lease: int
    renew_app_lease: float
    take: int
    renew_messages_after: float
    renewed: int
    silence: float

    def is_in_time(self, message: Message, now: float) -> bool:
        """Whether a message got counts as in hand: it is hidden since its get was sent, or a little longer."""
        return now < message.taken_at + self.take

    def first_due(self, taken_at: float) -> float:
        """When a message is renewed for the first time."""
        return taken_at + self.renew_messages_after

    def next_due(self, sent: float) -> float:
        """When it is renewed again after a renewal that was sent then."""
        return sent + self.renewed / 3

    def row_until(self, sent: float) -> float:
        """Until when a partition is ours whose row was renewed by a request that was sent then."""
        return sent + self.rows.lease - self.rows.margin

    def app_lease_until(self, sent: float) -> float:
        """Until when the app lease is relied on after such a request."""
        return app_lease_until(sent, self.app_lease)


def app_lease_until(sent: float, seconds: int) -> float:
    """Until when the app lease is relied on that was taken for so long by a request that was sent then."""
    return sent + seconds * (1 - APP_LEASE_MARGIN)


def pause_after(failures: int) -> float:
    """Seconds to the next try after so many renewals of a lease in a row that were not answered."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * float(1 << min(failures - 1, 10)))
