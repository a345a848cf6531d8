"""Applies episodes, one after the other, each whole or not at all.

What can go wrong with a batch (it cannot be written as JSON, say) is found before the first one is applied.
"""

from collections.abc import Sequence

from holdtrue.core.episode import EpisodeCommit
from holdtrue.core.events import ExecutionStarted, ExecutionTerminated, encode_events
from holdtrue.core.messages import InboundMessage
from holdtrue.core.projection import TERMINAL
from holdtrue.stores.decisions import recursive_end, refused_answer, started_of, taken_by
from holdtrue.stores.protocol import (
    CommitOutcome,
    CommitResult,
    Committing,
    Delivery,
    LockedActivity,
    LockedInstance,
    queue_name,
)

from . import inbox, starts
from .hub import LOCK_BITS, Activity, Delayed, Instance, Moment
from .locking import has_end, held, locked_activity


def commit(moment: Moment, committings: Sequence[Committing]) -> list[CommitOutcome]:
    """Apply episodes; an outcome for each."""
    if not moment.host:
        return [CommitOutcome(result=CommitResult.LEASE_LOST) for _ in committings]
    measured = [_measure(committing) for committing in committings]
    outcomes = [_apply(moment, one, *measures) for one, measures in zip(committings, measured, strict=True)]
    for outcome in outcomes:
        if outcome.deliveries:
            # What was given back since is not this host's any more: it is told of it at the next lock.
            outcome.deliveries = [one for one in outcome.deliveries if _is_held_here(moment, one)]
    return outcomes


def _measure(committing: Committing) -> tuple[int, ExecutionStarted | None]:
    """The bytes of its events, and the start of the history that it puts in the place of another."""
    commit = committing.commit
    size = len(encode_events(commit.events)) if commit.events else 0
    return size, started_of(commit) if commit.replace else None


def _is_held_here(moment: Moment, delivery: Delivery) -> bool:
    instance = moment.hub.instances.get(delivery.instance)
    return instance is not None and instance.lock >> LOCK_BITS == moment.host


def _apply(moment: Moment, committing: Committing, size: int, started: ExecutionStarted | None) -> CommitOutcome:
    commit = committing.commit
    instance = held(moment, committing.lease)
    if instance is None:
        return CommitOutcome(result=CommitResult.LEASE_LOST)
    if _is_stale(instance, commit):
        return CommitOutcome(result=CommitResult.STALE)
    outcome = CommitOutcome(result=CommitResult.COMMITTED)
    ended = commit.projection.status in TERMINAL
    if started is None:
        _append(moment, instance, committing, size, ended)
    else:
        _replace_history(moment, instance, committing, size, started)
    for key in commit.consumed:
        instance.inbox.pop(key, None)
    if instance.ending:
        moment.hub.set_ending(instance, has_end(instance))
    for ref in commit.finished:
        activity = moment.hub.held_activity(ref.key, ref.token)
        if activity is not None:
            moment.hub.drop(moment.hub.instances[activity.instance], activity)
    if commit.activities:
        _schedule(moment, instance, committing, outcome)
    if commit.cancelled and not commit.replace:
        # The ordinals of a commit that replaces are of the execution before.
        _cancel(moment, instance, committing)
    if commit.starts:
        _start(moment, committing, outcome)
    if commit.messages:
        # After the starts: some may be for what was started.
        _send(moment, instance, committing, outcome, ended)
    if ended:
        _end_below(moment, instance, commit)
        moment.hub.clear_messages(instance)
    instance.woken = commit.wake and not ended
    if ended:
        instance.lock = 0
        moment.hub.set_ending(instance, False)
    elif not committing.keep:
        moment.hub.release(instance)
        moment.work = True
    return outcome


def _is_stale(instance: Instance, commit: EpisodeCommit) -> bool:
    """Whether it was made from another history than stands there."""
    if commit.replace:
        old = (commit.old_execution, commit.old_length)
        return old != (instance.projection.execution_id, len(instance.history))
    return commit.first != len(instance.history)


def _append(moment: Moment, instance: Instance, committing: Committing, size: int, ended: bool) -> None:
    commit = committing.commit
    instance.history += commit.events  # type: ignore[arg-type]
    instance.size += size
    if ended:
        instance.condition = None
    elif commit.status_changed or commit.custom_status_changed or commit.condition_changed:
        instance.condition = commit.condition
    else:
        instance.projection.last_updated_at = commit.projection.last_updated_at
        return
    instance.projection = commit.projection.copy()
    instance.tried = ()
    moment.changed.append(commit.instance_id)


def _replace_history(
    moment: Moment, instance: Instance, committing: Committing, size: int, started: ExecutionStarted
) -> None:
    commit = committing.commit
    instance.history = list(commit.events)  # type: ignore[arg-type]
    instance.size = size
    instance.started = started
    instance.projection = commit.projection.copy()
    instance.condition, instance.begins, instance.tried = None, None, ()
    execution = commit.projection.execution_id
    for key, delayed in list(instance.delayed.items()):
        if delayed.message.execution_id not in (None, execution):
            moment.hub.forget(instance, key)
    moment.changed.append(commit.instance_id)


def _schedule(moment: Moment, instance: Instance, committing: Committing, outcome: CommitOutcome) -> None:
    hub, commit = moment.hub, committing.commit
    takes, at = committing.take_activities, commit.projection.last_updated_at
    taken: list[LockedActivity] = []
    for task in commit.activities:
        hub.counts.activity += 1
        options = task.options
        activity = Activity(
            key=hub.counts.activity,
            instance=instance.key,
            at=at,
            task=task,
            queue=queue_name(task.name, None if options is None else options.tag),
        )
        hub.activities[activity.key] = instance.activities[task.execution_id, task.scheduled] = activity
        if len(taken) < takes:
            activity.lock, activity.run = moment.token(), 1
            taken.append(locked_activity(activity))
        else:
            hub.enqueue(activity)
            moment.work = True
    outcome.activities = taken


def _cancel(moment: Moment, instance: Instance, committing: Committing) -> None:
    commit = committing.commit
    execution, ordinals = commit.projection.execution_id, set(commit.cancelled)
    for ordinal in commit.cancelled:
        activity = instance.activities.get((execution, ordinal))
        if activity is not None:
            moment.hub.drop(instance, activity)
    for key, delayed in list(instance.delayed.items()):
        if delayed.message.scheduled in ordinals and delayed.message.execution_id == execution:
            moment.hub.forget(instance, key)


def _send(moment: Moment, instance: Instance, committing: Committing, outcome: CommitOutcome, ended: bool) -> None:
    """The messages of a commit; what is for the instance itself (its timers) needs no look-up."""
    commit, counts, now = committing.commit, moment.hub.counts, moment.now
    others = []
    deliveries: list[Delivery] = []
    for message in commit.messages:
        if message.instance_id != commit.instance_id:
            others.append(message)
        elif not ended:
            counts.message += 1
            inbound = InboundMessage(
                event=message.event, key=counts.message, execution_id=message.execution_id, scheduled=message.scheduled
            )
            if message.due is not None and message.due > now:
                moment.hub.delay(instance, Delayed(message.due, inbound))
            else:
                instance.inbox[counts.message] = inbound
                deliveries.append(Delivery(instance.key, inbound))
    if others:
        found, dead = inbox.post_all(moment, others)
        deliveries += found
        if dead:
            outcome.dead = dead
    if deliveries:
        outcome.deliveries = [*outcome.deliveries, *deliveries]


def _end_below(moment: Moment, instance: Instance, commit: EpisodeCommit) -> None:
    """A recursive terminate that an instance took which has ended, or that came too late for it, goes on."""
    end = recursive_end((*taken_by(commit), *(message.event for message in instance.inbox.values())))
    if end is not None:
        told = [one.instance_id for one in commit.messages if type(one.event) is ExecutionTerminated]
        inbox.end_below(moment, commit.instance_id, end, told)


def _start(moment: Moment, committing: Committing, outcome: CommitOutcome) -> None:
    """The children of a commit; one whose id is taken by an instance that has not ended is answered as failed."""
    taken: list[LockedInstance] = []
    for position, child in enumerate(committing.commit.starts):
        old = moment.hub.of(child.started.instance_id)
        if old is not None:
            if old.projection.status not in TERMINAL:
                _refuse(moment, outcome, child.started)
                continue
            starts.replace(moment, old)
        locked = starts.insert(moment, child, position < committing.take_starts)
        if locked is not None:
            taken.append(locked)
    outcome.taken = taken


def _refuse(moment: Moment, outcome: CommitOutcome, started: ExecutionStarted) -> None:
    answer = refused_answer(started, moment.now)
    if answer is not None:
        deliveries, _ = inbox.post_all(moment, [answer])
        outcome.deliveries = [*outcome.deliveries, *deliveries]
