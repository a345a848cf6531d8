"""The orchestrations that the old order of writes runs: the job of the report, and those of the recordings.

An orchestration is a generator that yields what it asks for and is sent the result, as under .NET's own replay: it is
run from its beginning in every episode.  Payloads are JSON texts, as they stand in the hub.
"""

import json
from collections.abc import Callable, Generator, Sequence
from typing import Any

import msgspec

from holdtrue.core import events as ev


class Call(msgspec.Struct, frozen=True):
    """Run an activity."""

    name: str
    input: Any


class Child(msgspec.Struct, frozen=True):
    """Start a sub-orchestration under this id."""

    name: str
    instance_id: str
    input: Any


class Event(msgspec.Struct, frozen=True):
    """Wait for an external event."""

    name: str


class Custom(msgspec.Struct, frozen=True):
    """Set the custom status."""

    value: Any


class Boom(Exception):
    """An activity that fails, and the orchestration with it."""


Asked = Call | Child | Event | Custom | list[Child]
Code = Generator[Asked, Any, Any]


def singleton(instance_id: str, given: Any) -> Code:
    """The job that a timer starts every minute, unless it is still running."""
    return (yield Call("Work", given))


def chain(instance_id: str, count: Any) -> Code:
    """So many additions, one after the other."""
    number = 0
    for done in range(count):
        number = yield Call("AddOne", number)
        yield Custom(done)
    return number


def failing(instance_id: str, given: Any) -> Code:
    """Fails with its activity."""
    return (yield Call("Boom", given))


def event(instance_id: str, given: Any) -> Code:
    """Waits for `go` after its first step."""
    yield Call("AddOne", 0)
    return (yield Event("go"))


def parent(instance_id: str, count: Any) -> Code:
    """So many children at once, and the sum of what they give."""
    return sum((yield [Child("Chain", f"{instance_id}:child:{number}", 3) for number in range(count)]))


ORCHESTRATIONS: dict[str, Callable[[str, Any], Code]] = {
    "Singleton": singleton,
    "Chain": chain,
    "Failing": failing,
    "Event": event,
    "Parent": parent,
}


def activity(name: str, given: Any) -> Any:
    """What an activity gives.  Raises Boom where it fails."""
    if name == "AddOne":
        return given + 1
    if name == "Boom":
        raise Boom(f"boom {given}")
    return f"worked {json.dumps(given, indent=2)}"


class Step(msgspec.Struct):
    """What an episode comes to: new actions with their task ids, or the end."""

    actions: list[tuple[int, Call | Child]]
    custom_status: str | None
    next_id: int
    ended: bool = False
    output: str | None = None
    failure: str | None = None


def run(started: ev.ExecutionStarted, history: Sequence[ev.AnyEvent]) -> Step:
    """Run an orchestration from its beginning, over all that has happened."""
    results: dict[int, Any] = {}
    raised: list[ev.EventRaised] = []
    asked_before = {one.event_id for one in history if isinstance(one, (ev.TaskScheduled, *_CHILD))}
    for one in history:
        if isinstance(one, ev.TaskCompleted | ev.SubOrchestrationInstanceCompleted):
            results[one.task_scheduled_id] = json.loads(one.result or "null")
        elif isinstance(one, ev.TaskFailed | ev.SubOrchestrationInstanceFailed):
            results[one.task_scheduled_id] = Boom("" if one.failure is None else one.failure.message)
        elif isinstance(one, ev.EventRaised):
            raised.append(one)
    code = ORCHESTRATIONS[started.name](started.instance_id, json.loads(started.input or "null"))
    step = Step(actions=[], custom_status=None, next_id=0)
    answer: Any = None
    try:
        while True:
            asked = code.throw(answer) if isinstance(answer, Boom) else code.send(answer)
            answer = None
            if isinstance(asked, Custom):
                step.custom_status = json.dumps(asked.value)
            elif isinstance(asked, Event):
                mine = next((one for one in raised if one.name == asked.name), None)
                if mine is None:
                    return step
                raised.remove(mine)
                answer = json.loads(mine.input or "null")
            else:
                wanted = asked if isinstance(asked, list) else [asked]
                ids = range(step.next_id, step.next_id + len(wanted))
                step.next_id += len(wanted)
                step.actions += [pair for pair in zip(ids, wanted, strict=True) if pair[0] not in asked_before]
                if any(id not in results for id in ids):
                    return step
                found = [results[id] for id in ids]
                answer = found if isinstance(asked, list) else found[0]
    except StopIteration as end:
        step.ended, step.output = True, None if end.value is None else json.dumps(end.value)
    except Boom as error:
        step.ended, step.failure = True, str(error)
    return step


_CHILD = (ev.SubOrchestrationInstanceCreated,)
