"""`client.schedules`: create, change, read and trigger the schedules of a hub.

Writes go through the schedule's version (etag), so that they never undo a tick that a host decides at the
same time.  When to fire is decided in `schedules.planning`.
"""

import builtins
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from holdtrue.client.local import LocalHost
from holdtrue.core.dialect import to_datetime, to_ticks
from holdtrue.core.events import Ticks
from holdtrue.environment import Environment
from holdtrue.schedules.commits import end_replaced, tick_commit
from holdtrue.schedules.errors import (
    InvalidSchedule,
    NeverFires,
    ScheduleBusy,
    ScheduleExists,
    ScheduleNotFound,
)
from holdtrue.schedules.planning import (
    ScheduleState,
    changed_state,
    decode_state,
    encode_state,
    initial_state,
    next_due,
    next_ticks,
    plan_trigger,
)
from holdtrue.schedules.specification import Missed, Overlap, ScheduleSpec, decode_spec, encode_spec
from holdtrue.stores.protocol import (
    STARTED,
    CreateOutcome,
    CreateResult,
    StoredSchedule,
    TaskHubStore,
    Tick,
    completed_tick,
)

__all__ = [
    "InvalidSchedule",
    "Missed",
    "NeverFires",
    "Overlap",
    "ScheduleBusy",
    "ScheduleExists",
    "ScheduleInfo",
    "ScheduleNotFound",
    "ScheduleSpec",
    "ScheduleTick",
    "Schedules",
]

TRIES: Final = 20
"""So often is a change tried anew when somebody else changed the schedule in between."""
_SPANS = ("interval", "grace", "jitter", "keep_ticks")


class ScheduleTick(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a tick or a trigger.  Times are aware, UTC.

    `decision` is `started`, `replaced` (an unfinished run), `skipped` (a run had not ended), `queued`,
    `held` (the run before it is held: `reason` says why) or `missed` (`count` ticks up to `due`).
    `status` is the name of the status that was seen, None where there was no instance; `instance_id` and
    `execution_id` are those of the new run, or of the one in its way.
    """

    schedule_id: str
    due: datetime
    decided_at: datetime
    decision: str
    count: int
    instance_id: str | None
    execution_id: str | None
    status: str | None
    reason: str | None

    @property
    def started(self) -> bool:
        """Whether it made a run."""
        return self.decision in STARTED


class ScheduleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule as it stands.  Times are aware, UTC.

    `next_due` is None while it is paused and when it is over.  `queued_since` is the tick of a run that
    waits for the running one to end.  `last_instance_id` is the instance that it started last.
    """

    spec: ScheduleSpec
    paused: bool
    next_due: datetime | None
    queued_since: datetime | None
    last_instance_id: str | None
    last_tick: ScheduleTick | None

    @property
    def schedule_id(self) -> str:
        """Its id."""
        return self.spec.schedule_id


def _name_of(orchestrator: Callable[..., Any] | str) -> str:
    return orchestrator if isinstance(orchestrator, str) else orchestrator.__name__


class Schedules:
    """The schedules of a hub.

    `encode` makes a payload of an input, `name_of` the name of an orchestrator of its function;
    `changed` is called after each change, so that a host in this process looks at once; `local` is that
    host, which gets what a trigger starts.
    """

    def __init__(
        self,
        store: TaskHubStore,
        environment: Environment,
        encode: Callable[[Any], str | None],
        *,
        name_of: Callable[[Callable[..., Any] | str], str] = _name_of,
        changed: Callable[[], None] | None = None,
        local: LocalHost | None = None,
    ) -> None:
        self._store = store
        self._environment = environment
        self._encode = encode
        self._name_of = name_of
        self._changed = changed
        self._local = local

    # -- defining --------------------------------------------------------------------------------------
    async def create(
        self,
        spec: ScheduleSpec | str,
        orchestrator: Callable[..., Any] | str | None = None,
        *,
        input: Any = msgspec.UNSET,
        **members: Any,
    ) -> ScheduleInfo:
        """Create a schedule: `create(spec)`, or `create("id", orchestrator, cron=..., input=..., ...)`.

        The keyword arguments are the members of `ScheduleSpec`; `input` is any value of the app, spans of
        time may be given in seconds.  Raises ScheduleExists, InvalidSchedule or NeverFires (also where its end has
        passed).
        """
        made = self._spec(spec, orchestrator, input, members)
        if not made.paused and next_due(made, initial_state(made, self._environment.now())) is None:
            raise NeverFires(
                f"schedule {made.schedule_id!r} never fires: its end has passed, or its first tick lies after the year "
                "9999. Give a later end_at, or a shorter interval"
            )
        if not await self._insert(made):
            raise ScheduleExists(made.schedule_id)
        return await self.get(made.schedule_id)

    async def put(
        self,
        spec: ScheduleSpec | str,
        orchestrator: Callable[..., Any] | str | None = None,
        *,
        input: Any = msgspec.UNSET,
        **members: Any,
    ) -> ScheduleInfo:
        """Create a schedule or put this definition in the place of its old one; arguments as of `create`.

        The same definition again changes nothing.  Whether it is paused, its queued run and, where it
        still fires at the same times, its place on the grid are kept.  Raises InvalidSchedule or NeverFires.
        """
        made = self._spec(spec, orchestrator, input, members)
        for _ in range(TRIES):
            stored = await self._find(made.schedule_id)
            if stored is None:
                if await self._insert(made):
                    break
            elif stored.definition == encode_spec(made) or await self._redefine(stored, made):
                break
        else:
            raise ScheduleBusy(made.schedule_id)
        return await self.get(made.schedule_id)

    async def update(self, schedule_id: str, **members: Any) -> ScheduleInfo:
        """Change some members of a schedule's definition (as of `create`; `paused` by pause and resume).

        Raises ScheduleNotFound, InvalidSchedule or NeverFires.
        """
        if not members.keys().isdisjoint({"paused", "schedule_id"}):
            raise InvalidSchedule(
                f"schedule {schedule_id!r}: update cannot change 'paused' or 'schedule_id': "
                "use pause() and resume(), or create another schedule"
            )
        values = self._members(schedule_id, dict(members))
        for _ in range(TRIES):
            stored = await self._need(schedule_id)
            before = msgspec.structs.asdict(decode_spec(stored.definition))
            if await self._redefine(stored, self._made({**before, **values})):
                return await self.get(schedule_id)
        raise ScheduleBusy(schedule_id)

    async def delete(self, schedule_id: str) -> None:
        """Delete a schedule and its records; runs that it started go on.  Raises ScheduleNotFound."""
        if not await self._store.delete_schedule(schedule_id):
            raise ScheduleNotFound(schedule_id)
        self._tell()

    # -- acting ----------------------------------------------------------------------------------------
    async def pause(self, schedule_id: str) -> ScheduleInfo:
        """Let it rest: no tick fires and no queued run starts until it is resumed.  Raises ScheduleNotFound."""
        await self._change(schedule_id, lambda _, state: msgspec.structs.replace(state, paused=True))
        return await self.get(schedule_id)

    async def resume(self, schedule_id: str, *, catch_up: bool = True) -> ScheduleInfo:
        """Let it go on, on its grid.  Ticks of the pause are missed ones, and its `missed` policy answers them.

        With `catch_up` false they are passed over without a trace.  Raises ScheduleNotFound.
        """
        now = self._environment.now()

        def resumed(_: ScheduleSpec, state: ScheduleState) -> ScheduleState:
            decided = state.decided if catch_up or not state.paused else max(state.decided, now)
            return msgspec.structs.replace(state, paused=False, decided=decided)

        await self._change(schedule_id, resumed)
        return await self.get(schedule_id)

    async def trigger(self, schedule_id: str) -> ScheduleTick:
        """Make a run now, paused or not; its overlap policy holds, its ticks stay as they are.

        What became of it is told, and recorded as a tick of this moment.  Raises ScheduleNotFound.
        """
        for _ in range(TRIES):
            stored = await self._need(schedule_id)
            spec, state = decode_spec(stored.definition), decode_state(stored.state)
            now = self._environment.now()
            decision = plan_trigger(spec, state, now)
            running, delivery = await end_replaced(self._store, spec, decision, now)
            if delivery is not None and self._local is not None:
                self._local.deliver(delivery)
            commit = tick_commit(
                spec,
                decision,
                stored.etag,
                now,
                running=running,
                take=self._local is not None and self._local.wants(spec.orchestrator),
                execution_id=self._environment.new_id(),
                start_id=self._environment.new_id(),
            )
            outcome = await self._store.commit_tick(commit)
            if isinstance(outcome, CreateOutcome):
                self._tell()
                self._hand_over(outcome)
                tick = completed_tick(commit, outcome)
                assert tick is not None
                return _tick(tick)
        raise ScheduleBusy(schedule_id)

    # -- reading ---------------------------------------------------------------------------------------
    async def get(self, schedule_id: str) -> ScheduleInfo:
        """One schedule.  Raises ScheduleNotFound."""
        return await self._info(await self._need(schedule_id))

    async def list(self) -> list[ScheduleInfo]:
        """All schedules by id."""
        return [await self._info(stored) for stored in await self._store.get_schedules()]

    async def next_runs(self, schedule_id: str, count: int = 5) -> builtins.list[datetime]:
        """When its next `count` ticks are due (jitter included); none while it is paused.  Raises ScheduleNotFound."""
        stored = await self._need(schedule_id)
        spec, state = decode_spec(stored.definition), decode_state(stored.state)
        return [_moment(due) for due in next_ticks(spec, state, self._environment.now(), count)]

    async def ticks(
        self, schedule_id: str, *, after: datetime | None = None, limit: int = 100
    ) -> builtins.list[ScheduleTick]:
        """Records of its ticks in order of time, due later than `after`.  Raises ScheduleNotFound."""
        await self._need(schedule_id)
        since = None if after is None else to_ticks(after)
        return [_tick(tick) for tick in await self._store.ticks(schedule_id, after=since, limit=limit)]

    async def all_ticks(self, schedule_id: str, *, after: datetime | None = None) -> AsyncIterator[ScheduleTick]:
        """Every record later than `after`, read page by page.  Raises ScheduleNotFound."""
        await self._need(schedule_id)
        since = None if after is None else to_ticks(after)
        while page := await self._store.ticks(schedule_id, after=since, limit=1_000):
            for tick in page:
                yield _tick(tick)
            since = page[-1].due

    # -- inside ----------------------------------------------------------------------------------------
    def _spec(
        self,
        spec: ScheduleSpec | str,
        orchestrator: Callable[..., Any] | str | None,
        input: Any,
        members: Mapping[str, Any],
    ) -> ScheduleSpec:
        if isinstance(spec, ScheduleSpec):
            if orchestrator is not None or input is not msgspec.UNSET or members:
                raise InvalidSchedule(
                    f"schedule {spec.schedule_id!r}: give a ScheduleSpec or its members one by one, not both"
                )
            return spec
        if orchestrator is None:
            raise InvalidSchedule(f"schedule {spec!r}: give the orchestrator that it starts")
        values = {"schedule_id": spec, "orchestrator": orchestrator, **members}
        if input is not msgspec.UNSET:
            values["input"] = input
        return self._made(self._members(spec, values))

    def _members(self, schedule_id: str, values: dict[str, Any]) -> dict[str, Any]:
        """Members as `ScheduleSpec` takes them: the input encoded, the orchestrator named, seconds as spans."""
        unknown = values.keys() - set(ScheduleSpec.__struct_fields__)
        if unknown:
            raise InvalidSchedule(
                f"schedule {schedule_id!r}: there is no {', '.join(sorted(unknown))}; "
                f"there are {', '.join(ScheduleSpec.__struct_fields__)}"
            )
        if "input" in values:
            values["input"] = self._encode(values["input"])
        if "orchestrator" in values:
            values["orchestrator"] = self._name_of(values["orchestrator"])
        for name in _SPANS:
            seconds = values.get(name)
            if isinstance(seconds, int | float) and not isinstance(seconds, bool):
                try:
                    values[name] = timedelta(seconds=seconds)
                except (OverflowError, ValueError) as error:
                    raise InvalidSchedule(f"schedule {schedule_id!r}: {name} is {seconds}: {error}") from error
        return values

    def _made(self, values: Mapping[str, Any]) -> ScheduleSpec:
        return ScheduleSpec(**values)

    async def _find(self, schedule_id: str) -> StoredSchedule | None:
        return next((s for s in await self._store.get_schedules() if s.schedule_id == schedule_id), None)

    async def _need(self, schedule_id: str) -> StoredSchedule:
        stored = await self._find(schedule_id)
        if stored is None:
            raise ScheduleNotFound(schedule_id)
        return stored

    async def _insert(self, spec: ScheduleSpec) -> bool:
        state = initial_state(spec, self._environment.now())
        return await self._write(spec, state, etag=None)

    async def _redefine(self, stored: StoredSchedule, spec: ScheduleSpec) -> bool:
        before, state = decode_spec(stored.definition), decode_state(stored.state)
        return await self._write(spec, changed_state(before, state, spec, self._environment.now()), stored.etag)

    async def _change(self, schedule_id: str, change: Callable[[ScheduleSpec, ScheduleState], ScheduleState]) -> None:
        for _ in range(TRIES):
            stored = await self._need(schedule_id)
            spec, state = decode_spec(stored.definition), decode_state(stored.state)
            if await self._write(spec, change(spec, state), stored.etag):
                return
        raise ScheduleBusy(schedule_id)

    async def _write(self, spec: ScheduleSpec, state: ScheduleState, etag: int | None) -> bool:
        stored = StoredSchedule(
            schedule_id=spec.schedule_id,
            definition=encode_spec(spec),
            state=encode_state(state),
            due=next_due(spec, state),
            etag=0 if etag is None else etag,
        )
        if await self._store.put_schedule(stored, expect=etag) is None:
            return False
        self._tell()
        return True

    def _hand_over(self, outcome: CreateOutcome) -> None:
        """Let the host in this process run at once what was started."""
        if self._local is None or outcome.result is CreateResult.REFUSED:
            return
        if outcome.taken is not None:
            self._local.adopt(outcome.taken)
        else:
            self._local.nudge()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed()

    async def _info(self, stored: StoredSchedule) -> ScheduleInfo:
        spec, state = decode_spec(stored.definition), decode_state(stored.state)
        last: Tick | None = None
        since = min(state.decided, state.moment or state.decided) - 1
        while page := await self._store.ticks(stored.schedule_id, after=since, limit=100):
            last, since = page[-1], page[-1].due
        return ScheduleInfo(
            spec=spec,
            paused=state.paused,
            next_due=None if stored.due is None else _moment(stored.due),
            queued_since=None if state.queued is None else _moment(state.queued.tick),
            last_instance_id=state.last_run,
            last_tick=None if last is None else _tick(last),
        )


def _moment(ticks: Ticks) -> datetime:
    return to_datetime(ticks).replace(tzinfo=UTC)


def _tick(tick: Tick) -> ScheduleTick:
    return ScheduleTick(
        schedule_id=tick.schedule_id,
        due=_moment(tick.due),
        decided_at=_moment(tick.decided_at),
        decision=tick.decision,
        count=tick.count,
        instance_id=tick.instance_id,
        execution_id=tick.execution_id,
        status=tick.status,
        reason=tick.reason,
    )
