"""Dead letters in the hub's own table."""

import pytest

from holdtrue.core.events import TICKS_PER_SECOND, EventRaised
from holdtrue.core.messages import DeadLetter, OutboundMessage
from holdtrue.stores.azure_storage.access import Access
from holdtrue.stores.azure_storage.dead_letters import DeadLetters
from holdtrue.stores.azure_storage.formats import Formats
from holdtrue.stores.azure_storage.names import HubNames
from holdtrue.testing.environment import SimulatedEnvironment
from holdtrue.testing.storage_model import StorageModel
from holdtrue.testing.virtual_time import run

AT = 1_800_000_000 * TICKS_PER_SECOND


def letter(text: str) -> DeadLetter:
    event = EventRaised(timestamp=1, name="e", input=text)
    return DeadLetter(instance_id="a", reason="nobody", message=OutboundMessage(instance_id="a", event=event))


def test_each_of_many_put_in_one_second_is_kept() -> None:
    async def main() -> None:
        letters = opened()
        for number in range(300):
            await letters.bury(letter(str(number)), f"id{number}", AT)
            await letters.bury(letter(str(number)), f"id{number}", AT)
        await letters.bury(letter("later"), "later", AT + TICKS_PER_SECOND)
        found = await letters.read(limit=1_000, after=0)
        assert len(found) == await letters.count() == 301
        assert found[-1].letter == letter("later") and found[-1].number < 1 << 63
        assert (await letters.read(limit=10, after=found[4].number)) == found[5:15]

    run(main())


@pytest.mark.parametrize("size", [1, 300_000, 2_000_000])
def test_a_letter_of_any_size(size: int) -> None:
    async def main() -> None:
        letters = opened()
        await letters.bury(letter("ä" * size), "id", AT)
        (found,) = await letters.read(limit=10, after=0)
        assert found.letter == letter("ä" * size) and await letters.get(found.number) == found
        assert await letters.remove([found.number, found.number]) == 1
        assert await letters.read(limit=10, after=0) == []

    run(main())


def opened() -> DeadLetters:
    environment = SimulatedEnvironment(1)
    access = Access(StorageModel(environment), HubNames("Hub"), environment)
    return DeadLetters(access, Formats(access))
