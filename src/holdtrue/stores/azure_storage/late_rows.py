"""The row that .NET writes last of an execution, and blindly: it may come when another start stands there (rule 10).

A live .NET worker writes it within a minute of its last commit.  So a start waits for it that long; and where it
comes all the same, just when the start's own row has been written, that row is written once more.
"""

import logging

from holdtrue.core.events import TICKS_PER_SECOND, Ticks
from holdtrue.core.messages import Start
from holdtrue.core.projection import TERMINAL
from holdtrue.stores.errors import StoreError

from .access import Access
from .formats import Formats
from .reading import Standing
from .served import dotnet_serves
from .service import Conflict, Do, NotThere, Operation
from .verdicts import RowView

log = logging.getLogger("holdtrue.azure_storage")

LATEST_TICKS: Ticks = 60 * TICKS_PER_SECOND
"""A live .NET worker has written the row so long after its commit."""
LOOK_SECONDS = 0.5
"""So often a start that waits for it looks."""
TRIES = 6


class LateRows:
    """What is done about rows that .NET has yet to write."""

    def __init__(self, access: Access, formats: Formats) -> None:
        self._access = access
        self._formats = formats

    async def may_come(self, standing: Standing) -> bool:
        """Whether .NET may yet write the row of what stands there: .NET committed last, and the row tells no end."""
        sentinel, view = standing.sentinel, standing.view
        if sentinel is None or sentinel.is_ours or (view is not None and view.status in TERMINAL):
            return False
        return await dotnet_serves(self._access)

    async def comes_yet(self, standing: Standing) -> bool:
        """Whether a row that may come is to be waited for; if so, some time has passed."""
        environment, sentinel, record = self._access.environment, standing.sentinel, standing.record
        if sentinel is None or record is None or record.projection.status not in TERMINAL:
            return False
        if environment.now() - sentinel.timestamp >= LATEST_TICKS:
            return False
        await environment.sleep(LOOK_SECONDS)
        return True

    async def write_over(self, start: Start, before: str) -> None:
        """Write the row of a start again where .NET wrote that of the execution `before` over it since.

        The start is made: what cannot be done here is only said.
        """
        instance_id = start.started.instance_id
        table = self._access.names.instances
        try:
            values = await self._formats.start_row(start)
            for _ in range(TRIES):
                row = await self._access.instances_row(instance_id)
                if row is None or not self._is_late(self._formats.row_view(row), start, before):
                    return
                again = Operation(do=Do.REPLACE, partition=row.partition, key="", values=values, etag=row.etag)
                try:
                    await self._access.write(table, again)
                except (Conflict, NotThere):
                    continue
                log.warning("instance %r: .NET wrote the end of its last run late; its new row is back", instance_id)
        except StoreError as error:
            log.warning("instance %r: whether .NET wrote over its new row is not known: %s", instance_id, error)

    @staticmethod
    def _is_late(view: RowView, start: Start, before: str) -> bool:
        return view.start_id == start.start_id and view.execution_id == before
