"""What of a status is too large for the sentinel: in a blob beside it, that the sentinel names (rule 6).

In memory a state is always whole; what its blob holds is left out where it is written, and put back where it is read.
"""

from contextlib import suppress

import msgspec

from holdtrue.core.events import FailureDetails
from holdtrue.core.projection import TERMINAL, Projection
from holdtrue.stores.errors import StoreCorrupt, StoreError

from .formats import Formats
from .large import Blob, pack, unpack
from .names import OWN, own_folder
from .sentinel import Sentinel, State

MOST_BYTES = 48 * 1024
"""Of output, custom status and failure together, as JSON; the sentinel's row has room for other things beside."""


class Payload(msgspec.Struct, frozen=True, omit_defaults=True):
    """The texts of a status."""

    output: str | None = None
    custom_status: str | None = None
    failure: FailureDetails | None = None


def payload_of(projection: Projection | None) -> Payload:
    """The texts of a projection."""
    if projection is None:
        return Payload()
    return Payload(projection.output, projection.custom_status, projection.failure)


class Payloads:
    """Reads and writes these blobs."""

    def __init__(self, formats: Formats) -> None:
        self._formats = formats

    async def put_beside(self, instance_id: str, state: State, before: State) -> State:
        """A state to be written, its blob written first where it needs one; `before` is what stands there."""
        payload = payload_of(state.projection)
        data = msgspec.json.encode(payload)
        if len(data) <= MOST_BYTES:
            return msgspec.structs.replace(state, payload=None)
        if before.payload is not None and payload == payload_of(before.projection):
            return msgspec.structs.replace(state, payload=before.payload)
        blob = Blob(f"{own_folder(instance_id)}/{OWN}{state.episode}-status.json.gz", pack(data.decode()))
        await self._formats.put_blob(blob)
        return msgspec.structs.replace(state, payload=blob.name)

    async def whole(self, sentinel: Sentinel) -> Sentinel:
        """A sentinel with what its blob holds.  Raises StoreCorrupt where that is gone: another may be named now."""
        state = sentinel.state
        if state.payload is None or state.projection is None:
            return sentinel
        place = f"blob {state.payload!r}"
        try:
            payload = msgspec.json.decode(unpack(await self._formats.get_blob(state.payload), place), type=Payload)
        except msgspec.DecodeError as error:
            raise StoreCorrupt(f"{place}: {error}") from error
        projection = state.projection.copy()
        projection.custom_status = payload.custom_status
        if projection.status in TERMINAL:
            # A rewind takes them away.
            projection.output, projection.failure = payload.output, payload.failure
        return msgspec.structs.replace(sentinel, state=msgspec.structs.replace(state, projection=projection))

    async def forget(self, before: State, now: State) -> None:
        """Delete the blob that a commit has left behind; where that fails it goes with the instance."""
        if before.payload is not None and before.payload != now.payload:
            with suppress(StoreError):
                await self._formats.delete_blob(before.payload)
