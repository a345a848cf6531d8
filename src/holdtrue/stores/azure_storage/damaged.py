"""What can be done for an instance whose history cannot be read: it can be ended, by what its sentinel says.

Its code cannot be run, since what it has done is not known.  Pure.
"""

from collections.abc import Callable, Sequence

from holdtrue.core.actions import Decision
from holdtrue.core.ending import end_from_outside
from holdtrue.core.episode import Episode, EpisodeCommit, ExecutionState
from holdtrue.core.events import Ticks
from holdtrue.core.messages import InboundMessage
from holdtrue.core.projection import TERMINAL

from .sentinel import State


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
