"""Calls that may take no longer than so long each, of code that may never come back.

They run one after the other in a thread of their own, on an event loop as a worker's steps do.  One that takes too
long is told of with the line where it is, an exception is raised in it, and another thread goes on with the rest.
(What keeps the interpreter's lock without end, inside a library in C, keeps this process too.)
"""

import asyncio
import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Generic, TypeVar

from holdtrue.core.places import running_at
from holdtrue.environment import REAL

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 200
"""Calls handed to the thread together."""
_LOOK_SECONDS = 0.05


class TookTooLong(BaseException):
    """Raised within a call that takes too long."""


class _Thread(Generic[T, R]):
    """One thread that calls; `since` is when the call that runs now began."""

    def __init__(self, call: Callable[[T], R]) -> None:
        self.to_do: SimpleQueue[Any] = SimpleQueue()
        self.done: SimpleQueue[tuple[R | None, BaseException | None]] = SimpleQueue()
        self.since: float | None = None
        self.given_up = False
        self._striking = REAL.mutex()
        self._call = call
        self._thread = REAL.thread(self._run, "holdtrue-limited")

    def _run(self) -> None:
        try:
            asyncio.run(self._work())
        except TookTooLong:
            pass

    async def _work(self) -> None:
        while (given := self.to_do.get()) is not None and not self.given_up:
            answer: tuple[R | None, BaseException | None]
            self.since = REAL.monotonic()
            try:
                answer = (self._call(given[0]), None)
            except Exception as error:  # noqa: BLE001  it is the answer
                answer = (None, error)
            finally:
                self._over()
            self.done.put(answer)

    def _over(self) -> None:
        """The call has ended.  What was raised in this thread for it meanwhile lands here, and no more comes: it must
        not reach what closes the loop."""
        while True:
            try:
                with self._striking:
                    self.since = None
                for _ in range(3):
                    pass  # between two turns the interpreter raises what it was told to
                return
            except TookTooLong:
                self.given_up = True

    def place(self) -> str | None:
        """`file:line` of the user's code where it is now."""
        frame = sys._current_frames().get(self._thread.ident)
        return None if frame is None else running_at(frame)

    def give_up(self) -> None:
        """Nobody waits for it any more: let it end as soon as it can."""
        self.given_up = True
        self.end()
        with self._striking:
            if self.since is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread.ident), ctypes.py_object(TookTooLong)
                )

    def end(self) -> None:
        """All is done."""
        self.to_do.put(None)


class TimeLimit(Generic[T, R]):
    """Calls `call` with one item after the other, each for `seconds` at most; use it as a context manager.

    `late(item, place)` gives what stands for the answer of one that took longer.  What `call` raises is raised.
    """

    def __init__(self, call: Callable[[T], R], seconds: float, late: Callable[[T, str | None], R]) -> None:
        self._call = call
        self._seconds = seconds
        self._late = late
        self._thread: _Thread[T, R] | None = None
        self._left: list[_Thread[T, R]] = []

    def __enter__(self) -> "TimeLimit[T, R]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None and error is not None:
            self._leave_behind(self._thread)
        elif self._thread is not None:
            self._thread.end()
        self._strike()

    def each(self, items: Iterable[T]) -> Iterator[R]:
        """The answers, in order."""
        waiting = iter(items)
        while some := list(islice(waiting, _AT_ONCE)):
            while some:
                answers = self._some(some)
                some = some[len(answers) :]
                yield from answers

    def _some(self, items: Sequence[T]) -> list[R]:
        """The answers up to one that took too long."""
        thread = self._thread = self._thread or _Thread(self._call)
        for item in items:
            thread.to_do.put((item,))
        answers: list[R] = []
        while len(answers) < len(items):
            try:
                answer, error = thread.done.get(timeout=min(_LOOK_SECONDS, self._seconds))
            except Empty:
                since = thread.since
                if since is None or REAL.monotonic() - since <= self._seconds:
                    continue
                answers.append(self._late(items[len(answers)], thread.place()))
                self._leave_behind(thread)
                break
            if error is not None:
                self._leave_behind(thread)
                raise error
            answers.append(answer)  # type: ignore[arg-type]
        return answers

    def _leave_behind(self, thread: _Thread[T, R]) -> None:
        self._thread = None
        self._left.append(thread)
        self._strike()

    def _strike(self) -> None:
        for thread in self._left:
            thread.give_up()
