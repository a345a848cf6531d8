"""The blocking client: the names and meanings of `Client`, for code without an event loop.

A private loop in a thread does the work; every method here is the async one, awaited there.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from holdtrue.core.errors import HoldtrueError
from holdtrue.environment import REAL, Environment
from holdtrue.stores.errors import ForkedProcess
from holdtrue.stores.protocol import TaskHubStore

from .client import Client
from .local import Program
from .schedules import Schedules

P = ParamSpec("P")
R = TypeVar("R")
Owner = TypeVar("Owner")

CHUNK = 100
"""Items of a stream fetched at one crossing between the threads."""


class ClientLoop:
    """Where the calls of a blocking client are done: an event loop in a thread of its own, or a borrowed one."""

    def __init__(self, environment: Environment, borrowed: asyncio.AbstractEventLoop | None = None) -> None:
        self._environment = environment
        self._loop: asyncio.AbstractEventLoop | None = borrowed
        self._thread: Any = None
        self._pid = environment.pid()

    @property
    def forked(self) -> bool:
        """True in a forked child: the loop's thread is its parent's."""
        return self._environment.pid() != self._pid

    def start(self) -> None:
        """Begin, in a new thread."""
        self._pid = self._environment.pid()
        self._loop = asyncio.new_event_loop()
        self._thread = self._environment.thread(self._loop.run_forever, "holdtrue-client")

    def run(self, work: Awaitable[R]) -> R:
        """Wait for it; an interrupt (Ctrl-C) of the wait cancels it."""
        loop = self._loop
        if loop is None:
            if isinstance(work, Coroutine):
                work.close()
            raise HoldtrueError("this client is not open: use it in a `with` block")
        if self.forked:
            if isinstance(work, Coroutine):
                work.close()
            raise ForkedProcess(
                "this client was opened before this process forked: make and open a SyncClient of the child's own"
            )
        future: Future[R] = asyncio.run_coroutine_threadsafe(_awaited(work), loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the loop and its thread."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


async def _awaited(work: Awaitable[R]) -> R:
    return await work


async def _take(stream: AsyncIterator[R], count: int) -> list[R]:
    items: list[R] = []
    async for item in stream:
        items.append(item)
        if len(items) == count:
            break
    return items


async def _close(stream: AsyncIterator[Any]) -> None:
    close = getattr(stream, "aclose", None)
    if close is not None:
        await close()


class _Blocking(Generic[Owner, P, R]):
    """An async method of `Owner` as a blocking one, with the same parameters and result."""

    def __init__(self, method: Callable[Concatenate[Owner, P], Awaitable[R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, face: "_Face[Owner]", kind: type) -> Callable[P, R]:
        if face is None:
            return self  # the class itself was asked: documentation tools do
        method = self._method

        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            return face._loop.run(method(face._target, *args, **kwargs))

        call.__doc__, call.__name__ = self.__doc__, getattr(method, "__name__", "call")
        return call


class _Streaming(Generic[Owner, P, R]):
    """An async generator method of `Owner` as an ordinary iterator, fetched in chunks."""

    def __init__(self, method: Callable[Concatenate[Owner, P], AsyncIterator[R]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, face: "_Face[Owner]", kind: type) -> Callable[P, Iterator[R]]:
        if face is None:
            return self  # as above
        method = self._method

        def call(*args: P.args, **kwargs: P.kwargs) -> Iterator[R]:
            stream = method(face._target, *args, **kwargs)
            try:
                while True:
                    items = face._loop.run(_take(stream, CHUNK))
                    yield from items
                    if len(items) < CHUNK:
                        return
            finally:
                face._loop.run(_close(stream))

        call.__doc__, call.__name__ = self.__doc__, getattr(method, "__name__", "call")
        return call


class _Face(Generic[Owner]):
    """Something blocking in front of something async that lives on the loop's thread."""

    def __init__(self, loop: ClientLoop, target: Owner | None) -> None:
        self._loop = loop
        self._async = target

    @property
    def _target(self) -> Owner:
        if self._async is None:
            raise HoldtrueError("this client is not open: use it in a `with` block")
        return self._async


class SyncSchedules(_Face[Schedules]):
    """`Client.schedules`, blocking."""

    create = _Blocking(Schedules.create)  # type: ignore[arg-type]  # its **members hide `self`
    put = _Blocking(Schedules.put)  # type: ignore[arg-type]  # its **members hide `self`
    update = _Blocking(Schedules.update)  # type: ignore[arg-type]  # its **members hide `self`
    delete = _Blocking(Schedules.delete)
    pause = _Blocking(Schedules.pause)
    resume = _Blocking(Schedules.resume)
    trigger = _Blocking(Schedules.trigger)
    get = _Blocking(Schedules.get)
    list = _Blocking(Schedules.list)
    next_runs = _Blocking(Schedules.next_runs)
    ticks = _Blocking(Schedules.ticks)
    all_ticks = _Streaming(Schedules.all_ticks)


class SyncClient(_Face[Client]):
    """Blocking client of one task hub; use it as a context manager.  For the methods see `Client`.

    It may be used from several threads.  Opening raises StoreError where the hub cannot be opened.
    """

    def __init__(
        self,
        hub: str | os.PathLike[str] | TaskHubStore,
        *,
        app: Program | None = None,
        environment: Environment = REAL,
    ) -> None:
        super().__init__(ClientLoop(environment), None)
        self._arguments = (hub, app, environment)

    @classmethod
    def of(cls, client: Client, loop: asyncio.AbstractEventLoop | ClientLoop) -> "SyncClient":
        """A blocking face of an open client whose loop runs in another thread; it is not to be closed."""
        face = cls(client.store, environment=client.environment)
        face._loop = loop if isinstance(loop, ClientLoop) else ClientLoop(client.environment, loop)
        face._async = client
        return face

    def __enter__(self) -> "SyncClient":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Open the hub (made if there is none)."""
        self._loop.start()
        hub, app, environment = self._arguments

        async def begin() -> Client:
            client = Client(hub, app=app, environment=environment)
            await client.open()
            return client

        try:
            self._async = self._loop.run(begin())
        except BaseException:
            self._loop.stop()
            raise

    def close(self) -> None:
        """Close the hub; idempotent."""
        client, self._async = self._async, None
        if client is not None and not self._loop.forked:
            try:
                self._loop.run(client.close())
            finally:
                self._loop.stop()

    @property
    def schedules(self) -> SyncSchedules:
        """The hub's schedules."""
        return SyncSchedules(self._loop, self._target.schedules)

    start = _Blocking(Client.start)
    start_many = _Blocking(Client.start_many)
    start_if_not_running = _Blocking(Client.start_if_not_running)
    restart = _Blocking(Client.restart)
    get_status = _Blocking(Client.get_status)
    wait_for_start = _Blocking(Client.wait_for_start)
    wait_for_completion = _Blocking(Client.wait_for_completion)
    wait_for_change = _Blocking(Client.wait_for_change)
    history = _Streaming(Client.history)
    query = _Streaming(Client.query)
    query_page = _Blocking(Client.query_page)
    raise_event = _Blocking(Client.raise_event)
    suspend = _Blocking(Client.suspend)
    resume = _Blocking(Client.resume)
    cancel = _Blocking(Client.cancel)
    terminate = _Blocking(Client.terminate)
    rewind = _Blocking(Client.rewind)
    purge = _Blocking(Client.purge)
    purge_where = _Blocking(Client.purge_where)
    many = _Blocking(Client.many)
    dead_letters = _Streaming(Client.dead_letters)
    resend_dead_letters = _Blocking(Client.resend_dead_letters)
    dismiss_dead_letters = _Blocking(Client.dismiss_dead_letters)
    info = _Blocking(Client.info)
    backup = _Blocking(Client.backup)
