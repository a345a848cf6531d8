"""From a plan to the one value that a store applies: the start, its record, and those of missed ticks.

The time and the ids come in.  Shared by the service, which fires ticks, and the client's trigger.
"""

import msgspec

from holdtrue.core.events import ExecutionStarted, ExecutionTerminated, Ticks
from holdtrue.core.messages import OutboundMessage, Start
from holdtrue.core.projection import Status
from holdtrue.schedules.planning import MissedTicks, Plan, StartPlan, encode_state
from holdtrue.schedules.specification import ScheduleSpec, tick_text
from holdtrue.stores.protocol import CreateRequest, Delivery, TaskHubStore, Tick, TickCommit


def tick_commit(
    spec: ScheduleSpec,
    plan: Plan,
    etag: int,
    now: Ticks,
    *,
    execution_id: str,
    start_id: str,
    running: Status | None = None,
    take: bool = False,
) -> TickCommit:
    """The commit of a plan; `running` is the status of the run that it replaces (`end_replaced`)."""
    start = plan.start
    missed = [] if plan.missed is None else _missed(spec, plan.missed, now)
    if start is None:
        return TickCommit(
            schedule_id=spec.schedule_id, etag=etag, state=encode_state(plan.state), due=plan.due, missed=missed
        )
    return TickCommit(
        schedule_id=spec.schedule_id,
        etag=etag,
        state=encode_state(plan.state),
        due=plan.due,
        tick=Tick(
            schedule_id=spec.schedule_id,
            due=start.due,
            decided_at=now,
            decision="started" if running is None else "replaced",
            instance_id=start.instance_id,
            execution_id=execution_id,
            reason=start.reason if running is None else _with(start.reason, f"{start.terminate} was {running.name}"),
        ),
        request=_request(spec, start, now, execution_id, start_id, take),
        guard=start.guard,
        state_if_refused=None if plan.state_if_refused is None else encode_state(plan.state_if_refused),
        due_if_refused=plan.due_if_refused,
        decision_if_refused=start.decision_if_refused,
        missed=missed,
    )


async def end_replaced(
    store: TaskHubStore, spec: ScheduleSpec, plan: Plan, now: Ticks
) -> tuple[Status | None, Delivery | None]:
    """Ask the run that a plan replaces to end: the status it had (None: nothing to end), and what to deliver.

    Done before the plan is committed: should the commit not come about, the tick is decided again, and the
    second request changes nothing.  The other way round a crash in between would leave both running.
    """
    if plan.start is None or plan.start.terminate is None:
        return None, None
    (record,) = await store.status([plan.start.terminate])
    if record is None or record.projection.status.is_terminal:
        return None, None
    why = msgspec.json.encode(f"replaced by a later run of schedule {spec.schedule_id!r}").decode()
    event = ExecutionTerminated(timestamp=now, input=why, recurse=True)
    (sent,) = await store.send([OutboundMessage(instance_id=plan.start.terminate, event=event)])
    return record.projection.status, sent.delivery


def _with(reason: str | None, more: str) -> str:
    return more if reason is None else f"{reason}; {more}"


def _request(
    spec: ScheduleSpec, start: StartPlan, now: Ticks, execution_id: str, start_id: str, take: bool
) -> CreateRequest:
    started = ExecutionStarted(
        timestamp=now,
        instance_id=start.instance_id,
        execution_id=execution_id,
        name=spec.orchestrator,
        input=spec.input,
        version=spec.version,
        tags=spec.tags,
    )
    return CreateRequest(start=Start(started=started, start_id=start_id), replaceable=start.replaceable, take=take)


def _missed(spec: ScheduleSpec, missed: MissedTicks, now: Ticks) -> list[Tick]:
    records = []
    if missed.older:
        many = f"{missed.older}" if missed.exact else f"over {missed.older}"
        records.append(
            Tick(
                schedule_id=spec.schedule_id,
                due=missed.older_until,
                decided_at=now,
                decision="missed",
                count=missed.older,
                reason=f"{many} ticks up to {tick_text(missed.older_until)}",
            )
        )
    records.extend(
        Tick(schedule_id=spec.schedule_id, due=tick, decided_at=now, decision="missed") for tick in missed.newest
    )
    return records
