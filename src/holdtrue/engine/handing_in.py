"""Hands results of activities to the hub whose instance this host does not hold (any more).

The hub knows whether anybody still wants them.  They are kept in memory until it has taken them: a result
that is lost with the host is made again, since its work item is still there.
"""

from collections.abc import Callable, Iterable

from holdtrue.core.messages import InboundMessage
from holdtrue.stores.protocol import ActivityResult, Delivery, TaskHubStore

from .tasks import Background


class HandingIn:
    """Results on their way to the hub, in batches.

    `deliver` takes what is for an instance of this host's, `look` is told that there may be an instance with
    work that nobody holds.
    """

    def __init__(
        self,
        store: TaskHubStore,
        background: Background,
        deliver: Callable[[Delivery], None],
        look: Callable[[], None],
    ) -> None:
        self._store = store
        self._background = background
        self._deliver = deliver
        self._look = look
        self._results: list[ActivityResult] = []
        self._under_way = False

    def add(self, results: Iterable[ActivityResult]) -> None:
        """Hand these in soon."""
        self._results += results
        if self._results and not self._under_way:
            self._under_way = True
            self._background.spawn(self._send())

    def add_messages(self, messages: Iterable[InboundMessage]) -> None:
        """Hand in those of these messages that are results of this host's own activities."""
        self.add(
            ActivityResult(ref=message.work, event=message.event)  # type: ignore[arg-type]
            for message in messages
            if message.work is not None
        )

    def forget(self) -> None:
        """This host lost its lease: others run these activities again."""
        self._results.clear()

    async def _send(self) -> None:
        try:
            while self._results:
                if not await self._background.until_done(self._send_batch):
                    return
        finally:
            self._under_way = False

    async def _send_batch(self) -> None:
        # A list of its own: what is added meanwhile goes with the next batch.
        results, self._results = self._results, []
        try:
            outcomes = await self._store.complete(results)
        except BaseException:
            self._results = results + self._results
            raise
        for outcome in outcomes:
            if outcome.delivery is not None:
                self._deliver(outcome.delivery)
        if any(outcome.accepted and outcome.delivery is None for outcome in outcomes):
            self._look()
