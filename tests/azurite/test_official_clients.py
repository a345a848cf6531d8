"""The same calls through our requests and through the client libraries: what reaches the wire, and what comes back."""

import asyncio

import pytest

from holdtrue.stores.azure_storage.http.connection import from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from tests.azurite.calls import Book, Chooser, make, named
from tests.azurite.official import OfficialService
from tests.azurite.wiretap import Wiretap
from tools.azurite import Azurite


@pytest.mark.parametrize("seed", [1])
def test_same_requests_and_same_answers(azurite: Azurite, seed: int) -> None:
    async def both() -> None:
        async with Wiretap(azurite.ports) as tap:
            ours = HttpService(from_connection_string(azurite.connection_string(azurite.new_account(), tap.ports)))
            official = OfficialService(azurite.connection_string(azurite.new_account(), tap.ports))
            await ours.open()
            books = Book(), Book()
            chooser = Chooser(seed, tame=True)
            first = chooser.first()
            for number in range(600):
                call = first[number] if number < len(first) else chooser.next()
                while any(book.doubts(call) for book in books):
                    call = chooser.next()
                answer = await make(ours, books[0], call)
                requests = named(tap.take(), call, books[0])
                theirs = await make(official, books[1], call)
                assert answer == theirs, f"call {number} of seed {seed}: {call}"
                assert requests == named(tap.take(), call, books[1]), f"call {number} of seed {seed}: {call}"
                chooser.learn(call, answer)
            await ours.close()
            await official.close()

    asyncio.run(both())
