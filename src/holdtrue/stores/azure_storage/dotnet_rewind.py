"""A rewind in .NET's way, for a hub that its workers serve.

They cannot read the message that asks a host of ours for a rewind: it would stay in their queue and spoil what is got
along with it.  What .NET's own client does instead: it turns the rows of the failure into GenericEvent rows, says
Pending on the instances row, and sends a GenericEvent to the instances at which the failure began.
"""

from collections.abc import Sequence

from holdtrue.core.events import GenericEvent
from holdtrue.core.messages import OutboundMessage
from holdtrue.stores.errors import OutcomeUnknown

from .access import Access
from .formats import Formats
from .posting import Poster
from .row_reading import rewound_from
from .service import ANY, Conflict, Do, NotThere, Operation, Row, Unsure, Value

TRIES = 8
MOST_A_TRANSACTION = 100


class DotNetRewind:
    """Rewinds as .NET's client does."""

    def __init__(self, access: Access, formats: Formats, poster: Poster) -> None:
        self._access = access
        self._formats = formats
        self._poster = poster

    async def rewind(self, instance_id: str, reason: str | None) -> None:
        """Set an instance back to before its failure, and the children that failed it.

        Raises OutcomeUnknown where its rows change all the time, or the account gives no clear answers.
        """
        for _ in range(TRIES):
            rows = await self._rows(instance_id)
            failed = failures(rows)
            children = [child for row in failed if (child := _child(row, rows)) is not None]
            values = self._formats.rewound_row(self._access.environment.now())
            operation = Operation(
                do=Do.MERGE, partition=self._formats.partition_key(instance_id), key="", values=values, etag=ANY
            )
            try:
                await self._access.write(self._access.names.instances, operation)
                for begin in range(0, len(failed), MOST_A_TRANSACTION):
                    turned = [
                        Operation(
                            do=Do.REPLACE, partition=row.partition, key=row.key, values=_turned(row), etag=row.etag
                        )
                        for row in failed[begin : begin + MOST_A_TRANSACTION]
                    ]
                    await self._access.service.tables.transact(self._access.names.history, turned)
            except (Conflict, NotThere, Unsure):
                continue  # turned by an attempt whose answer was lost, or changed: what stands there tells
            for child in children:
                await self.rewind(child, reason)
            if not children:
                event = GenericEvent(timestamp=self._access.environment.now(), data=reason)
                message = OutboundMessage(instance_id=instance_id, event=event)
                await self._poster.client_message(message, self._poster.client_id())
            return
        raise OutcomeUnknown(
            f"instance {instance_id!r}: its rewind was not taken for certain; read its status, and ask again"
        )

    async def _rows(self, instance_id: str) -> list[Row]:
        """The rows of the execution that stands there."""
        partition = await self._access.history_partition(instance_id)
        sentinel = partition.sentinel
        execution = None if sentinel is None else sentinel.execution_id
        return [row for row in partition.rows if row.values.get("ExecutionId") == execution]


def failures(rows: Sequence[Row]) -> list[Row]:
    """The rows that a rewind of .NET's turns: failed tasks with what asked for them, failed children, the end."""
    found: dict[str, Row] = {}
    for row in rows:
        kind, task = row.values.get("EventType"), row.values.get("TaskScheduledId")
        if kind == "TaskFailed":
            asked = [one for one in rows if _is(one, "TaskScheduled", task)]
            found.update((one.key, one) for one in asked)
        if (
            kind in ("TaskFailed", "SubOrchestrationInstanceFailed")
            or row.values.get("OrchestrationStatus") == "Failed"
        ):
            found[row.key] = row
    return [found[key] for key in sorted(found) if rewound_from(found[key].values) is None]


def _is(row: Row, kind: str, event_id: object) -> bool:
    return row.values.get("EventType") == kind and row.values.get("EventId") == event_id


def _child(row: Row, rows: Sequence[Row]) -> str | None:
    if row.values.get("EventType") != "SubOrchestrationInstanceFailed":
        return None
    task = row.values.get("TaskScheduledId")
    names = (one.values.get("InstanceId") for one in rows if _is(one, "SubOrchestrationInstanceCreated", task))
    return next((name for name in names if isinstance(name, str)), None)


def _turned(row: Row) -> dict[str, Value]:
    return {**row.values, "EventType": "GenericEvent", "Reason": f"Rewound: {row.values['EventType']}"}
