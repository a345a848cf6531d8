"""A process of its own that stops itself (SIGSTOP) where others must wait for it, and goes on when it is continued.

Run by `test_stopped.py`: `python stopped_in_its_turn.py HUB transaction|turn`.
"""

import asyncio
import signal
import sys
import threading
from typing import Any

from holdtrue.stores.sqlite import SqliteStore
from holdtrue.stores.sqlite.transaction import Transaction
from holdtrue.stores.sqlite.writer import Operation
from tests.conformance.acting import start


def stop_here() -> None:
    # To this very thread: it does not get past this.
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


async def main(hub: str, where: str) -> None:
    store = SqliteStore(hub)
    await store.open()

    def stop(transaction: Transaction, items: list[Any]) -> list[None]:
        stop_here()
        return [None] * len(items)

    if where == "transaction":
        await asyncio.gather(store._write(Operation(stop), [None]), store.create([start("theirs")]))
    else:
        assert store._presence is not None
        with store._presence.exclusive():
            stop_here()
    await store.close()
    print("went on", flush=True)


asyncio.run(main(*sys.argv[1:]))
