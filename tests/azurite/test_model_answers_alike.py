"""The model in memory and the emulator are given the same calls, and answer alike."""

import asyncio

import pytest

from holdtrue.environment import REAL
from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.testing.storage_model import AZURITE, StorageModel
from tests.azurite.calls import Book, Chooser, make
from tools.azurite import Azurite


@pytest.mark.parametrize("seed", [1, 2])
def test_a_thousand_random_calls(azurite: Azurite, seed: int) -> None:
    model = StorageModel(REAL, manner=AZURITE)
    emulator = HttpService(from_connection_string(azurite.connection_string(azurite.new_account())))
    chooser = Chooser(seed)
    verbs: set[tuple[str, bool]] = set()

    async def both() -> None:
        await emulator.open()
        books = Book(), Book()
        first = chooser.first()
        for number in range(1_000):
            call = first[number] if number < len(first) else chooser.next()
            while any(book.doubts(call) for book in books):
                call = chooser.next()
            answer = await make(emulator, books[0], call)
            modelled = await make(model, books[1], call)
            assert answer == modelled, f"call {number} of seed {seed}: {call}"
            chooser.learn(call, answer)
            verbs.add((call.verb, isinstance(answer, tuple) and answer[0] in ("Refused", "NotThere", "Conflict")))
        await emulator.close()

    asyncio.run(both())
    assert len(verbs) >= 35, sorted(verbs)
