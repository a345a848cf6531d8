"""Which activity may start now: slots by kind, limits by name, and who waits.

A *lane* is one way of running activities (on the loop, in threads, in processes) with its slots.  Within
a lane each activity name has a limit of its own, and what is over it waits apart, so that one slow
dependency does not hold up the others; names that wait take turns.

Knows nothing of how an activity is run.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from holdtrue.core.actions import ActivityOptions

Kind = Literal["async", "sync", "cpu"]
NO_OPTIONS = ActivityOptions()


class Lane:
    """One kind's slots: `running` of them are taken; `waiting` items have none yet.

    `turns` holds the names that wait for a slot of this lane and are below their own limit.
    """

    __slots__ = ("activities", "ahead", "filling", "kind", "running", "slots", "turns", "waiting")

    def __init__(self, kind: Kind, slots: int, ahead: int) -> None:
        if slots < 1:
            raise ValueError(f"the slots of {kind} activities must be at least 1, not {slots}")
        self.kind: Kind = kind
        self.slots = slots
        self.ahead = ahead
        self.running = 0
        self.waiting = 0
        self.turns: deque[Activity] = deque()
        self.activities: list[Activity] = []
        self.filling = False

    def free(self) -> int:
        """How many slots are free, less those that wait for one."""
        return self.slots - self.running - self.waiting

    def room(self) -> int:
        """How many more items could start at once, given the limits of its names."""
        free = self.free()
        if free <= 0 or not self.activities:
            return 0
        total = 0
        for activity in self.activities:
            total += activity.room()
            if total >= free:
                return free
        return total


class Activity:
    """One activity name's share of its lane, and what the hot path needs of its definition."""

    __slots__ = (
        "function", "has_default", "input_name", "input_type", "lane", "limit", "name", "options", "running",
        "suspends", "takes_input", "timed", "turn", "waiting", "waiting_count",
    )  # fmt: skip

    def __init__(self, definition: Any, lane: Lane) -> None:
        self.name: str = definition.name
        self.function: Callable[..., Any] = definition.function
        self.input_type: Any = definition.input_type
        self.input_name = f"the input of activity {definition.name!r}"
        self.takes_input: bool = definition.takes_input
        self.has_default: bool = definition.has_default
        self.options: ActivityOptions = definition.options or NO_OPTIONS
        self.timed = has_time_outs(self.options)
        self.limit: int = sys.maxsize if definition.limit is None else definition.limit
        if self.limit < 1:
            raise ValueError(f"the limit of activity {self.name!r} must be at least 1, not {self.limit}")
        self.lane = lane
        self.running = 0
        self.waiting: deque[Any] = deque()
        self.waiting_count = 0
        self.turn = False
        self.suspends = False
        """True once a run of it has waited for something: such activities get a task each."""
        lane.activities.append(self)

    def room(self) -> int:
        """How many more of this name could start, were there no other names."""
        return max(0, min(self.limit, self.lane.slots) - self.running - self.waiting_count)

    def ahead(self) -> int:
        """How many more of this name should be taken from the hub: what can start, and a little ahead of it."""
        wanted = min(self.limit, self.lane.slots)
        if self.lane.ahead:
            wanted += min(self.limit, self.lane.ahead)
        return max(0, wanted - self.running - self.waiting_count)

    # -- waiting -----------------------------------------------------------------------------------------

    def wait(self, item: Any, *, first: bool = False) -> None:
        """This one must wait for a slot (`first`: before the others of its name)."""
        if first:
            self.waiting.appendleft(item)
        else:
            self.waiting.append(item)
        self.waiting_count += 1
        self.lane.waiting += 1
        if not self.turn and self.running < self.limit:
            self.turn = True
            self.lane.turns.append(self)

    def forget(self) -> None:
        """One of those that wait is no longer wanted; it stays in the queue and is passed over."""
        self.waiting_count -= 1
        self.lane.waiting -= 1

    def take(self) -> None:
        """A slot is taken."""
        self.running += 1
        self.lane.running += 1

    def give(self) -> None:
        """A slot is given back."""
        self.running -= 1
        self.lane.running -= 1
        if self.waiting_count and not self.turn:
            self.turn = True
            self.lane.turns.append(self)


def fill(lane: Lane, start: Callable[[Any], None], gone: Callable[[Any], bool]) -> None:
    """Start what waits while there are slots, a name at a time in turn; `gone` tells who is to be passed over."""
    if lane.filling:
        return  # called from within `start`: the loop below goes on
    lane.filling = True
    try:
        while lane.turns and lane.running < lane.slots:
            activity = lane.turns.popleft()
            activity.turn = False
            while activity.waiting and activity.running < activity.limit:
                item = activity.waiting.popleft()
                if gone(item):
                    continue
                activity.forget()
                activity.take()
                if activity.waiting_count and activity.running < activity.limit:
                    activity.turn = True
                    lane.turns.append(activity)
                start(item)
                break
    finally:
        lane.filling = False


def has_time_outs(options: ActivityOptions) -> bool:
    """True if any of the three time-outs is set."""
    return options.start_to_close is not None or options.schedule_to_start is not None or options.heartbeat is not None


def effective(given: ActivityOptions | None, declared: ActivityOptions) -> ActivityOptions:
    """The time-outs of one call: those given with it, else those declared with the activity."""
    if given is None:
        return declared
    if not has_time_outs(declared):
        return given
    return ActivityOptions(
        start_to_close=declared.start_to_close if given.start_to_close is None else given.start_to_close,
        schedule_to_start=declared.schedule_to_start if given.schedule_to_start is None else given.schedule_to_start,
        heartbeat=declared.heartbeat if given.heartbeat is None else given.heartbeat,
        tag=given.tag,
        attempt=given.attempt,
    )


def rooms(queues: Iterable[tuple[str, Activity]], *, ahead: bool = True) -> list[tuple[int, list[str]]]:
    """How many items to take from which queues: one entry for each group that shares its room.

    Unlimited names of a lane share the lane's; a limited name has its own.  Without `ahead` no more than could start.
    """
    shared: dict[Lane, list[str]] = {}
    result: list[tuple[int, list[str]]] = []
    for queue, activity in queues:
        if activity.limit < activity.lane.slots:
            room = activity.ahead() if ahead else activity.room()
            room = min(room, lane_ahead(activity.lane) if ahead else activity.lane.free())
            if room > 0:
                result.append((room, [queue]))
        else:
            shared.setdefault(activity.lane, []).append(queue)
    for lane, names in shared.items():
        room = lane_ahead(lane) if ahead else lane.free()
        if room > 0:
            result.append((room, names))
    return result


def lane_ahead(lane: Lane, *, ahead: bool = True) -> int:
    """How many more items of this lane should be taken from the hub (without `ahead` no more than can start)."""
    return max(0, lane.slots + (lane.ahead if ahead else 0) - lane.running - lane.waiting)


def wanted(queues: Sequence[tuple[str, Activity]]) -> list[str]:
    """The queues of which more should be taken."""
    return [queue for queue, activity in queues if lane_ahead(activity.lane) and activity.ahead()]
