"""How long the ids of messages that were used up are remembered (rule 3).  Pure.

A message that is delivered again is known by `consumed` until its deletion is confirmed.  One that is sent again can
come later still: an event's and a child start's id stays in `seen`, until its sender cannot send it any more.
"""

from collections.abc import Mapping, Sequence

from holdtrue.core.events import TICKS_PER_SECOND, Ticks

from .sentinel import Seen, Sentinel, Used

CONSUMED_TICKS: Ticks = 7 * 86_400 * TICKS_PER_SECOND
"""A message whose deletion was never confirmed is forgotten after this: no message lives longer where .NET puts it."""
SEEN_TICKS: Ticks = 20 * 60 * TICKS_PER_SECOND
"""No id goes sooner: the service refuses a request whose signature is older than 15 minutes."""
MOST_OF_CLIENTS = 2_000
"""Ids of clients' messages that are held."""
MANY = 500
"""Ids of other instances' messages beyond which their senders are asked."""


def still_consumed(consumed: Sequence[Used], deleted: set[str], now: Ticks) -> list[Used]:
    """What is to be known further on, given what was deleted for certain."""
    return [one for one in consumed if one.id not in deleted and now - one.at < CONSUMED_TICKS]


def senders_to_ask(seen: Sequence[Seen], now: Ticks) -> list[str]:
    """The instances whose sentinels tell which ids can go; none while there are few."""
    old = [one for one in seen if one.sender and now - one.at >= SEEN_TICKS]
    return sorted({one.sender for one in old}) if len(old) > MANY else []


def still_seen(seen: Sequence[Seen], now: Ticks, senders: Mapping[str, Sentinel | None]) -> list[Seen]:
    """What is to be known further on; `senders` are the sentinels of those that were asked."""
    clients = [one for one in seen if not one.sender]
    left = {one.id for one in clients[-MOST_OF_CLIENTS:] if now - one.at < SEEN_TICKS}
    return [
        one
        for one in seen
        if (one.id in left if not one.sender else now - one.at < SEEN_TICKS or _may_send(one, senders))
    ]


def _may_send(one: Seen, senders: Mapping[str, Sentinel | None]) -> bool:
    """Whether its sender may send it once more: it owes what that episode sent."""
    if one.sender not in senders:
        return True
    sentinel = senders[one.sender]
    if sentinel is None or sentinel.state.purging or not sentinel.state.owed:
        return False
    return sentinel.execution_id == one.execution and sentinel.state.number <= one.episode
