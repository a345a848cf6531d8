"""A recursive terminate goes on from an instance that has ended to all under it (rule 11).

Children that have not begun have no row yet: the history that asked for them names them.
"""

import msgspec

from holdtrue.core.events import ExecutionTerminated
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.projection import TERMINAL

from .listing import Listing
from .posting import Poster
from .reading import Reader


class Terminator:
    """Ends what is under instances."""

    def __init__(self, poster: Poster, reader: Reader, listing: Listing) -> None:
        self._poster = poster
        self._reader = reader
        self._listing = listing

    async def end_below(self, instance_id: str, end: ExecutionTerminated, about: str) -> None:
        """End the children of an ended instance, and those of children that have ended; `about` makes the ids."""
        seen = {instance_id}
        above = [instance_id]
        while above:
            parent = above.pop()
            below = [name for name in await self._listing.readable_children(parent) if name not in seen]
            seen.update(below)
            (standing, *records) = await self._reader.readable([parent, *below])
            for name, record in zip(below, records, strict=True):
                if record is not None and record.projection.status in TERMINAL:
                    above.append(name)
                    continue
                event = end
                if record is None:
                    # Its start is on its way: whatever else gets this id is not meant.
                    execution = None if standing is None else standing.projection.execution_id
                    event = msgspec.structs.replace(end, parent_execution=execution)
                message = OutboundMessage(instance_id=name, event=event, sender=parent)
                await self._poster.client_message(message, self._poster.derived(name, "end", f"{parent} {about}"))
