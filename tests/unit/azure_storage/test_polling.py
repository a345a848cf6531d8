"""The loops that poll a host's queues, in virtual time."""

import asyncio

import pytest

from holdtrue.stores.azure_storage.polling import Loop
from holdtrue.stores.azure_storage.service import Unsure
from holdtrue.stores.errors import StoreUnavailable
from holdtrue.testing.environment import SimulatedEnvironment
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
