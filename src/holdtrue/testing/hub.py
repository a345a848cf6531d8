"""`TestHub`: the user's app at work in a test, in virtual time.

A test that is `async def` runs on a loop of its own, and asyncio has one running loop in a thread.  So the hub's loop
runs in a second thread there, only while a call of the hub is awaited.  The test's loop goes on meanwhile (its
time-outs strike, a server on it answers), no private part of asyncio is bent, and the hub's loop, which nothing else
touches, does the same as in a sync test.
"""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, cast

from holdtrue.authoring.app import App
from holdtrue.client.client import Client
from holdtrue.client.errors import InstanceNotFound
from holdtrue.client.status import InstanceStatus
from holdtrue.client.sync import ClientLoop, SyncClient
from holdtrue.core.dialect import to_datetime
from holdtrue.core.errors import HoldtrueError, InvalidInput
from holdtrue.core.events import HistoryEvent

from .environment import EPOCH
from .fakes import Fake, FakeableApp
from .hub_world import World

BEGINS = to_datetime(EPOCH).replace(tzinfo=UTC)
"""The virtual time when a hub begins, unless another is given."""

P = ParamSpec("P")
R = TypeVar("R")
Span = timedelta | float


class TestHub:
    """An app in a test: a host, a client and a hub in memory, whose time passes only when the test lets it.

    `with TestHub(app) as hub:` in a sync test; `async with TestHub(app) as hub:` in an async one, where its methods are
    awaited.
    `now` is when virtual time begins (a naive one is UTC).  The same `seed` gives the same ids and the same run.
    `fakes` replaces activities (see `fake`).  `schedules` false: the app's schedules do not run.

    Between two calls nothing happens.  Each does all that can be done at once; time passes only in `advance` and
    in what waits, and takes none.  Activities of all kinds run on the hub's loop, in one order.
    """

    __test__ = False  # pytest takes what is named Test… for a test

    def __init__(
        self,
        app: App,
        *,
        fakes: Mapping[Any, Fake] | None = None,
        now: datetime = BEGINS,
        seed: int = 0,
        schedules: bool = True,
    ) -> None:
        self._app = FakeableApp(app)
        for activity, fake in (fakes or {}).items():
            self._app.put_fake(activity, fake)
        self._begins = now if now.tzinfo is not None else now.replace(tzinfo=UTC)
        self._seed = seed
        self._schedules = schedules
        self._world: World | None = None
        self._elsewhere: AsyncTestHub | None = None

    # -- life ------------------------------------------------------------------------------------------

    def __enter__(self) -> "TestHub":
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> "AsyncTestHub":
        self._elsewhere = AsyncTestHub(self)
        return await self._elsewhere.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._elsewhere is not None:
            await self._elsewhere.__aexit__(kind, error, trace)

    def open(self) -> None:
        """Begin, as `with` does.  Raises WrongLoop in an async test, and HoldtrueError where it is open."""
        if self._world is not None:
            raise HoldtrueError("this TestHub is open, or was closed: make another")
        world = World(self._app, seed=self._seed, begins=self._begins, schedules=self._schedules)
        self._world = world
        try:
            world.begin()
        except BaseException:
            world.end()
            raise

    def close(self) -> None:
        """End, as leaving `with` does; what is unfinished is dropped."""
        if self._world is not None:
            self._world.end()

    @property
    def _there(self) -> World:
        if self._world is None or self._world.loop.is_closed():
            raise HoldtrueError("this TestHub is not open: use it in a `with` block (an `async with` in an async test)")
        return self._world

    # -- time ------------------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The virtual time, aware, in UTC."""
        return self._begins.astimezone(UTC) if self._world is None else self._world.now

    def advance(self, span: Span) -> None:
        """Let so much time pass (a timedelta, or seconds), with all that is due meanwhile.

        Raises InvalidInput for a negative span.
        """
        seconds = _seconds(span)
        if not 0 <= seconds < 1e11:
            raise InvalidInput(f"time cannot be advanced by {span!r}: give a timedelta or seconds, 0 or more")
        self._there.pass_time(seconds)

    def run_until_idle(self) -> None:
        """Do all that can be done without time passing."""
        self._there.settle()

    # -- orchestrations ----------------------------------------------------------------------------------

    def start(self, orchestrator: Callable[..., Any] | str, /, **options: Any) -> str:
        """Start an orchestration; its instance id.  Options and errors are those of `Client.start` (`input=…`)."""
        world = self._there
        return world.do(world.client.start(orchestrator, **options))

    def raise_event(self, instance_id: str, name: str, data: Any = None) -> None:
        """Raise an event to an instance.  Errors are those of `Client.raise_event`."""
        world = self._there
        world.do(world.client.raise_event(instance_id, name, data))

    def wait(self, instance_id: str, *, within: Span | None = None) -> InstanceStatus:
        """Let time pass until it has ended; its status (`output`, `raise_if_failed`).

        Raises WaitsForever where it cannot end any more, or does not `within` so much time (without `within`: where so
        much else is due before it that it looks endless); InstanceNotFound.
        """
        world = self._there
        return world.do(world.client.wait_for_completion(instance_id), None if within is None else _seconds(within))

    def status(self, instance_id: str) -> InstanceStatus:
        """Its status, with what it waits for.  Raises InstanceNotFound."""
        world = self._there
        status = world.do(world.client.get_status(instance_id, waits=True))
        if status is None:
            raise InstanceNotFound(instance_id)
        return status

    def history(self, instance_id: str) -> list[HistoryEvent]:
        """The events of its current execution.  Raises InstanceNotFound."""

        async def read(client: Client) -> list[HistoryEvent]:
            return [event async for event in client.history(instance_id)]

        world = self._there
        return world.do(read(world.client))

    @property
    def client(self) -> SyncClient:
        """The client of this hub: all that a client can do.  What it waits for lets time pass."""
        world = self._there
        return SyncClient.of(world.client, _OnWorld(world))

    # -- activities --------------------------------------------------------------------------------------

    def fake(self, activity: Callable[..., Any] | str, fake: Fake | None) -> None:
        """From now on `fake` runs in the place of an activity (given as function or name); None: itself again.

        It gets the input alone, or, where its first parameter is named `ctx` or it needs two, the context and the
        input; it may be async, and what it raises is the activity's failure.  Raises InvalidInput for an activity
        that the app does not have.
        """
        self._app.put_fake(activity, fake)

    def calls(self, activity: Callable[..., Any] | str) -> list[Any]:
        """The inputs of all runs of an activity so far, in order, be it a fake or not.  Raises InvalidInput."""
        return list(self._app.calls[self._app.name_of(activity)])


class _OnWorld(ClientLoop):
    """Where a blocking client's calls are done: on the loop with virtual time, there and then."""

    def __init__(self, world: World) -> None:
        super().__init__(world.environment)
        self._world = world

    def run(self, work: Awaitable[R]) -> R:
        return self._world.do(work)


# -- for async tests -------------------------------------------------------------------------------------


class _There(Generic[P, R]):
    """A method of `TestHub` that is awaited, with the same parameters and result."""

    def __init__(self, method: Callable[Concatenate[TestHub, P], R]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, hub: "AsyncTestHub | None", kind: type) -> Callable[P, Coroutine[Any, Any, R]]:
        if hub is None:
            return self  # type: ignore[return-value]  # the class itself was asked: documentation tools do
        method = self._method

        @wraps(method)
        async def call(*args: P.args, **kwargs: P.kwargs) -> R:
            world = hub._hub._there
            return await hub._do(partial(method, hub._hub, *args, **kwargs), world)

        return call


class AsyncTestHub:
    """What `async with TestHub(app) as hub` gives: `TestHub`, with methods that are awaited."""

    def __init__(self, hub: TestHub) -> None:
        self._hub = hub
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="holdtrue-test-hub")

    async def __aenter__(self) -> "AsyncTestHub":
        try:
            await self._do(self._hub.open)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise
        return self

    def open(self) -> None:
        """Begin, blocking: for a fixture that is not async."""
        try:
            self._thread.submit(self._hub.open).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    def close(self) -> None:
        """End, blocking."""
        try:
            self._thread.submit(self._hub.close).result()
        finally:
            self._thread.shutdown()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._do(self._hub.close)
        finally:
            self._thread.shutdown(wait=False)

    async def _do(self, call: Callable[[], R], world: World | None = None) -> R:
        """Do it in the hub's thread; where this wait is cancelled, it ends between two rounds of the `world`'s loop."""
        unwanted = threading.Event()

        def do() -> R:
            with contextlib.nullcontext() if world is None else world.loop.interrupted_when(unwanted.is_set):
                return call()

        try:
            return await asyncio.wrap_future(self._thread.submit(do))  # called off with this wait, if it has not begun
        except asyncio.CancelledError:
            unwanted.set()
            raise

    @property
    def now(self) -> datetime:
        """The virtual time, aware, in UTC."""
        return self._hub.now

    @property
    def client(self) -> Client:
        """The client of this hub: all that a client can do.  What it waits for lets time pass."""
        return cast(Client, _ClientThere(self, self._hub._there.client))

    start = _There(TestHub.start)
    raise_event = _There(TestHub.raise_event)
    wait = _There(TestHub.wait)
    status = _There(TestHub.status)
    history = _There(TestHub.history)
    advance = _There(TestHub.advance)
    run_until_idle = _There(TestHub.run_until_idle)

    def fake(self, activity: Callable[..., Any] | str, fake: Fake | None) -> None:
        """As `TestHub.fake`; not awaited."""
        self._hub.fake(activity, fake)

    def calls(self, activity: Callable[..., Any] | str) -> list[Any]:
        """As `TestHub.calls`; not awaited."""
        return self._hub.calls(activity)


class _ClientThere:
    """A client (or its schedules) whose coroutines are run in the hub's thread."""

    def __init__(self, hub: AsyncTestHub, target: Any) -> None:
        self._hub = hub
        self._target = target

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._target, name)
        hub = self._hub
        world = hub._hub._there
        if inspect.iscoroutinefunction(value):

            async def call(*args: Any, **kwargs: Any) -> Any:
                return await hub._do(lambda: world.do(value(*args, **kwargs)), world)

            return call
        if inspect.isasyncgenfunction(value):

            async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                async def read() -> list[Any]:
                    return [item async for item in value(*args, **kwargs)]

                for item in await hub._do(lambda: world.do(read()), world):
                    yield item

            return stream
        return _ClientThere(hub, value) if name == "schedules" else value


def _seconds(span: Span) -> float:
    return span.total_seconds() if isinstance(span, timedelta) else float(span)
