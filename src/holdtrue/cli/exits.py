"""Exit codes: what each means, and which error ends with which.  The reference page is drawn from here."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended; `MEANINGS` says it in words."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    HUB_UNAVAILABLE = 5
    TIMEOUT = 6
    APP_BROKEN = 7
    DEFECT = 70
    INTERRUPTED = 130
    STOPPED = 143


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "Done; for `wait`: the instance ended as Completed.",
    ExitCode.FAILED: "The operation failed, or the instance waited for ended as Failed, Terminated or Canceled; "
    "also: a question was answered with no; the reader of the output went away; for `check-replay`: an instance "
    "would not go on.",
    ExitCode.USAGE: "Wrong usage: an unknown option, a value that is not valid (JSON, a time, an id, a cron), a "
    "history file that is cut, was changed, or is of a newer Holdtrue.",
    ExitCode.NOT_FOUND: "There is no such instance, schedule, dead letter, backup or history file.",
    ExitCode.REFUSED: "Refused as things stand: the instance, schedule or file exists already, has not ended, "
    "or has ended; the dead letter cannot be sent.",
    ExitCode.HUB_UNAVAILABLE: "The task hub is not there or cannot be used: no file, locked, read-only, disk full, "
    "damaged, of a newer Holdtrue, on a network file system.",
    ExitCode.TIMEOUT: "The time given by `--timeout` is over; what was waited for goes on.",
    ExitCode.APP_BROKEN: "The application given to `run` or `check-replay` cannot be imported, or refuses its own "
    "functions.",
    ExitCode.DEFECT: "An unexpected error, a defect of Holdtrue; `--debug` shows where.",
    ExitCode.INTERRUPTED: "Interrupted (Ctrl-C); for `run`: by a second one, before it had drained.",
    ExitCode.STOPPED: "`run`: stopped by a second SIGTERM, before it had drained.",
}


class CommandError(Exception):
    """A command cannot go on: the message for the user, and the code to end with."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


class UsageProblem(CommandError):
    """What the user typed cannot be meant."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.USAGE)


def code_of(error: BaseException) -> ExitCode:
    """The code with which an error ends a command; `DEFECT` for one that nobody raises on purpose."""
    if isinstance(error, CommandError):
        return error.code
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    # Late: an error of these modules can only come when they have been imported already.
    from holdtrue.client import errors as of_client
    from holdtrue.core.errors import HoldtrueError, InvalidInput
    from holdtrue.schedules import errors as of_schedules
    from holdtrue.stores.errors import StoreError

    by_class: tuple[tuple[type[BaseException], ExitCode], ...] = (
        (TimeoutError, ExitCode.TIMEOUT),
        (of_client.InstanceNotFound, ExitCode.NOT_FOUND),
        (of_schedules.ScheduleNotFound, ExitCode.NOT_FOUND),
        (of_client.InstanceAlreadyExists, ExitCode.REFUSED),
        (of_client.InstanceNotEnded, ExitCode.REFUSED),
        (of_client.InstanceEnded, ExitCode.REFUSED),
        (of_client.RewindRefused, ExitCode.REFUSED),
        (of_schedules.ScheduleExists, ExitCode.REFUSED),
        (InvalidInput, ExitCode.USAGE),
        (StoreError, ExitCode.HUB_UNAVAILABLE),
        (HoldtrueError, ExitCode.FAILED),
        (OSError, ExitCode.FAILED),
    )
    for kind, code in by_class:
        if isinstance(error, kind):
            return code
    return ExitCode.DEFECT
