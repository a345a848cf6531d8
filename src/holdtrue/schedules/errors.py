"""What a schedule can be refused for.  Each error names the schedule (or the expression) and the cure."""

from holdtrue.core.errors import HoldtrueError, InvalidInput


class InvalidSchedule(InvalidInput):
    """A schedule's definition cannot be kept: the message names the member and what to give instead."""


class NeverFires(InvalidSchedule):
    """A schedule would never fire (31 February; an end before the first tick)."""


class ScheduleNotFound(HoldtrueError, LookupError):
    """There is no schedule of that id in the hub."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(
            f"there is no schedule {schedule_id!r} in this hub: list the schedules to see their ids, or create it"
        )
        self.schedule_id = schedule_id


class ScheduleExists(HoldtrueError):
    """A schedule of that id is there already."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(f"schedule {schedule_id!r} exists already: use put() to change it, or another id")
        self.schedule_id = schedule_id


class ScheduleBusy(HoldtrueError):
    """A change of a schedule lost against other writers again and again; nothing was changed."""

    def __init__(self, schedule_id: str) -> None:
        super().__init__(f"schedule {schedule_id!r} is being changed by others all the time: try again")
        self.schedule_id = schedule_id
