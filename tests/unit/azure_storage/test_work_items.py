"""Work items that are let go while the engine asks for work."""

import asyncio
from types import SimpleNamespace
from typing import Any

from holdtrue.core.messages import ActivityTask
from holdtrue.stores.azure_storage.local import Named
from holdtrue.stores.azure_storage.work_items import WorkItems
from holdtrue.stores.protocol import queue_name


def test_what_is_let_go_while_others_are_got_is_not_given_and_stops_nobody() -> None:
    """A session that lost its partition dropped its activity while the queue was read: the engine's look for work
    ended with a KeyError, and no activity was taken any more."""

    async def main() -> None:
        class Mail:
            number = 0

            def next_number(self) -> int:
                self.number += 1
                return self.number

            async def pull(self, queue: str, limit: int, sort: Any) -> int:
                items.drop(gone)
                return 0

        access: Any = SimpleNamespace(names=SimpleNamespace(work_items="work"))
        nothing: Any = None
        mail: Any = Mail()
        items = WorkItems(access, mail, nothing, nothing)
        items.serve([queue_name("act", None)])
        gone, stays = (items.keep(Named(f"id{number}", task(number), 0, "1-a"), 1) for number in range(2))
        gone.offered = stays.offered = True
        locked = await items.lock(10, None)
        assert [one.ref.key for one in locked] == [stays.number]

    def task(number: int) -> ActivityTask:
        return ActivityTask(instance_id="i", execution_id="e", task_id=number, scheduled=number, name="act", input=None)

    asyncio.run(main())
