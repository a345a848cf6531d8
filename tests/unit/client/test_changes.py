"""Waits for changes: none is lost, none is left behind."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from holdtrue.client.changes import Changes
from holdtrue.client.reads import StatusReads


def test_a_change_between_the_look_and_the_wait_is_not_lost() -> None:
    async def main() -> None:
        changes = Changes()
        with changes.watch("a") as watch:
            changes.notify(["b", "a"])
            assert await watch.wait(0) is True
            assert await watch.wait(0.001) is False
        assert changes._watches == {}

    asyncio.run(main())


def test_all_who_wait_are_woken_and_nobody_else() -> None:
    async def main() -> None:
        changes = Changes()
        waits = [asyncio.ensure_future(changes.wait(i)) for i in ("a", "a", "b")]
        await asyncio.sleep(0)
        changes.notify(["a", "nobody"])
        await asyncio.gather(*waits[:2])
        assert not waits[2].done()
        changes.notify_all()
        await waits[2]
        assert changes._watches == {}

    asyncio.run(main())


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def main() -> None:
        changes = Changes()
        wait = asyncio.ensure_future(changes.wait("a"))
        await asyncio.sleep(0)
        wait.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wait
        assert changes._watches == {}
        changes.notify(["a"])

    asyncio.run(main())


def test_a_close_wakes_everybody_for_good() -> None:
    async def main() -> None:
        changes = Changes()
        wait = asyncio.ensure_future(changes.wait("a"))
        await asyncio.sleep(0)
        changes.close()
        await wait
        await changes.wait("b")

    asyncio.run(main())


class Slow:
    """A store whose reads take a turn of the loop, and are counted."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.broken = False

    async def status(self, ids: Sequence[str]) -> list[Any]:
        self.calls.append(list(ids))
        await asyncio.sleep(0.001)
        if self.broken:
            raise OSError("no")
        return [f"record of {i}" for i in ids]


def test_reads_that_come_while_one_is_under_way_go_together() -> None:
    async def main() -> None:
        store = Slow()
        reads = StatusReads(store)  # type: ignore[arg-type]
        found = await asyncio.gather(*(reads.read(f"i{n % 40}") for n in range(200)))
        assert found == [f"record of i{n % 40}" for n in range(200)]
        assert len(store.calls) == 2
        assert await reads.read("alone") == "record of alone"

    asyncio.run(main())


def test_a_read_that_fails_is_told_to_all_and_the_next_one_works() -> None:
    async def main() -> None:
        store = Slow()
        store.broken = True
        reads = StatusReads(store)  # type: ignore[arg-type]
        found = await asyncio.gather(*(reads.read(f"i{n}") for n in range(5)), return_exceptions=True)
        assert [type(f) for f in found] == [OSError] * 5
        store.broken = False
        assert await reads.read("a") == "record of a"

    asyncio.run(main())


def test_a_reader_that_gives_up_does_not_disturb_the_others() -> None:
    async def main() -> None:
        reads = StatusReads(Slow())  # type: ignore[arg-type]
        tasks = [asyncio.ensure_future(reads.read("a")) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        tasks[0].cancel()
        assert await tasks[2] == "record of a"
        assert await reads.read("b") == "record of b"

    asyncio.run(main())
