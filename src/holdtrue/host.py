"""What users run: a host, which is an engine and a client on one task hub, in the caller's own event loop.

`async with Host(app, "hub.db") as host:` works in a script, a test or a web app's lifespan; `run(app, ...)`
is a process of its own that drains at SIGTERM.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from holdtrue.authoring.app import App
from holdtrue.client.changes import Changes
from holdtrue.client.client import Client
from holdtrue.client.schedules import Schedules
from holdtrue.client.sync import SyncClient
from holdtrue.core.messages import WorkRef
from holdtrue.engine.activities import ActivityPool, PoolSettings
from holdtrue.engine.cpu_processes import refuse_host
from holdtrue.engine.dispatcher import SAFETY_LOOK_SECONDS, Dispatcher
from holdtrue.engine.retention import RetentionPolicy, RetentionService
from holdtrue.engine.schedule_service import ScheduleService
from holdtrue.engine.settings import HostSettings
from holdtrue.environment import REAL, Environment
from holdtrue.stores.errors import LeaseLost, StoreError
from holdtrue.stores.locate import open_store
from holdtrue.stores.protocol import Delivery, InstanceRecord, LockedInstance, Notice, TaskHubStore

log = logging.getLogger("holdtrue.host")

MOST_KEPT_WAITING = 1_000
"""Async activities that may wait for a slot here where others could be given them only through a queue."""


class Host:
    """An engine at work on a task hub, and a client of it.

    `hub` is a path, a URL (`sqlite:///…`) or a store.  Use it as an async context manager; leaving drains:
    nothing new is begun, what runs gets `settings.drain_seconds`, the rest goes back to the hub.
    """

    def __init__(
        self,
        app: App,
        hub: str | os.PathLike[str] | TaskHubStore,
        *,
        settings: HostSettings | None = None,
        retention: RetentionPolicy | None = None,
        environment: Environment = REAL,
    ) -> None:
        self.app = app
        self.settings = settings or HostSettings()
        self.environment = environment
        self.store: TaskHubStore = open_store(hub, environment, lease_seconds=self.settings.lease_seconds)
        self.changes = Changes()
        self.client = Client(self.store, app=app, environment=environment, local=self)
        self.dispatcher = Dispatcher(
            app,
            self.store,
            environment,
            self.settings,
            changed=self._instances_changed,
            committed=self._instances_committed,
            lost=self._lease_lost,
        )
        self.pool: ActivityPool | None = None
        self.schedules: ScheduleService | None = None
        self._retention_policy = retention
        self._background: list[asyncio.Task[None]] = []
        self._rejoining: asyncio.Task[None] | None = None
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.number = 0

    # -- life ------------------------------------------------------------------------------------------

    async def __aenter__(self) -> "Host":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Open the hub, take part in it, begin to work.

        Raises StoreError where the hub cannot be opened or joined: what was taken of it is given back, and this host
        is over, as after `stop`; RuntimeError for one that is over.
        """
        if self._closing:
            raise RuntimeError("this host has stopped, or could not start: make a new Host")
        refuse_host()
        try:
            await self._start()
        except (Exception, asyncio.CancelledError):
            # A hub that was half joined would be kept from whoever starts next.
            await self.stop()
            raise

    async def _start(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.store.open()
        self.store.listen(self._notice)
        await self._join()
        settings = self.settings
        self.pool = ActivityPool(
            self.app,
            self.environment,
            settings=pool_settings(settings, takes_ahead=self.store.takes_ahead),
            finished=self.dispatcher.finished,
            report=self.store.report,
            client_factory=self._client_for,
            hub=self.store.location,
            freed=self.dispatcher.freed,
        )
        self.dispatcher.start(self.pool)
        if settings.schedules:
            self.schedules = ScheduleService(
                self.store,
                self.environment,
                started=self._started,
                wants=self.dispatcher.wants,
                deliver=self.dispatcher.deliver,
                safety_looks=settings.safety_looks,
            )
            for spec in self.app.schedules:
                await Schedules(self.store, self.environment, self.app.converter.encode).put(spec)
            self._background.append(asyncio.ensure_future(self.schedules.run()))
        if settings.retention:
            retention = RetentionService(self.store, self.environment, self._retention_policy or RetentionPolicy())
            self._background.append(asyncio.ensure_future(retention.run()))
        self._background.append(asyncio.ensure_future(self._keep_alive()))

    async def stop(self) -> None:
        """Drain and close; idempotent."""
        if self._closing:
            return
        self._closing = True
        for task in self._background:
            task.cancel()
        for task in self._background:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        unfinished = [] if self.pool is None else await self._drain(self.pool)
        await self.dispatcher.stop(unfinished)
        try:
            await self.store.leave()
        except StoreError as error:
            log.warning("could not leave the hub cleanly (this host's lease will end): %s", error)
        await self.store.close()
        self.changes.close()

    async def _drain(self, pool: ActivityPool) -> list[WorkRef]:
        """What waits for a slot goes back at once, what runs gets its time; what did not end."""
        giving = asyncio.ensure_future(self.dispatcher.give_back(pool.begin_drain()))
        unfinished = await pool.drain(self.settings.drain_seconds)
        await giving
        return unfinished

    async def _join(self) -> None:
        app, settings = self.app, self.settings
        self.number = await self.store.join(
            settings.name or f"host-{self.environment.pid()}", list(app.orchestrators), app.queues(settings.tags)
        )

    async def _keep_alive(self) -> None:
        last_look = self.environment.monotonic()
        while True:
            await self.environment.sleep(self.settings.renew_seconds)
            try:
                dead = await self.store.renew()
                if dead:
                    self.dispatcher.counters.takeovers += len(dead)
                    log.warning("took over the work of %s, which died", ", ".join(dead))
                    self.dispatcher.notice(Notice(work=True))
                await self.dispatcher.share()
                if self.environment.monotonic() - last_look >= SAFETY_LOOK_SECONDS:
                    last_look = self.environment.monotonic()
                    await self.dispatcher.tick()
                    await self.store.upkeep()
            except LeaseLost:
                self._lease_lost()
            except StoreError as error:
                log.warning("could not renew the lease of this host, trying again: %s", error)

    def _client_for(self, kind: str) -> Any:
        """What activities are lent: the host's own client on the loop, a blocking one elsewhere."""
        assert self._loop is not None
        return self.client if kind == "async" else SyncClient.of(self.client, self._loop)

    def _lease_lost(self) -> None:
        if self._rejoining is None and not self._closing:
            self._rejoining = asyncio.ensure_future(self._rejoin())

    async def _rejoin(self) -> None:
        log.warning(
            "this host no longer holds its work (it was stopped for longer than its lease, or a write of it had no "
            "certain outcome); it joins again"
        )
        try:
            self.dispatcher.forget()
            while not self._closing:
                try:
                    await self._join()
                    break
                except StoreError as error:
                    log.warning("could not join the hub again, trying again: %s", error)
                    await self.environment.sleep(1.0)
            self.dispatcher.look()
        finally:
            self._rejoining = None

    # -- what the client and the store tell ---------------------------------------------------------------

    def _notice(self, notice: Notice) -> None:
        if self._closing:
            return
        self.dispatcher.notice(notice)
        if self.schedules is not None:
            self.schedules.noticed(notice)
        if notice.work and not notice.changed:
            self.changes.notify_all()

    def _instances_changed(self, instance_ids: Iterable[str]) -> None:
        self.changes.notify(instance_ids)
        if self.schedules is not None:
            self.schedules.instances_changed(instance_ids)

    def _instances_committed(self, records: Sequence[InstanceRecord]) -> None:
        self.changes.committed(records)
        if self.schedules is not None:
            self.schedules.instances_changed([record.projection.instance_id for record in records])

    def _started(self, locked: LockedInstance | None) -> None:
        if locked is not None:
            self.dispatcher.adopt(locked)
        else:
            self.dispatcher.look()

    def wants(self, name: str) -> bool:
        """True if a start of this orchestration should come to this host at once."""
        return self.dispatcher.wants(name)

    def adopt(self, locked: LockedInstance) -> None:
        """An instance whose lock this host has got."""
        self.dispatcher.adopt(locked)

    def deliver(self, delivery: Delivery) -> None:
        """A message for an instance that this host holds."""
        self.dispatcher.deliver(delivery)

    def schedules_changed(self) -> None:
        """A schedule was made or changed."""
        if self.schedules is not None:
            self.schedules.nudge()

    def nudge(self, due: int | None = None) -> None:
        """The hub has new work, and perhaps something that is due then."""
        if due is not None:
            self.dispatcher.due.note(due)
        self.dispatcher.look()


def pool_settings(settings: HostSettings, *, takes_ahead: bool) -> PoolSettings:
    """The activity pool's share of a host's settings."""
    return PoolSettings(
        async_slots=settings.activity_slots,
        threads=settings.activity_threads,
        processes=settings.activity_processes,
        async_ahead=settings.activity_backlog if takes_ahead else min(settings.activity_backlog, MOST_KEPT_WAITING),
        threads_ahead=settings.activity_threads,
        takes_ahead=takes_ahead,
        cancel_grace=settings.cancel_grace_seconds,
        tags=frozenset(settings.tags),
        own_process=settings.own_process,
    )


def run(app: App, hub: str, *, settings: HostSettings | None = None, retention: RetentionPolicy | None = None) -> None:
    """Be a worker until SIGTERM or SIGINT, then drain; a second signal stops at once.

    Uses uvloop where it is installed.  Raises StoreError where the hub cannot be opened.
    """
    settings = settings or HostSettings(own_process=True)

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ask(number: int) -> None:
            if stop.is_set():
                os._exit(128 + number)
            stop.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, ask, int(number))
        async with Host(app, hub, settings=settings, retention=retention):
            await stop.wait()

    _run_on_fast_loop(main())


def _run_on_fast_loop(main: Any) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
