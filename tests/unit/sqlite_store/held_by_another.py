"""A process of its own that joins a hub, takes what there is, says so, and commits when it is told to.

Run by `test_processes.py`: `python held_by_another.py HUB LEASE [busy]`.
"""

import asyncio
import subprocess
import sys
from collections.abc import Sequence

from holdtrue.core.actions import CompleteOrchestration, Decision
from holdtrue.core.episode import ExecutionState, episode
from holdtrue.core.events import HistoryEvent
from holdtrue.core.projection import Status, initial
from holdtrue.environment import REAL
from holdtrue.stores.errors import StoreError
from holdtrue.stores.protocol import Committing
from holdtrue.stores.sqlite import SqliteStore


def end(state: ExecutionState, events: Sequence[HistoryEvent]) -> Decision:
    return Decision(actions=[CompleteOrchestration(id=1, status=Status.COMPLETED)], fed=len(events))


async def main(hub: str, lease: float, busy: bool) -> None:
    store = SqliteStore(hub, lease_seconds=lease)
    await store.open()
    await store.join("other", ["code"], ["act"])
    held = await store.lock(10)
    if busy:
        # A child with much to do, which this process's death does not end, and which got all descriptors that it could.
        child = subprocess.Popen(
            [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE, close_fds=False
        )
        assert child.stdout is not None
        child.stdout.readline()
        print("child", child.pid, flush=True)
    print("held", *(one.record.projection.instance_id for one in held), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    for one in held:
        state = ExecutionState(projection=initial(one.record.started), dialect=one.record.dialect)
        commit = episode(state, one.messages, end, now=REAL.now(), new_id=REAL.new_id)
        (outcome,) = await store.commit([Committing(lease=one.lease, commit=commit)])
        print("commit", outcome.result.value, flush=True)
    try:
        await store.renew()
        print("renewed", flush=True)
    except StoreError as error:
        print(type(error).__name__, flush=True)
    await store.close()


asyncio.run(main(sys.argv[1], float(sys.argv[2]), "busy" in sys.argv))
