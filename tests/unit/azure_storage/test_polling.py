"""The loops that poll a host's queues, in virtual time."""

import asyncio
from typing import Any

import pytest

from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.stores.azure_storage.polling import Loop, Polling
from holdtrue.stores.azure_storage.service import QueueMessage, Unsure
from holdtrue.stores.azure_storage.settings import AzureStorageSettings
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.errors import StoreUnavailable
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import run


@pytest.mark.parametrize("trouble", [Unsure("no answer"), StoreUnavailable("a dead letter could not be kept")])
def test_a_poll_that_fails_is_not_the_last(trouble: Exception) -> None:
    """Whatever it was that failed: the get, or what was done with a message."""

    async def scenario() -> None:
        polls = 0
        came: list[float] = []

        async def pull() -> int:
            nonlocal polls
            polls += 1
            if polls == 1:
                raise trouble
            return polls == 2

        loop = asyncio.get_running_loop()
        polling = Loop(SimulatedEnvironment(1), pull, lambda: came.append(loop.time()), 5.0, "a queue")
        await asyncio.sleep(60)
        assert came == [1.0] and polls > 10
        polling.task.cancel()

    run(scenario())


@pytest.mark.parametrize("when", ["while it closes", "afterwards"])
def test_a_queue_that_is_gained_while_all_is_closed_is_not_polled(when: str) -> None:
    """Its lease was just asked for.  It was polled for ever: what came was hidden from its owner."""

    async def scenario() -> None:
        polls = 0

        async def pull(partition: int = 0) -> int:
            nonlocal polls
            polls += 1
            return 0

        polling = Polling(SimulatedEnvironment(1), pull=pull, pull_work=pull, came=lambda: None, longest=5.0)
        polling.gained(0)
        await asyncio.sleep(10)
        before = polls
        closing = asyncio.ensure_future(polling.close())
        if when == "afterwards":
            await closing
        else:
            await asyncio.sleep(0)
        polling.gained(1)
        await closing
        await asyncio.sleep(60)
        assert polls == before > 1

    run(scenario())


HIDDEN = AzureStorageSettings().take_visibility


@pytest.mark.parametrize("by", ["a poll", "a host that has a slot free"])
@pytest.mark.parametrize("idle", [0.0, 300.0])
def test_what_a_lost_answer_has_hidden_is_got_as_soon_as_it_comes_back(idle: float, by: str) -> None:
    """Also by a host that has polled in vain for so long that it does so every 30 s alone."""

    async def scenario() -> None:
        names = HubNames("Hub")
        queue = names.control(0) if by == "a poll" else names.work_items
        environment = SimulatedEnvironment(1)
        model: Any = StorageModel(environment)
        take, loop = model.queues.take, asyncio.get_running_loop()
        given: list[float] = []

        async def lossy(name: str, limit: int, visibility: int) -> list[QueueMessage]:
            found: list[QueueMessage] = await take(name, limit, visibility)
            if name == queue and found:
                given.append(loop.time())
                if len(given) == 1:
                    raise Unsure("the answer is lost")
            return found

        model.queues.take = lossy
        store = AzureStorageStore(model, "Hub", environment=environment)
        await store.open()
        await store.join("host", ["code"], ["act"])
        await store.lock_activities(10)
        await asyncio.sleep(idle)
        await model.queues.put(queue, "garbage")  # a dead letter, when it is got
        if by != "a poll":
            await store.lock_activities(10)
        await asyncio.sleep(60)
        assert [at - given[0] for at in given] == [0.0, pytest.approx(HIDDEN, abs=0.2)]
        await store.close()

    run(scenario())


def test_an_account_that_is_away_is_asked_every_few_seconds_alone() -> None:
    async def scenario() -> None:
        polls: list[float] = []
        environment = SimulatedEnvironment(1)

        async def pull(partition: int = 0) -> int:
            polls.append(environment.monotonic())
            polling.wake_in(partition, HIDDEN)
            raise Unsure("no answer")

        async def pull_nothing() -> int:
            return 0

        polling = Polling(environment, pull=pull, pull_work=pull_nothing, came=lambda: None, longest=30.0)
        polling.gained(0)
        await asyncio.sleep(600)
        assert 600 / HIDDEN <= len(polls) < 600 / HIDDEN + 10
        await polling.close()

    run(scenario())


def test_polls_of_a_quiet_queue_stay_rare_where_timers_are_a_little_early() -> None:
    """As those of a real loop are, by less than its clock's resolution."""

    class Early(SimulatedEnvironment):
        def call_later(self, seconds: float, call: Any) -> Any:
            return super().call_later(seconds * (1 - 1e-6), call)

    asked: list[float] = []

    async def pull() -> int:
        asked.append(asyncio.get_running_loop().time())
        return 0

    async def main() -> None:
        loop = Loop(Early(1), pull, lambda: None, 1.0, "a queue")
        await asyncio.sleep(60.0)
        before = len(asked)
        loop.wake()
        await asyncio.sleep(0.2)
        assert len(asked) >= before + 3, "it starts over when it is woken"
        loop.task.cancel()
        assert before < 75

    run(main())


def test_while_something_comes_to_one_queue_no_other_is_left_alone_for_long() -> None:
    """An id's queue is drawn by chance: who starts one after another would wait for a queue that has backed off."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        polls: list[float] = []
        busy = False

        async def pull(partition: int) -> int:
            if partition == 0:
                return int(busy)
            polls.append(loop.time())
            return 0

        async def pull_work() -> int:
            return 0

        polling = Polling(SimulatedEnvironment(1), pull=pull, pull_work=pull_work, came=lambda: None, longest=5.0)
        polling.gained(0)
        polling.gained(1)
        await asyncio.sleep(40)
        rested = polls[-1] - polls[-2]
        busy = True
        await asyncio.sleep(20)
        at_work = max(after - before for before, after in zip(polls[-20:], polls[-19:], strict=False))
        busy = False
        await asyncio.sleep(60)
        rested_again = polls[-1] - polls[-2]  # nothing has come to this one for a minute
        assert (rested, at_work, rested_again) == pytest.approx((5.0, 0.2, 6.25), abs=0.01)
        await polling.close()

    run(scenario())
