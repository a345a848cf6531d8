"""What Holdtrue puts into queues and blobs for an orchestration, beside what .NET puts for it: member by member."""

import asyncio
import gzip
import json
from base64 import b64decode
from typing import Any
from xml.etree import ElementTree

from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.served import owners
from holdtrue.testing.storage_proxy import Seen, StorageProxy
from tests.dotnet import peer
from tests.dotnet.sides import Sides, outcome
from tools.azurite import Azurite

pytestmark = peer.needed

WITHOUT_MESSAGES = ("5", "6")
"""Results of activities (completed, failed): of those that it ran itself a host of ours needs none."""
STARTS: dict[str, tuple[str, Any]] = {
    "chain": ("Chain", 3),
    "fan": ("FanOut", 3),
    "timer": ("Timer", 1),
    "event": ("Event", None),
    "sent": ("Event", None),
    "race-won": ("Race", 600),
    "parent": ("Parent", 2),
    "parent-catch": ("ParentCatch", None),
    "loop": ("Loop", 2),
    "adder": ("Adder", 5),
    # So many that both hosts have some.
    **{f"failing-{number}": ("Failing", "x") for number in range(20)},
    "handling": ("Handling", "x"),
    "throwing": ("Throwing", None),
    "large": ("Large", 100),
    "reporting": ("Reporting", {"step": 1}),
    "nothing": ("Nothing", None),
    "singleton": ("Singleton", "m"),
}
SENT = {"to": "sent", "data": "from sender"}
EVENTS = [("event", "hello"), ("race-won", 1), ("adder", 0), ("reporting", 1)]

BY_CHANCE = {"ActivityId", "ExecutionId", "SequenceNumber", "Timestamp", "FireAt", "CompressedBlobName", "Episode"}
"""Members of which only the type is compared: ids and times of a run, and counts of a process."""
OF_A_LANGUAGE = {"Reason", "Details"}
"""Of a failure: what an exception says of itself."""
NOT_COMPARED = {"Holdtrue", "FailureDetails"}
"""Our own member; and what the peer does not tell of a failure, whose settings are of before it could."""


def test_messages_are_as_dotnet_puts_them(azurite: Azurite) -> None:
    async def main() -> None:
        async with asyncio.timeout(280):
            theirs, ours = await asyncio.gather(_messages(azurite, "dotnet"), _messages(azurite, "ours"))
        wrong = [f"only .NET puts {one}" for one in theirs.keys() - ours.keys() if not _is_result(one)]
        wrong += [f"only we put {one}" for one in ours.keys() - theirs.keys()]
        both = theirs.keys() & ours.keys()
        for key in both:
            if theirs[key] != ours[key]:
                less, more = _less(theirs[key], ours[key]), _less(ours[key], theirs[key])
                wrong.append(f"{key}: .NET has {less}, we have {more}")
        assert not wrong, "\n".join(sorted(wrong))
        kinds = {(place, about.partition(",")[0]) for place, _, about in both}
        assert {*(("control", f"[{kind}") for kind in (0, 5, 6, 8, 9, 11, 15)), ("workitems", "[4")} <= kinds
        assert {place for place, *_ in both} == {"control", "workitems", "blob", "wrapper"}

    asyncio.run(main())


def _is_result(key: "Key") -> bool:
    return key[2].removeprefix("[").partition(",")[0] in WITHOUT_MESSAGES


def _less(one: Any, other: Any) -> list[Any]:
    return [member for member in one if member not in other]


TELLING = ("EventType", "EventId", "TaskScheduledId", "TimerId", "Name", "Input")
"""Members of an event by which it is known from others of its instance."""
Key = tuple[str, str, str]
Members = tuple[tuple[str, Any], ...]


async def _messages(azurite: Azurite, side: str) -> dict[Key, Members]:
    """What one side puts for all of them: by queue, instance and event, the members in their order."""
    account = azurite.new_account()
    async with StorageProxy(azurite.ports) as proxy:
        sides = Sides(azurite.connection_string(account, proxy.ports))
        try:
            await sides.dotnet("create-hub")
            if side == "dotnet":
                await sides.worker(side, peer.PATIENT)
            else:
                await _two_of_ours(sides)
            await _run(sides, side)
            texts = [("blob", text) for text in await _in_blobs(sides)]
        finally:
            await sides.close()
        return _found([*_in_queues(proxy.seen), *texts])


async def _two_of_ours(sides: Sides) -> None:
    """Two hosts, each with a partition, of which one runs no activity: the other's results for it are messages."""
    await sides.worker("ours", None, "queued", "idle")
    await sides.worker("ours", None, "queued")
    access = (await sides.store())._access
    while len(await owners(access)) < 2:
        await asyncio.sleep(0.2)


def _in_queues(seen: list[Seen]) -> list[tuple[str, str]]:
    """The texts that were put, each with the kind of its queue."""
    puts = [one for one in seen if (one.about.service, one.about.operation) == ("queue", "put")]
    return [(one.about.role, ElementTree.fromstring(one.request.body).findtext("MessageText") or "") for one in puts]


async def _in_blobs(sides: Sides) -> list[str]:
    """The texts of the messages in blobs."""
    service, container = HttpService(from_connection_string(sides.connection)), f"{sides.hub.lower()}-largemessages"
    try:
        await service.open()
        found, token = await service.blobs.list_blobs(container, "")
        assert token is None
        names = [one.name for one in found if "/message-" in one.name]
        return [gzip.decompress(await service.blobs.get_blob(container, name) or b"").decode() for name in names]
    finally:
        await service.close()


async def _run(sides: Sides, side: str) -> None:
    client = await sides.client()
    for name, (orchestration, given) in STARTS.items():
        if side == "ours":
            await client.start(orchestration, input=given, instance_id=name)
        else:
            await sides.dotnet("start", orchestration, name, *(() if given is None else (json.dumps(given),)))
    for name in ("event", "reporting"):
        while not any(type(event).__name__ == "TaskCompleted" for event in [one async for one in client.history(name)]):
            await asyncio.sleep(0.2)
    if side == "ours":
        await client.start("Sender", input=SENT, instance_id="sender")
    else:
        await sides.dotnet("start", "Sender", "sender", json.dumps(SENT))
    for name, data in EVENTS:
        if side == "ours":
            await client.raise_event(name, "go", data)
        else:
            await sides.dotnet("raise", name, "go", json.dumps(data))
    for name in (*STARTS, "sender"):
        await outcome(sides, name)


def _found(texts: list[tuple[str, str]]) -> dict[Key, Members]:
    """The messages, those in blobs beside their wrappers."""
    found: dict[Key, Members] = {}
    for place, text in texts:
        message = json.loads(text if text.startswith("{") else b64decode(text))
        task = message.get("TaskMessage")
        if task is None:
            place, instance, about = "wrapper", "", ""
        else:
            about = json.dumps([task["Event"].get(name) for name in TELLING])
            instance = task["OrchestrationInstance"]["InstanceId"]
        found[place, instance, about] = tuple(_members(message))
    return found


def _members(value: Any, path: str = "") -> list[tuple[str, Any]]:
    """Each member by its path, with its value, or its type where that is of chance."""
    if isinstance(value, dict):
        found = [(path, "object")]
        for name, one in value.items():
            if name not in NOT_COMPARED:
                found += _members(one, f"{path}.{name}")
        return found
    if isinstance(value, list):
        return [(path, "list"), *(member for at, one in enumerate(value) for member in _members(one, f"{path}[{at}]"))]
    name = path.rpartition(".")[2]
    if value is not None and (name in BY_CHANCE or (name in OF_A_LANGUAGE)):
        return [(path, type(value).__name__)]
    return [(path, value)]
