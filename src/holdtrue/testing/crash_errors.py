"""Why a check for crash safety cannot be made, or was not passed."""

from holdtrue.core.errors import HoldtrueError


class CannotCheck(HoldtrueError):
    """A check for crash safety was asked for what it cannot do; the message says what, and what to change."""

    __module__ = "holdtrue.testing"


class DoesNotEnd(CannotCheck):
    """The orchestration does not end by itself, though nothing disturbs it; the message says what it waits for."""

    __module__ = "holdtrue.testing"


class NotReset(CannotCheck):
    """The state that the user's probe gives is not the same after two undisturbed runs."""

    __module__ = "holdtrue.testing"


class CrashUnsafe(AssertionError):
    """An orchestration does not come to the same end where a host dies, or a result comes twice, late, or in another
    order; the message is the report."""

    __module__ = "holdtrue.testing"
