"""What is done with an instance whose history cannot be read: it is held, or ended by what its sentinel says.

Its code cannot be run, since what it has done is not known.
"""

import logging
from collections.abc import Callable, Sequence

from holdtrue.core.actions import Decision
from holdtrue.core.ending import end_from_outside
from holdtrue.core.episode import Episode, EpisodeCommit, ExecutionState
from holdtrue.core.events import Ticks
from holdtrue.core.messages import InboundMessage
from holdtrue.core.projection import TERMINAL, Condition
from holdtrue.stores.errors import StoreCorrupt

from .arrivals import Arrived, doubles
from .committing import Committer
from .holding import Held
from .sentinel import Sentinel, State

log = logging.getLogger("holdtrue.azure_storage")


def is_over(state: State) -> bool:
    """Whether the sentinel says that the execution has ended."""
    return state.projection is not None and state.projection.status in TERMINAL


def end_unread(
    state: State, messages: Sequence[InboundMessage], now: Ticks, new_id: Callable[[], str]
) -> EpisodeCommit | None:
    """The end that a message brings from outside (a terminate, a deadline), decided without the history.

    None where no message ends it.  Its events stand behind those that cannot be read; which activities, timers and
    children are outstanding is not known, so what comes of them is dropped as for any instance that has ended.
    """
    projection = state.projection
    if projection is None:
        return None
    making = Episode(
        ExecutionState(
            projection=projection,
            dialect=state.dialect,
            start_id=state.start_id,
            deadline=state.deadline,
            condition=state.condition,
            length=state.rows,
        ),
        messages,
        now=now,
        new_id=new_id,
    )
    if making.state.projection.status in TERMINAL:
        return making.commit()
    ends = (end_from_outside(event, state.rows, cancel_too=False) for event in making.feed)
    end = next((end for end in ends if end is not None), None)
    if end is None:
        return None
    making.decide(Decision(actions=[end], fed=len(making.feed)))
    return making.commit()


async def set_aside(
    committer: Committer, held: Held, arrived: Sequence[Arrived], sentinel: Sentinel, error: StoreCorrupt, now: Ticks
) -> list[int]:
    """Hold it with the reason, its messages beside it; the numbers of those that are to come again.

    Those were used up before, and are judged when it can be read.
    """
    held.etag, held.execution_id = sentinel.etag, sentinel.execution_id
    held.state, held.started = sentinel.state.copy(), sentinel.state.started
    known = doubles(sentinel)
    held.given = {one.key: one for one in arrived if one.id not in known}
    log.error("held: instance %r cannot be read: %s", held.instance_id, error)
    reason = (
        f"it cannot be read: {error}. It goes on when that is mended, and a host has been started since; or terminate "
        "it, and purge it"
    )
    await committer.hold(held, Condition(kind="held", reason=reason, since=now), ends_too=True)
    return [*held.given, *(one.key for one in arrived if one.id in known)]
