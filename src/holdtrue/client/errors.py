"""What a client can answer with.  Each says what happened, to which instance, and what to do."""

from collections.abc import Mapping, Sequence

from holdtrue.core.errors import HoldtrueError
from holdtrue.core.events import FailureDetails
from holdtrue.core.ids import short
from holdtrue.core.projection import Status


class ClientError(HoldtrueError):
    """The base of the client's errors: what was asked for was not done."""


class InstanceNotFound(ClientError):
    """There is no instance of that id in this hub."""

    def __init__(self, instance_id: str) -> None:
        super().__init__(
            f"instance {short(instance_id)} is not in this hub: check the id and the hub (it may have been purged)"
        )
        self.instance_id = instance_id


class InstanceAlreadyExists(ClientError):
    """An instance of that id stands in a status that this start may not replace."""

    def __init__(self, instance_id: str, status: Status) -> None:
        super().__init__(
            f"instance {instance_id!r} exists already and is {status.name.lower()}: use another id, "
            "reuse='replace' to put the new one in its place, or reuse='ignore' to leave it"
        )
        self.instance_id = instance_id
        self.status = status


class StartsRefused(ClientError):
    """Some of many starts were refused, all others are done.

    `refused` tells why for each refused id; `started` gives the ids that were started.
    """

    def __init__(self, started: Sequence[str], refused: Mapping[str, InstanceAlreadyExists]) -> None:
        first = next(iter(refused.values()))
        super().__init__(f"{len(refused)} of {len(refused) + len(started)} starts were refused; the first: {first}")
        self.started = list(started)
        self.refused = dict(refused)


class InstanceNotEnded(ClientError):
    """The instance has not ended, and what was asked is only for ended ones."""

    def __init__(self, instance_id: str, what: str) -> None:
        super().__init__(f"instance {instance_id!r} has not ended and cannot be {what}: terminate it first, or wait")
        self.instance_id = instance_id


class InstanceEnded(ClientError):
    """The instance has ended, and what was asked is only for those that have not."""

    def __init__(self, instance_id: str, what: str) -> None:
        super().__init__(
            f"instance {instance_id!r} has ended and cannot be {what}: restart it, or rewind it if it failed"
        )
        self.instance_id = instance_id


class RewindRefused(ClientError):
    """Only a failed instance can be rewound."""

    def __init__(self, instance_id: str, status: Status) -> None:
        cure = "start or restart it" if status.is_terminal else "it goes on by itself"
        super().__init__(
            f"instance {instance_id!r} is {status.name.lower()} and cannot be rewound, only a failed one can: {cure}"
        )
        self.instance_id = instance_id
        self.status = status


class OrchestrationFailedError(ClientError):
    """The instance has ended without a result; `status` and `details` tell how and why."""

    def __init__(self, instance_id: str, status: Status, details: FailureDetails | None) -> None:
        why = f": {details.error_type}: {details.message}" if details is not None else ""
        super().__init__(f"instance {instance_id!r} is {status.name.lower()}{why}")
        self.instance_id = instance_id
        self.status = status
        self.details = details


class WaitTimeout(ClientError, TimeoutError):
    """What was waited for did not come in the given time; the instance goes on."""

    def __init__(self, instance_id: str, what: str, seconds: float, status: Status) -> None:
        super().__init__(
            f"instance {instance_id!r} did not {what} within {seconds:g} s and is {status.name.lower()}; "
            "it goes on: wait again, or look at what it waits for"
        )
        self.instance_id = instance_id
        self.status = status
