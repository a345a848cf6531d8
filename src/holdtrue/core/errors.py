"""Errors that the pure core can raise.  Each says what happened, to which instance, and what to do."""


class HoldtrueError(Exception):
    """The base of every error that Holdtrue raises on purpose."""


class InvariantBroken(HoldtrueError):
    """A commit would break a law of histories; it is refused before it can leave the core.

    This is a defect of Holdtrue or of whoever wrote the history, never of a user's orchestration.
    """


class NonDeterminismError(HoldtrueError):
    """An orchestrator's code no longer fits its history.

    `step` names the step of history, `call` what the code did instead (with its line where it is known).
    `event` is the ordinal of that step, `place` the `file:line` of the user's code that did otherwise; None
    where they cannot be told.
    """

    def __init__(
        self, instance_id: str, step: str, call: str, *, event: int | None = None, place: str | None = None
    ) -> None:
        super().__init__(
            f"instance {instance_id!r} no longer fits its code: history has {step}, the code {call}. "
            "Deploy code that fits (or branch on ctx.version), and the instance goes on by itself; "
            'or terminate it, or start another in its place (reuse="replace").'
        )
        self.instance_id = instance_id
        self.step = step
        self.call = call
        self.event = event
        self.place = place


class InvalidInput(HoldtrueError, ValueError):
    """A value that a task hub cannot take; the message names the thing and the cure."""
