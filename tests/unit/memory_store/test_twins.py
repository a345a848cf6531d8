"""Both stores of one mind: whatever is done to a hub in memory and to one in SQLite, both answer the same."""

import asyncio
import random
from pathlib import Path

import pytest

from tests.conformance.acting import SECOND
from tests.unit.memory_store.twins import any_deed, do_both, sides

DEEDS = 150


@pytest.mark.parametrize("seed", range(20))
def test_they_answer_alike(seed: int, tmp_path: Path) -> None:
    async def main() -> None:
        chance = random.Random(seed)
        memory, sqlite = sides(tmp_path)
        told: list[str] = []
        try:
            for side in (memory, sqlite):
                await side.open()
            for number in range(1, DEEDS + 1):
                memory.clock.ticks += chance.choice([1, 1, SECOND, 12 * SECOND])
                name, deed = any_deed(chance)
                told.append(name)
                in_memory, in_sqlite = await do_both(memory, sqlite, deed, number)
                assert in_memory == in_sqlite, "\n".join(told)
                seen_in_memory, seen_in_sqlite = await memory.seen(), await sqlite.seen()
                for one, other in zip(seen_in_memory, seen_in_sqlite, strict=True):
                    assert one == other, "\n".join(told)
        finally:
            await memory.close()
            await sqlite.close()

    asyncio.run(main())
