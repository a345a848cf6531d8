"""The errors that authors meet: at registration, at a call in an orchestrator, at a payload."""

from holdtrue.core.errors import HoldtrueError, InvalidInput


class RegistrationError(HoldtrueError):
    """A function cannot be registered as it stands; the message names it (file:line) and the cure."""


class NotRegistered(HoldtrueError):
    """A function was given that this app does not have: register it, or call it by its name."""


class PayloadError(InvalidInput):
    """A value cannot be written as JSON, or a payload does not fit the type that is expected."""


class PayloadTooLarge(PayloadError):
    """A payload is larger than the app's `max_payload`."""
