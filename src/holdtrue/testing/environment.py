"""The environment of a simulation: time is the loop's, chance comes from one seed, nothing runs beside the loop."""

import asyncio
import random
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.environment import Environment, Workers

EPOCH: Ticks = 1_767_225_600 * TICKS_PER_SECOND
"""The wall clock when a simulation begins: 2026-01-01 00:00 UTC."""


class _InPlace(Executor):
    """A pool without threads: the call is done when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  it is the answer
            future.set_exception(error)
        return future


class _SoonOnLoop(Workers):
    """Calls without a result of their own, each a step of the loop."""

    def __init__(self) -> None:
        super().__init__(0, "")

    def put(self, call: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(call)

    def close(self) -> None:
        pass


class SimulatedEnvironment(Environment):
    """Virtual time on the running `VirtualLoop`, and randomness of a seed.

    `skew` is by how many ticks this process's wall clock is wrong.
    """

    inline_writer = True

    def __init__(self, seed: int, *, epoch: Ticks = EPOCH) -> None:
        self._random = random.Random(seed)
        self._epoch = epoch
        self.skew: Ticks = 0

    def now(self) -> Ticks:
        return self._epoch + self.skew + int(self.monotonic() * TICKS_PER_SECOND)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def thread_cpu(self) -> float:
        return 0.0

    def new_id(self) -> str:
        return f"{self.now() // 10_000 & (1 << 48) - 1:012x}{self._random.getrandbits(80):020x}"

    def random(self) -> random.Random:
        return random.Random(self._random.getrandbits(64))

    def thread(self, target: Callable[[], None], name: str) -> Any:
        raise NotImplementedError(f"thread {name!r}: there are no threads in a simulation")

    def thread_pool(self, size: int, name: str) -> Executor:
        return _InPlace()

    def workers(self, size: int, name: str) -> Workers:
        return _SoonOnLoop()

    def thread_clock(self) -> Callable[[], float] | None:
        return None

    def interpreter_wait(self) -> float:
        return 0.0

    def set_switch_interval(self, seconds: float) -> float:
        return seconds

    def spawn(self, arguments: Sequence[str], descriptor: int) -> Any:
        raise NotImplementedError("there are no processes in a simulation")
