"""The one door to time, sleep, ids, randomness, threads and processes.

Engine, client, schedules and stores take these from an `Environment`, so that the whole of it can run in
simulation.  A lint test forbids the modules behind it anywhere else.
"""

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from holdtrue.core.events import Ticks


class Environment:
    """The real world; a simulation subclasses it.

    `inline_writer` true makes stores do their writing on the loop instead of in a thread.
    """

    inline_writer = False

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
        """A time-ordered id of 32 hex digits: 48 bits of milliseconds, 80 random ones (as UUID version 7 without its marks)."""
        return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"

    def random(self) -> random.Random:
        """A source of randomness of the caller's own."""
        return random.Random(os.urandom(16))

    def thread(self, target: Callable[[], None], name: str) -> Any:
        """A started daemon thread."""
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        return thread

    def thread_pool(self, size: int, name: str) -> Executor:
        """A pool of threads."""
        return ThreadPoolExecutor(size, thread_name_prefix=name)

    def pid(self) -> int:
        """This process's number."""
        return os.getpid()


REAL = Environment()
"""The default."""
