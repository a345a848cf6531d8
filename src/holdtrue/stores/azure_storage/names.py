"""What the resources of a task hub are called, which partition an instance belongs to, and its key in the tables.

For a hub `Hub` the tables keep its letters, queues and containers are lower case.  Pure.
"""

import re

import msgspec

from holdtrue.core.errors import InvalidInput

MAX_PARTITIONS = 16

_HUB = re.compile(r"[A-Za-z][A-Za-z0-9]{2,44}")


def fnv1a(data: bytes) -> int:
    """The 32 bit FNV-1a hash."""
    number = 2166136261
    for byte in data:
        number = (number ^ byte) * 16777619 & 0xFFFFFFFF
    return number


def partition_of(instance_id: str, partition_count: int) -> int:
    """The number of the control queue that serves an instance."""
    return fnv1a(instance_id.encode("utf-8", "surrogatepass")) % partition_count


_ESCAPES = {"^": "^^", "/": "^0", "\\": "^1", "#": "^2", "?": "^3"}
_ESCAPES.update({chr(code): "^" + chr(code + 0xC0) for code in (*range(0x20), *range(0x7F, 0xA0))})
_PLAIN = {escaped: plain for plain, escaped in _ESCAPES.items()}
_ESCAPED = str.maketrans(_ESCAPES)


def escape_key(instance_id: str) -> str:
    """An instance id as the tables' partition key: without the characters that a key may not have."""
    return instance_id.translate(_ESCAPED)


def unescape_key(key: str) -> str:
    """The instance id behind a partition key; what is no escape stays as it is."""
    return re.sub(r"\^.", lambda found: _PLAIN.get(found[0], found[0]), key, flags=re.DOTALL)


SENTINEL = "sentinel"
"""The row key of an instance's commit point; event rows sort before it."""


def row_key(ordinal: int) -> str:
    """The row key of a history row."""
    return f"{ordinal:016X}"


_UNFIT = re.compile(r"[\\\x00-\x1f\x7f-\x9f\ufffe\uffff]")


def message_blob(instance_id: str, activity_id: str, event_type: str) -> str:
    """The blob of a message that is too large for its queue.

    It lies under the plain id, unless the service would refuse that as a path or take it for another's (a segment
    that is empty or ends with a dot, a backslash).  Readers follow the name that the message gives.
    """
    name = f"message-{activity_id.replace('-', '')}-{event_type}.json.gz"
    if _UNFIT.search(instance_id) or any(not part or part.endswith(".") for part in instance_id.split("/")):
        return f"{own_folder(instance_id)}/{OWN}{name}"
    return f"{instance_id}/{name}"


def own_folder(instance_id: str) -> str:
    """The folder of an instance's blobs that are not messages: its key in the tables, dots at the end as `^4`."""
    key = escape_key(instance_id)
    kept = key.rstrip(".")
    return kept + "^4" * (len(key) - len(kept))


OWN = "holdtrue-"
"""Blobs of kinds that .NET does not have begin so, in an instance's own folder."""


def blob_prefixes(instance_id: str) -> tuple[str, ...]:
    """The beginnings under which all blobs of an instance lie; so may those of others (see `is_blob_of`)."""
    own = own_folder(instance_id)
    found = (f"{instance_id}/message-", f"{escape_key(instance_id)}/history-", f"{own}/history-", f"{own}/{OWN}")
    return tuple(dict.fromkeys(found))


def is_blob_of(instance_id: str, name: str) -> bool:
    """Whether a blob is an instance's: the messages of `a^0b` lie where the history of `a/b` does."""
    return any(name.startswith(prefix) and "/" not in name[len(prefix) :] for prefix in blob_prefixes(instance_id))


class HubNames(msgspec.Struct, frozen=True):
    """Names of a hub's tables, queues, containers and blobs.

    `tracking_prefix` is that of history and instances in an account of their own; without it they lie with the hub.
    Raises InvalidInput for a hub name that Azure would refuse.
    """

    hub: str
    tracking_prefix: str | None = None

    def __post_init__(self) -> None:
        for what, name in (("task hub", self.hub), ("tracking store prefix", self.tracking_prefix)):
            if name is not None and not _HUB.fullmatch(name):
                raise InvalidInput(
                    f"{name!r} cannot be the name of a {what}: it needs 3 to 45 letters and digits of ASCII, "
                    "a letter first"
                )

    @property
    def _lower(self) -> str:
        return self.hub.lower()

    @property
    def history(self) -> str:
        """The table of events."""
        return f"{self.tracking_prefix or self.hub}History"

    @property
    def instances(self) -> str:
        """The table of instances."""
        return f"{self.tracking_prefix or self.hub}Instances"

    @property
    def partitions(self) -> str:
        """The table that says who serves which control queue."""
        return f"{self.hub}Partitions"

    @property
    def own(self) -> str:
        """The table of what .NET's format has no place for."""
        return f"{self.hub}Holdtrue"

    @property
    def work_items(self) -> str:
        """The queue of activities."""
        return f"{self._lower}-workitems"

    def control(self, partition: int) -> str:
        """The queue of a partition, which is also the partition's key."""
        return f"{self._lower}-control-{partition:02d}"

    def partition_number(self, control: str) -> int | None:
        """The number in a control queue's name; None for a name that is no control queue of this hub."""
        number = control.removeprefix(f"{self._lower}-control-")
        return int(number) if re.fullmatch(r"[0-9]{2}", number, re.ASCII) else None

    @property
    def large_messages(self) -> str:
        """The container of large payloads."""
        return f"{self._lower}-largemessages"

    @property
    def app_lease(self) -> str:
        """The container whose lease is the app lease."""
        return f"{self._lower}-applease"

    @property
    def app_lease_info(self) -> str:
        """The blob in it that names the lease's owner."""
        return f"{self._lower}-appleaseinfo"

    @property
    def leases(self) -> str:
        """The container of blob leases, on hubs that have them."""
        return f"{self._lower}-leases"
