"""Why a test with a hub in virtual time cannot go on."""

from holdtrue.core.errors import HoldtrueError


class WaitsForever(HoldtrueError):
    """What a test waits for does not come: nothing is due any more, or not within the time given.

    The message says of each unfinished instance what it waits for.
    """

    __module__ = "holdtrue.testing"


class WrongLoop(HoldtrueError):
    """A hub in virtual time was used from within an event loop that it cannot wait in; the message says how it can."""

    __module__ = "holdtrue.testing"
