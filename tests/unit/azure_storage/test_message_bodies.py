"""The messages that a host of ours puts, beside those that .NET put for the same orchestrations: member by member,
type by type, in .NET's order."""

import asyncio
import json
from collections import defaultdict
from functools import cache
from typing import Any

import holdtrue
from holdtrue.core.projection import Status
from holdtrue.engine.settings import HostSettings
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_faults import Call, CallFaultList, FaultyService
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import Part, as_part, run
from tests.dotnet.orchestrations import app
from tests.dotnet.test_same_rows import STARTS
from tests.unit.azure_storage.recorded import recorded

FREE = {"Result", "Input", "Reason", "Details", "FailureDetails", "Data"}
"""As the orchestration has it; FailureDetails stand in rows too, and are compared there."""
OURS = "Holdtrue"
"""So begin members of ours, which .NET passes over."""


def shape(value: Any, name: str = "") -> Any:
    """What a value looks like without what is different in each run."""
    if name in FREE:
        return "free"
    if name == "OrchestrationTags":
        return "tags"
    if isinstance(value, dict):
        return tuple((key, shape(one, key)) for key, one in value.items() if not key.startswith(OURS))
    if isinstance(value, list):
        return tuple(shape(one) for one in value)
    if name in ("$type", "EventType", "IsPlayed"):
        return value
    return type(value).__name__


def event_of(body: dict[str, Any]) -> str:
    """The kind of a message: its event, and whether an episode sent it."""
    kind = body["TaskMessage"]["Event"]["$type"].rpartition(".")[2]
    return f"{kind} of {'an episode' if 'Episode' in body else 'a client'}"


@cache
def of_dotnet() -> dict[str, set[Any]]:
    """The shapes of each kind."""
    found = defaultdict(set)
    for name, _, text in recorded()["messages"]:
        if text.startswith("{") and not name.startswith(("Stuck", "Split")):
            body = json.loads(text)
            if body["TaskMessage"] is not None:
                found[event_of(body)].add(shape(body))
    return found


def of_ours() -> list[dict[str, Any]]:
    """The bodies of all messages of a run of the peer's orchestrations, on a model account."""
    bodies: list[dict[str, Any]] = []
    environment = SimulatedEnvironment(1)
    model = StorageModel(environment)

    def applied(call: Call, given: tuple[Any, ...], outcome: Any) -> None:
        if call.verb == "queues.put":
            bodies.append(json.loads(given[1]))

    def store(number: int, part: Part) -> AzureStorageStore:
        environment = SimulatedEnvironment(number)
        service = FaultyService(model, part, CallFaultList(()), applied=applied)
        settings = AzureStorageSettings(
            partition_count=2, max_queue_polling_interval=0.5, lease_acquire_interval=1.0, local_activities=False
        )
        return AzureStorageStore(service, "Bodies", environment=environment, settings=settings)

    async def main() -> None:
        hosts = []
        for number in (2, 3):
            part = Part(f"h{number}")
            with as_part(part):
                given = HostSettings(name=f"h{number}", retention=False, schedules=False)
                host = holdtrue.Host(app, store(number, part), settings=given, environment=SimulatedEnvironment(number))
                await asyncio.ensure_future(host.start())
                hosts.append((part, host))
        opened = store(4, Part("client"))
        await opened.open()
        client = holdtrue.Client(opened, app=app, environment=environment)
        await asyncio.sleep(10)  # each has its share: results go from one to the other
        await drive(client, environment)
        for part, host in hosts:
            with as_part(part):
                await asyncio.ensure_future(host.stop())
        await opened.close()

    run(main())
    return bodies


async def drive(client: holdtrue.Client, environment: SimulatedEnvironment) -> None:
    for name, (orchestration, input) in STARTS.items():
        await client.start(orchestration, input=input, instance_id=name)
    for number in range(10):
        await client.start("Failing", input="x", instance_id=f"failing{number}")
    await client.start("Event", instance_id="sent", tags={"a": "b"})
    await client.start("Sender", input={"to": "sent", "data": "x"}, instance_id="sender")
    await client.start("Event", instance_id="ended")
    for name in ("event", "ended"):
        while (await client.get_status(name)).runtime_status is Status.PENDING:
            await environment.sleep(0.5)
    await client.suspend("event", "a while")
    await client.resume("event", "on")
    await client.terminate("ended", output="enough", recursive=False)
    for name, data in (("event", "hello"), ("race-won", 1), ("reporting", 1), ("adder", 1), ("adder", 0)):
        await client.raise_event(name, "go", data=data)
    for name in (*STARTS, "sent", "sender", "ended"):
        await client.wait_for_completion(name, timeout=600)


def test_each_is_as_one_of_dotnet() -> None:
    bodies = [body for body in of_ours() if body["TaskMessage"] is not None]
    assert {event_of(body) for body in bodies} == {
        "ExecutionStartedEvent of a client",
        "ExecutionStartedEvent of an episode",
        "EventRaisedEvent of a client",
        "EventRaisedEvent of an episode",
        "ExecutionSuspendedEvent of a client",
        "ExecutionResumedEvent of a client",
        "ExecutionTerminatedEvent of a client",
        "TaskScheduledEvent of an episode",
        "TaskCompletedEvent of an episode",
        "TaskFailedEvent of an episode",
        "TimerFiredEvent of an episode",
        "SubOrchestrationInstanceCompletedEvent of an episode",
        "SubOrchestrationInstanceFailedEvent of an episode",
    }
    for body in bodies:
        assert shape(body) in of_dotnet()[event_of(body)], json.dumps(body, indent=1)
