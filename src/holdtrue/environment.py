"""The one door to time, sleep, ids, randomness, threads and processes.

Engine, client, schedules and stores take these from an `Environment`, so that the whole of it can run in
simulation.  A lint test forbids the modules behind it anywhere else.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Any

from holdtrue.core.events import Ticks


class Workers:
    """Daemon threads that run calls in the order given, started as needed up to `size`.

    A call that never ends holds its thread only: it does not hold up the end of the process.
    """

    def __init__(self, size: int, name: str) -> None:
        self._size = size
        self._name = name
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._idle: deque[None] = deque()
        self._started = 0

    def put(self, call: Callable[[], None]) -> None:
        """Run this; it must not raise.  To be called from one thread."""
        try:
            self._idle.pop()
        except IndexError:
            if self._started < self._size:
                name = f"{self._name}-{self._started}"
                self._started += 1
                threading.Thread(target=self._work, name=name, daemon=True).start()
        self._calls.put(call)

    def close(self) -> None:
        """Let the threads end when they have done what was put before."""
        for _ in range(self._started):
            self._calls.put(None)

    def _work(self) -> None:
        calls, idle = self._calls, self._idle
        while (call := calls.get()) is not None:
            call()
            del call  # what it holds must not live until the next one comes
            idle.append(None)


class _Randomness:
    """Random bytes of the system's, fetched many at a time: each call of the system costs more than an id."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def take(self) -> str:
        """20 hex digits."""
        try:
            return self._texts.pop()
        except IndexError:
            data = os.urandom(10 * 256).hex()
            self._texts = [data[at : at + 20] for at in range(0, len(data), 20)]
            return self._texts.pop()

    def forget(self) -> None:
        """A forked child must not give out its parent's."""
        self._texts = []


class _Process:
    """This process's number, kept: asking the system each time would cost more than what asks for it."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    def forked(self) -> None:
        """In a forked child."""
        self.pid = os.getpid()


_randomness = _Randomness()
_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_randomness.forget)
    os.register_at_fork(after_in_child=_process.forked)


class Environment:
    """The real world; a simulation subclasses it.

    `inline_writer` true makes stores do their writing on the loop instead of in a thread.  `longest_sleep` is after how
    many seconds a wait for a time of the wall clock looks again: a clock that is set meanwhile makes it no later.
    `early_seconds` is by how much a loop may wake too early: a wait for a time is so much longer, since a look in vain
    costs more.
    """

    inline_writer = False
    longest_sleep = 60.0
    early_seconds = 0.0005

    def now(self) -> Ticks:
        """The wall clock, in ticks (100 ns since 1970 UTC)."""
        return time.time_ns() // 100

    def monotonic(self) -> float:
        """Seconds on a clock that only goes forward."""
        return time.monotonic()

    def thread_cpu(self) -> float:
        """CPU seconds of the calling thread."""
        return time.thread_time()

    async def sleep(self, seconds: float) -> None:
        """Let others run for so long."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Call on the loop after so long."""
        return asyncio.get_running_loop().call_later(seconds, call)

    def new_id(self) -> str:
        """A time-ordered id of 32 hex digits: 48 bits of milliseconds, 80 random ones (as UUID version 7)."""
        return f"{time.time_ns() // 1_000_000:012x}{_randomness.take()}"

    def random(self) -> random.Random:
        """A source of randomness of the caller's own."""
        return random.Random(os.urandom(16))

    def thread(self, target: Callable[[], None], name: str) -> Any:
        """A started daemon thread."""
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def mutex(self) -> AbstractContextManager[Any]:
        """A lock between threads."""
        return threading.Lock()

    def thread_pool(self, size: int, name: str) -> Executor:
        """A pool of threads."""
        return ThreadPoolExecutor(size, thread_name_prefix=name)

    def workers(self, size: int, name: str) -> Workers:
        """Threads for calls without a result of their own; cheaper than a `thread_pool`."""
        return Workers(size, name)

    def thread_clock(self) -> Callable[[], float] | None:
        """A clock of the calling thread's CPU seconds that any thread may read (None: the system has none).

        Reading it after the thread's end raises OSError.
        """
        clock_id = getattr(time, "pthread_getcpuclockid", None)
        if clock_id is None:
            return None
        clock = clock_id(threading.get_ident())
        return lambda: time.clock_gettime(clock)

    def interpreter_wait(self) -> float:
        """Seconds that the calling thread waits for the interpreter's lock when it lets go of it for a moment.

        Blocks for a tenth of a millisecond, and longer only where another thread keeps the lock.
        """
        began = time.perf_counter()
        time.sleep(0.0001)
        return max(0.0, time.perf_counter() - began - 0.0001)

    def set_switch_interval(self, seconds: float) -> float:
        """Set how long a busy thread keeps the interpreter's lock from others; gives what it was."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(seconds)
        return before

    def spawn(self, arguments: Sequence[str], descriptor: int) -> "subprocess.Popen[bytes]":
        """A Python of its own, run with these arguments; it gets output streams, `descriptor`, and nothing else.

        Raises OSError where the system gives no process.
        """
        from multiprocessing.spawn import get_executable  # it knows the interpreter of an embedded Python too

        return subprocess.Popen(
            [os.fsdecode(get_executable()), *arguments],
            stdin=subprocess.DEVNULL,
            close_fds=True,
            pass_fds=(descriptor,),
        )

    def pid(self) -> int:
        """This process's number."""
        return _process.pid


def python_arguments(statement: str) -> list[str]:
    """The arguments of a Python that executes a statement, and finds modules where this one does."""
    path = json.dumps([os.path.abspath(entry or os.curdir) for entry in sys.path])
    return ["-c", f"import json, sys; sys.path[:] = json.loads({path!r}); {statement}"]


REAL = Environment()
"""The default."""
