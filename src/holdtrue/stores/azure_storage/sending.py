"""Messages of clients: judged by the verified status, then put into the queue of their instance."""

import msgspec

from holdtrue.core.events import ExecutionRewound
from holdtrue.core.messages import OutboundMessage
from holdtrue.core.projection import TERMINAL, Status, rewinding
from holdtrue.stores.decisions import meant, recursive_end
from holdtrue.stores.errors import OutcomeUnknown
from holdtrue.stores.protocol import SendOutcome, SendResult

from .access import Access
from .dotnet_rewind import DotNetRewind
from .formats import Formats
from .names import SENTINEL
from .posting import Poster
from .reading import Reader, Standing
from .sentinel import next_episode, state_values
from .served import dotnet_serves
from .service import Conflict, Do, NotThere, Operation
from .terminating import Terminator

TRIES = 8


class Sender:
    """Sends what comes from outside."""

    def __init__(
        self, access: Access, formats: Formats, poster: Poster, reader: Reader, terminator: Terminator
    ) -> None:
        self._access = access
        self._formats = formats
        self._poster = poster
        self._reader = reader
        self._terminator = terminator
        self._dotnet_rewind = DotNetRewind(access, formats, poster)
        self._random = access.environment.random()

    async def send(self, message: OutboundMessage) -> SendOutcome:
        """Send one message."""
        standing = await self._reader.standing(message.instance_id)
        record = standing.record
        if record is None:
            return SendOutcome(result=SendResult.NOT_FOUND)
        parent = record.projection.parent
        meant_so = meant(message, None if parent is None else parent.instance_id)
        if meant_so is None:
            return SendOutcome(result=SendResult.ENDED)
        message = meant_so
        if message.execution_id is not None and message.execution_id != record.projection.execution_id:
            return SendOutcome(result=SendResult.ENDED)
        id = self._poster.client_id()
        if record.projection.status in TERMINAL:
            end = recursive_end((message.event,))
            if end is not None:
                await self._terminator.end_below(message.instance_id, end, id)
            if not isinstance(message.event, ExecutionRewound) or record.projection.status is not Status.FAILED:
                return SendOutcome(result=SendResult.ENDED)
            if await dotnet_serves(self._access):
                await self._dotnet_rewind.rewind(message.instance_id, message.event.reason)
                return SendOutcome(result=SendResult.ACCEPTED)
            if not await self._rewinding(message.instance_id, standing):
                return SendOutcome(result=SendResult.ENDED)
        await self._poster.client_message(message, id)
        return SendOutcome(result=SendResult.ACCEPTED)

    async def _rewinding(self, instance_id: str, standing: Standing) -> bool:
        """Say on the row and on the sentinel, in this order, that it is to be rewound; false where it is not Failed.

        The row first: a terminal row never stands over a live execution.
        """
        for _ in range(TRIES):
            record, sentinel, row = standing.record, standing.sentinel, standing.row
            if record is None or record.projection.status is not Status.FAILED or sentinel is None:
                return record is not None and record.projection.status is Status.PENDING
            now = self._access.environment.now()
            try:
                if row is not None:
                    values = self._formats.rewound_row(now)
                    operation = Operation(do=Do.MERGE, partition=row.partition, key="", values=values, etag=row.etag)
                    await self._access.write(self._access.names.instances, operation)
                projection = rewinding(record.projection, now)
                projection.input = None
                state = msgspec.structs.replace(
                    sentinel.state,
                    episode=next_episode(sentinel.state.episode, f"{self._random.getrandbits(32):08x}"),
                    previous=sentinel.state.episode,
                    rows=record.length,
                    projection=projection,
                    started=msgspec.structs.replace(record.started, input=None),
                    start_id=record.start_id,
                    mark=sentinel.mark,
                )
                await self._access.write(
                    self._access.names.history,
                    Operation(
                        do=Do.MERGE,
                        partition=self._formats.partition_key(instance_id),
                        key=SENTINEL,
                        values=state_values(state),
                        etag=sentinel.etag,
                    ),
                )
            except (Conflict, NotThere):
                standing = await self._reader.standing(instance_id)
                continue
            return True
        raise OutcomeUnknown(
            f"instance {instance_id!r}: its rewind was not taken for certain; read its status, and ask again"
        )
