"""The client of a task hub: starts orchestrations, tells them things, and reads what is committed.

It talks to a store in process; in a host's process it hands new work straight to the host.  It decides
nothing about an instance: what it sends takes effect in the instance's next episode.
"""

import os
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

from holdtrue.authoring.conversion import Converter
from holdtrue.core import events as ev
from holdtrue.core.ids import check_event_name, check_instance_id, check_text
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.outgoing import cancel_message
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.environment import REAL, Environment
from holdtrue.stores.locate import open_store
from holdtrue.stores.protocol import (
    CreateOutcome,
    CreateResult,
    HubInfo,
    InstanceRecord,
    Purged,
    SendResult,
    StoredDeadLetter,
    TaskHubStore,
    is_rewinding,
)

from .bulk import ManyResult, Progress, many, purge_where, start_many
from .errors import (
    InstanceAlreadyExists,
    InstanceEnded,
    InstanceNotEnded,
    InstanceNotFound,
    RewindRefused,
)
from .local import LocalHost, Payloads, Program
from .requests import Moment, Reuse, ReusePolicy, StartRequests, StartSpec, first_due, instance_query, policy_of
from .schedules import Schedules
from .status import InstanceStatus, waits
from .waiting import Waiting

__all__ = [
    "Client",
    "InstanceStatus",
    "ManyResult",
    "ReusePolicy",
    "StartOutcome",
    "StartSpec",
    "StatusPage",
]


@dataclass(frozen=True, kw_only=True)
class StartOutcome:
    """What became of `start_if_not_running`.

    `outcome` is `started`; or `running` (one that has not ended stands in its way); or `held` (that one is
    held, `reason` says why: it does not go on by itself).  Ids and status are those of the instance that
    stands there now.
    """

    outcome: Literal["started", "running", "held"]
    instance_id: str
    execution_id: str
    status: Status
    reason: str | None = None


@dataclass(frozen=True)
class StatusPage:
    """One page of a query, and the token of the next one (None: no more)."""

    items: list[InstanceStatus]
    token: str | None


class Client:
    """Asynchronous client of one task hub; use it as an async context manager.

    `hub` is a path, a URL (`sqlite:///…`) or an open store; a store given stays its owner's to open and to
    close.  With `app`, orchestrators can be given as functions, and inputs and outputs have their types.
    One client belongs to one event loop.  Every method may raise a `StoreError`.
    """

    def __init__(
        self,
        hub: str | os.PathLike[str] | TaskHubStore,
        *,
        app: Program | None = None,
        environment: Environment = REAL,
        local: LocalHost | None = None,
    ) -> None:
        self.environment = environment
        self.store: TaskHubStore = open_store(hub, environment)
        self._owns_store = self.store is not hub
        self._app = app
        self._local = local
        self._payloads: Payloads = Converter() if app is None else app.converter
        self._requests = StartRequests(self._payloads, app, environment)
        self._waiting = Waiting(self.store, environment, None if local is None else local.changes)
        self.schedules = Schedules(
            self.store,
            environment,
            self._payloads.encode,
            name_of=self._requests.name_of,
            changed=None if local is None else local.schedules_changed,
            local=local,
        )

    async def __aenter__(self) -> "Client":
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Open the hub (made if there is none); raises StoreError where that cannot be done."""
        if self._owns_store:
            await self.store.open()
            self._waiting.listen()

    async def close(self) -> None:
        """Close the hub, if this client opened it; what waits is woken with an error."""
        self._waiting.close()
        if self._owns_store:
            await self.store.close()

    # -- starting ----------------------------------------------------------------------------------------

    async def start(
        self,
        orchestrator: Callable[..., Any] | str,
        *,
        input: Any = None,
        instance_id: str | None = None,
        start_at: Moment | None = None,
        tags: Mapping[str, str] | None = None,
        version: str | None = None,
        reuse: Reuse = "default",
        start_id: str | None = None,
        deadline: Moment | None = None,
        event: tuple[str, Any] | None = None,
    ) -> str:
        """Start an orchestration; gives its instance id once the start is durable.

        Without `instance_id` a time-ordered one is made.  `start_at` (a datetime, naive is UTC, or a
        timedelta) puts the start off.  `reuse` says what is done about an older instance of that id:
        `default` replaces one that has ended, else InstanceAlreadyExists; `error` replaces none; `replace`
        any, a running one too; `ignore` leaves it and gives its id; or a ReusePolicy.  A start repeated with
        the same `start_id` is the same start (which is the instance id too where none is given).  An `input` of
        None is none: the code gets its parameter's default, or None.  At its `deadline` an instance that has not
        ended fails.  `event` (name and data) is there from the beginning.

        Raises InvalidInput (an id, a time or a payload that cannot be), NotRegistered, InstanceAlreadyExists.
        """
        policy = policy_of(reuse)
        spec = StartSpec(
            orchestrator=orchestrator,
            input=input,
            instance_id=instance_id,
            start_at=start_at,
            tags=tags,
            version=version,
            start_id=start_id,
            deadline=deadline,
            event=event,
        )
        outcome = await self._create(spec, policy.replaceable)
        if outcome.result is CreateResult.REFUSED and policy.otherwise == "error":
            raise InstanceAlreadyExists(outcome.instance_id, outcome.status or Status.RUNNING)
        return outcome.instance_id

    async def start_many(self, requests: Sequence[StartSpec], *, progress: Progress | None = None) -> list[str]:
        """Start many at once; their ids in order.  `progress(done, total)` is called as they become durable.

        Raises StartsRefused, after all others were started, where some ids exist; InvalidInput before any is.
        """
        return await start_many(
            self.store, self._requests, requests, wants=self._wants, created=self._created, progress=progress
        )

    async def start_if_not_running(
        self,
        orchestrator: Callable[..., Any] | str,
        *,
        instance_id: str,
        input: Any = None,
        start_at: Moment | None = None,
        tags: Mapping[str, str] | None = None,
        version: str | None = None,
        start_id: str | None = None,
        deadline: Moment | None = None,
        event: tuple[str, Any] | None = None,
    ) -> StartOutcome:
        """Start it unless an instance of that id has not ended: judged and done in one transaction.

        A held instance is an outcome of its own, never an endless `running`.  Raises InvalidInput, NotRegistered.
        """
        spec = StartSpec(
            orchestrator=orchestrator,
            input=input,
            instance_id=instance_id,
            start_at=start_at,
            tags=tags,
            version=version,
            start_id=start_id,
            deadline=deadline,
            event=event,
        )
        outcome = await self._create(spec, TERMINAL)
        if outcome.result is not CreateResult.REFUSED:
            return StartOutcome(
                outcome="started",
                instance_id=instance_id,
                execution_id=outcome.execution_id,
                status=Status.PENDING,
            )
        condition = outcome.condition
        held = condition is not None and condition.kind == "held"
        return StartOutcome(
            outcome="held" if held else "running",
            instance_id=instance_id,
            execution_id=outcome.execution_id,
            status=outcome.status if outcome.status is not None else Status.RUNNING,
            reason=None if condition is None else condition.reason,
        )

    async def restart(self, instance_id: str, *, new_instance_id: str | None = None) -> str:
        """Run it anew with the name, input, version and tags of its last execution; the id of the new instance.

        Under its own id only once it has ended (InstanceNotEnded); under another one at any time
        (InstanceAlreadyExists where that one has not ended).  Raises InstanceNotFound, InvalidInput.
        """
        record = await self._record(instance_id)
        target = instance_id if new_instance_id is None else check_instance_id(new_instance_id)
        request = self._requests.again(record.started, record.dialect, target)
        outcome = (await self.store.create([request]))[0]
        if outcome.result is CreateResult.REFUSED:
            if target == instance_id:
                raise InstanceNotEnded(instance_id, "restarted")
            raise InstanceAlreadyExists(target, outcome.status or Status.RUNNING)
        self._created(outcome, None)
        return target

    async def _create(self, spec: StartSpec, replaceable: frozenset[Status]) -> CreateOutcome:
        request = self._requests.make(spec, replaceable, take=self._wants)
        outcome = (await self.store.create([request]))[0]
        if outcome.result is not CreateResult.REFUSED:
            self._created(outcome, first_due(request.start))
        return outcome

    def _wants(self, name: str) -> bool:
        return self._local is not None and self._local.wants(name)

    def _created(self, outcome: CreateOutcome, due: ev.Ticks | None) -> None:
        local = self._local
        if outcome.taken is not None and local is not None:
            local.adopt(outcome.taken)
        elif local is not None:
            local.nudge(due)
        if outcome.result is CreateResult.REPLACED:
            self._waiting.changed(outcome.instance_id)

    # -- reading -----------------------------------------------------------------------------------------

    async def get_status(self, instance_id: str, *, waits: bool = False) -> InstanceStatus | None:
        """The status as committed, None if there is no such instance.

        `waits` adds what it waits for and the progress of its activities (reads its history).
        """
        record = await self._waiting.reads.read(check_text(instance_id, "an instance id"))
        if record is None:
            return None
        status = self._status(record)
        if waits:
            await self._add_waits(status)
        return status

    async def wait_for_start(self, instance_id: str, *, timeout: float | None = None) -> InstanceStatus:
        """Until it is no longer Pending; `timeout` in seconds.  Raises InstanceNotFound, WaitTimeout (TimeoutError)."""
        record = await self._waiting.until(
            instance_id, lambda record: record.projection.status is not Status.PENDING, "start", timeout
        )
        return self._status(record)

    async def wait_for_completion(self, instance_id: str, *, timeout: float | None = None) -> InstanceStatus:
        """Until it has ended, however it ends (`raise_if_failed` of the status tells).

        A continue-as-new or a replacing start is followed.  Raises InstanceNotFound, WaitTimeout (a TimeoutError).
        """
        record = await self._waiting.until(
            instance_id, lambda record: record.projection.status in TERMINAL, "end", timeout
        )
        return self._status(record)

    async def wait_for_change(
        self, instance_id: str, *, since: InstanceStatus, timeout: float | None = None
    ) -> InstanceStatus:
        """Until its status differs from `since`: execution, runtime status, custom status, condition.

        Raises InstanceNotFound, WaitTimeout (a TimeoutError).
        """
        seen = _face(since.record)
        record = await self._waiting.until(instance_id, lambda record: _face(record) != seen, "change", timeout)
        return self._status(record)

    async def history(self, instance_id: str) -> AsyncIterator[ev.HistoryEvent]:
        """The history of its current execution, event by event.  Raises InstanceNotFound."""
        await self._record(instance_id)
        async for piece in self.store.history(instance_id):
            for event in piece:
                yield event

    async def query(
        self,
        *,
        statuses: Collection[Status] | None = None,
        name: str | None = None,
        prefix: str | None = None,
        created_from: Moment | None = None,
        created_to: Moment | None = None,
        tags: Mapping[str, str] | None = None,
        page_size: int = 100,
        newest_first: bool = False,
        any_order: bool = False,
        verified: bool = True,
    ) -> AsyncIterator[InstanceStatus]:
        """All instances that fit every condition given, in the order of their creation.

        `prefix` is of the id, `created_to` is excluded.  What is created or ends while this runs neither
        hides nor doubles another.  On a hub in Azure Storage `any_order` saves that each page reads the rows of all,
        and `verified=False` the look at each instance: then a status may be behind (its `verified` says so).
        """
        token: str | None = None
        while True:
            page = await self.query_page(
                statuses=statuses,
                name=name,
                prefix=prefix,
                created_from=created_from,
                created_to=created_to,
                tags=tags,
                page_size=page_size,
                newest_first=newest_first,
                any_order=any_order,
                verified=verified,
                token=token,
            )
            for status in page.items:
                yield status
            token = page.token
            if token is None:
                return

    async def query_page(
        self,
        *,
        statuses: Collection[Status] | None = None,
        name: str | None = None,
        prefix: str | None = None,
        created_from: Moment | None = None,
        created_to: Moment | None = None,
        tags: Mapping[str, str] | None = None,
        page_size: int = 100,
        newest_first: bool = False,
        any_order: bool = False,
        verified: bool = True,
        token: str | None = None,
    ) -> StatusPage:
        """One page of `query`; `token` is that of the page before.  Raises InvalidInput for a token that is none."""
        query = instance_query(
            self.environment.now(),
            statuses=statuses,
            name=name,
            prefix=prefix,
            created_from=created_from,
            created_to=created_to,
            tags=tags,
            page_size=page_size,
            token=token,
            newest_first=newest_first,
            any_order=any_order,
            verified=verified,
        )
        page = await self.store.query(query)
        return StatusPage([self._status(record) for record in page.records], page.token)

    def _status(self, record: InstanceRecord) -> InstanceStatus:
        return InstanceStatus(record, self._payloads, self._app)

    async def _add_waits(self, status: InstanceStatus) -> None:
        if status.has_ended:
            return
        activities = await self.store.activities_of(status.instance_id)
        status.add_waits(await waits(status, self.store.history(status.instance_id)), activities)

    async def _record(self, instance_id: str) -> InstanceRecord:
        record = (await self.store.status([check_text(instance_id, "an instance id")]))[0]
        if record is None:
            raise InstanceNotFound(instance_id)
        return record

    # -- telling -----------------------------------------------------------------------------------------

    async def raise_event(self, instance_id: str, name: str, data: Any = None) -> bool:
        """Raise an event on an instance; true once it is durable, false if the instance has ended (it is dropped).

        Names are matched without regard to case; one that nobody waits for yet is kept.
        Raises InvalidInput (a reserved or empty name, a payload that cannot be), InstanceNotFound.
        """
        payload = None if data is None else self._payloads.encode(data)
        event = ev.EventRaised(timestamp=self.environment.now(), name=check_event_name(name), input=payload)
        return await self._send(OutboundMessage(instance_id=instance_id, event=event))

    async def suspend(self, instance_id: str, reason: str | None = None) -> None:
        """Let it rest: what comes is kept, in order, until it is resumed.  A suspended one stays suspended.

        Raises InstanceNotFound, InstanceEnded.
        """
        event = ev.ExecutionSuspended(timestamp=self.environment.now(), reason=_check_reason(reason))
        if not await self._send(OutboundMessage(instance_id=instance_id, event=event)):
            raise InstanceEnded(instance_id, "suspended")

    async def resume(self, instance_id: str, reason: str | None = None) -> None:
        """Let a suspended one go on; of no effect on others.  Raises InstanceNotFound, InstanceEnded."""
        event = ev.ExecutionResumed(timestamp=self.environment.now(), reason=_check_reason(reason))
        if not await self._send(OutboundMessage(instance_id=instance_id, event=event)):
            raise InstanceEnded(instance_id, "resumed")

    async def cancel(self, instance_id: str, reason: str | None = None) -> bool:
        """Ask it to cancel itself: the orchestrator may catch that to clean up, else it ends Terminated.

        True once that is durable, false if it has ended already.  Raises InstanceNotFound.
        """
        return await self._send(
            cancel_message(instance_id, _check_reason(reason) or "cancelled", self.environment.now())
        )

    async def terminate(self, instance_id: str, output: Any = None, *, recursive: bool = True) -> bool:
        """End it without asking its code, and with `recursive` all sub-orchestrations under it.

        It ends Terminated, with `output`; one that waits for its start too.  True once that is durable, false if
        it has ended already: then (`recursive`) those that it started and that go on are ended all the same.
        None under it escapes, not one that is being started just then either.  Raises InstanceNotFound.
        """
        payload = None if output is None else self._payloads.encode(output)
        event = ev.ExecutionTerminated(timestamp=self.environment.now(), input=payload, recurse=recursive)
        return await self._send(OutboundMessage(instance_id=instance_id, event=event))

    async def rewind(self, instance_id: str, reason: str | None = None) -> None:
        """Set a failed instance back to before its failure, and let it go on: what caused the failure is done
        again, with what followed from it; results that had nothing to do with it stay.

        It is Pending from then on, until a worker that has its code rewinds it.  Asked again until then, this does
        nothing more.  Raises InstanceNotFound, RewindRefused (it has not failed).
        """
        _check_reason(reason)
        record = await self._record(instance_id)
        if is_rewinding(record):
            return
        if record.projection.status is not Status.FAILED:
            raise RewindRefused(instance_id, record.projection.status)
        event = ev.ExecutionRewound(timestamp=self.environment.now(), reason=reason, instance_id=instance_id)
        message = OutboundMessage(instance_id=instance_id, event=event, execution_id=record.projection.execution_id)
        if not await self._send(message):
            raise RewindRefused(instance_id, (await self._record(instance_id)).projection.status)
        self._waiting.changed(instance_id)

    async def _send(self, message: OutboundMessage) -> bool:
        check_text(message.instance_id, "an instance id")
        outcome = (await self.store.send([message]))[0]
        if outcome.result is SendResult.NOT_FOUND:
            raise InstanceNotFound(message.instance_id)
        if outcome.result is SendResult.ENDED:
            return False
        if self._local is not None:
            if outcome.delivery is not None:
                self._local.deliver(outcome.delivery)
            else:
                self._local.nudge()
        return True

    # -- removing ----------------------------------------------------------------------------------------

    async def purge(self, instance_id: str, *, recursive: bool = True) -> Purged:
        """Delete an ended instance with all that belongs to it, and (`recursive`) its sub-orchestrations.

        Counts what was deleted: 0 where there is no such instance (a repeated purge is no error).
        Raises InstanceNotEnded.
        """
        purged = await self.store.purge([check_text(instance_id, "an instance id")], recursive=recursive)
        if purged.instances == 0 and instance_id in purged.refused:
            raise InstanceNotEnded(instance_id, "purged")
        self._waiting.changed(instance_id)
        return purged

    async def purge_where(
        self,
        *,
        statuses: Collection[Status] | None = None,
        name: str | None = None,
        prefix: str | None = None,
        created_from: Moment | None = None,
        created_to: Moment | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Purged:
        """Delete all ended instances that fit every condition given (not their sub-orchestrations, unless they fit).

        `progress(deleted)` is called as it goes.  Raises InvalidInput for a status that is no end.
        """
        query = instance_query(
            self.environment.now(),
            statuses=TERMINAL if statuses is None else statuses,
            name=name,
            prefix=prefix,
            created_from=created_from,
            created_to=created_to,
        )
        return await purge_where(self.store, query, progress)

    async def many(
        self, /, operation: str, instance_ids: Sequence[str], *, progress: Progress | None = None, **arguments: Any
    ) -> ManyResult:
        """One operation on many instances: the name of a method that takes an instance id, and its arguments.

        What fails for one is told in the result and does not keep the others.  Raises InvalidInput for
        another name.
        """
        return await many(self, operation, instance_ids, progress, arguments)

    # -- the hub -----------------------------------------------------------------------------------------

    async def dead_letters(self, *, page_size: int = 100) -> AsyncIterator[StoredDeadLetter]:
        """Messages that could not be handled, oldest first."""
        after = 0
        while True:
            letters = await self.store.dead_letters(limit=page_size, after=after)
            for letter in letters:
                yield letter
                after = letter.number
            if len(letters) < page_size:
                return

    async def resend_dead_letters(self, numbers: Sequence[int]) -> int:
        """Send dead letters again; how many could be."""
        sent = await self.store.resend(numbers)
        if sent and self._local is not None:
            self._local.nudge()
        return sent

    async def dismiss_dead_letters(self, numbers: Sequence[int]) -> int:
        """Delete dead letters; how many there were."""
        return await self.store.dismiss(numbers)

    async def info(self) -> HubInfo:
        """Figures of the hub."""
        return await self.store.info()

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """A consistent copy of the hub, while work goes on."""
        await self.store.backup(os.fspath(path))


def _check_reason(reason: str | None) -> str | None:
    return None if reason is None else check_text(reason, "the reason")


def _face(record: InstanceRecord) -> tuple[Any, ...]:
    """What `wait_for_change` compares."""
    projection = record.projection
    return (
        projection.execution_id,
        projection.status,
        projection.custom_status,
        record.condition,
        projection.scheduled_start,
    )
