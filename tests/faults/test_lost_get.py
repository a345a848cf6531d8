"""What a lost answer of a queue get costs: the time for which a get hides its messages, and no more than that."""

import asyncio

import pytest

import holdtrue
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.testing.storage_proxy import ANSWER_LOST, Rule
from holdtrue.testing.storage_requests import Answer, messages_in
from tests.faults.chain import app
from tests.faults.hosts import RunningHost
from tests.faults.load import Load
from tools.azurite import Azurite

COSTS = 5.0
ALLOWED, REQUESTS = 0.25, 50
"""Seconds, and requests as long as they take on this machine: until it is polled again, and the answer is here."""


async def seconds_until_it_comes_again(azurite: Azurite, queue: str, settings: AzureStorageSettings) -> float | None:
    """From the get of a queue whose answer was lost to the get that gave the message again; None: it did not come in
    time, as long as a request takes on this machine."""
    account, kind, loop = azurite.new_account(), f"queue get {queue}", asyncio.get_running_loop()
    got: list[tuple[float, set[str]]] = []

    def gives(answer: Answer) -> bool:
        messages = {message for message, instance in messages_in(answer).items() if instance == "one"}
        if messages:
            got.append((loop.time(), messages))
        return bool(messages)

    rule = Rule(lambda seen: seen.about.kind == kind, ANSWER_LOST, answered=gives)
    load = Load(azurite)
    measuring = asyncio.ensure_future(load.measure())
    host = RunningHost(azurite, account, app, settings, name="host", rules=[rule], real=None)
    service = HttpService(from_connection_string(azurite.connection_string(account)))
    store = AzureStorageStore(service, "Hub", settings=settings)
    try:
        await host.begin()
        async with asyncio.timeout(120):
            await store.open()
            await holdtrue.Client(store).start("Chain", input=1, instance_id="one")
            while not got:
                await asyncio.sleep(0.02)
        (lost, messages), longest = got[0], load.seconds
        while True:
            await asyncio.sleep(0.02)
            longest = max(longest, load.seconds)
            limit = COSTS + ALLOWED + REQUESTS * longest
            again = next((at for at, those in got[1:] if those & messages), None)
            if again is not None or loop.time() > lost + limit:
                return again - lost if again is not None and again <= lost + limit else None
    finally:
        measuring.cancel()
        await asyncio.gather(measuring, return_exceptions=True)
        await host.end()
        await store.close()
        await service.close()


@pytest.mark.parametrize("queue", ["control", "workitems"])
def test_a_lost_answer_of_a_get_costs_five_seconds(azurite: Azurite, queue: str) -> None:
    """With the settings as they are by default."""
    settings = AzureStorageSettings(partition_count=1, local_activities=False)
    assert settings.take_visibility == COSTS
    seconds = asyncio.run(seconds_until_it_comes_again(azurite, queue, settings))
    assert seconds is not None and seconds > COSTS - ALLOWED


def test_hidden_for_longer_it_would_cost_more(azurite: Azurite) -> None:
    """The measurement above can fail: 30 s at the get, as .NET's are five minutes."""
    settings = AzureStorageSettings(partition_count=1, take_visibility=30)
    assert asyncio.run(seconds_until_it_comes_again(azurite, "control", settings)) is None
