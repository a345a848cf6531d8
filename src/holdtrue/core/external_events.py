"""External events of one execution: who waits for which name, and what came before anybody waited.

Names are case-insensitive.  Several waits of one name take one event each, in order.
"""

from collections import deque
from typing import Any

from .tasks import Task


class ExternalEvents:
    """The waits and the early events of one execution; payloads are JSON texts."""

    __slots__ = ("_arrivals", "_buffered", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Task[Any]]] = {}
        self._buffered: dict[str, deque[tuple[int, str, str | None]]] = {}
        self._arrivals = 0

    def raised(self, name: str, payload: str | None) -> Task[Any] | None:
        """An event has come: the task that it is for; None where nobody waits, and it is kept."""
        folded = name.casefold()
        waiting = self._waiting.get(folded)
        if waiting:
            task = waiting.popleft()
            if not waiting:
                del self._waiting[folded]
            return task
        self._arrivals += 1
        self._buffered.setdefault(folded, deque()).append((self._arrivals, name, payload))
        return None

    def wait(self, name: str, task: Task[Any]) -> tuple[str | None] | None:
        """Let a task wait: the payload of the oldest event that came early, which is its own now; None for none."""
        folded = name.casefold()
        buffered = self._buffered.get(folded)
        if buffered:
            _, _, payload = buffered.popleft()
            if not buffered:
                del self._buffered[folded]
            return (payload,)
        self._waiting.setdefault(folded, deque()).append(task)

        def forget() -> None:
            queue = self._waiting.get(folded)
            if queue is not None and task in queue:
                queue.remove(task)
                if not queue:
                    del self._waiting[folded]

        task._on_cancel = forget
        return None

    def waited(self) -> list[str]:
        """The names that somebody waits for, in lower case."""
        return sorted(self._waiting)

    def buffered(self) -> tuple[tuple[str, str | None], ...]:
        """Names and payloads of the events that nobody has taken, in the order they came."""
        found = sorted(item for queue in self._buffered.values() for item in queue)
        return tuple((name, payload) for _, name, payload in found)
