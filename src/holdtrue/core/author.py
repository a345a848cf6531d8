"""What the author's side lends to the pure core: the code, and conversions between its values and payloads."""

from typing import TYPE_CHECKING, Any, Protocol

from . import events as ev
from .errors import HoldtrueError
from .tasks import Task, TaskFailedError

if TYPE_CHECKING:
    from .replay import Run


class OrchestratorNotFound(HoldtrueError):
    """This worker has no code of that name: the instance is to wait for one that has."""


class Author(Protocol):
    """What the author's side lends to a run: the code, and the conversions between its values and payloads."""

    def begin(self, run: "Run", started: ev.ExecutionStarted) -> Any:
        """Call the orchestrator: a coroutine, a generator, or the result of a plain function.

        Raises OrchestratorNotFound for a name that there is no code of.
        """

    def encode(self, value: Any) -> str | None:
        """A value as payload; raises where it cannot be."""

    def decode(self, payload: str | None, expected_type: Any) -> Any:
        """A payload as value; raises where it does not fit the type."""

    def failure(self, error: BaseException) -> ev.FailureDetails:
        """An error as failure details."""

    def task_failed(self, message: str, failure: ev.FailureDetails) -> TaskFailedError:
        """The error to raise for a failed task."""

    def adopt(self, awaited: Any) -> Task[Any] | None:
        """A task for a foreign awaitable object that this side knows how to take, else None."""
