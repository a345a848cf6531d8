"""Nothing grows without bound: what a hub and its hosts still hold when everything has come to rest."""

from typing import Any

import apsw
from broken import Broken

from holdtrue.core.projection import TERMINAL
from holdtrue.stores.memory.hub import MemoryHub
from holdtrue.stores.sqlite.transaction import PLACE_BITS

SPARE = 64
"""So much may lie about that is cleared away only when more has gathered."""


def in_host(name: str, host: Any, store: Any) -> list[str]:
    """What a host that rests still holds."""
    held = {
        **_in_engine(host),
        "a number that is given up": store._forsaken,
        "notes of hosts that are gone": max(0, len(store._leases._since) - len(store_hosts(store))),
    }
    return [f"{name} holds {count} {what}" for what, count in held.items() if count]


def _in_engine(host: Any) -> dict[str, int]:
    dispatcher = host.dispatcher
    return {
        "sessions": len(dispatcher.sessions),
        "bytes of sessions": dispatcher.sessions.bytes,
        "sessions to be handled": len(dispatcher._ready),
        "sessions in hand": dispatcher._busy,
        "results to hand in": len(dispatcher._handing_in._results),
        "work items": len(host.pool.refs()) if host.pool is not None else 0,
        "waits for changes": len(host.changes._watches),
    }


def in_host_on_azure(name: str, host: Any, store: Any, live: set[str]) -> list[str]:
    """What a host that rests still holds, of the instances `live` and of others, and its part of the hub."""
    taking, adopter, waiting = store._taking, store._adopter, store._waiting
    due = (store._afterwards._debts, store._afterwards._rows)
    held = {
        **_in_engine(host),
        "instances in hand": len(taking._held),
        "instances with messages": len(taking._waiting),
        "deliveries": len(taking._deliveries),
        "instances that are read": len(taking._adopting) + len(taking._handing_out),
        "messages to be looked at": len(taking._doubles) + len(taking._strange) + len(taking._keepers),
        "partitions that are drained": len(taking._draining),
        "messages in hand": len(store._mail),
        "work items in hand": len(store._work._items),
        "instances with activities of their own": len(store._local._runs),
        "writes that are due": sum(len(line._due) for line in due) + len(store._afterwards._in_work),
        "times of writes": sum(max(0, len(line._heap) - SPARE) for line in due),
        "notes of what waits": len((waiting._noted | waiting._tried.keys() | waiting._doubtful) - live),
        "notes of what is kept": len(adopter.kept_for - live),
    }
    return [f"{name} holds {count} {what}" for what, count in held.items() if count]


def store_hosts(store: Any) -> list[Any]:
    """The hosts as the store of one sees them."""
    hub = getattr(store, "hub", None)
    return list(hub.members) if isinstance(hub, MemoryHub) else list(store._read(lambda reader: reader.hosts()))


def in_memory_hub(hub: MemoryHub) -> list[str]:
    """What a hub in memory still holds for instances that have ended, or that are gone."""
    waiting = [one for one in hub.instances.values() if one.projection.status not in TERMINAL]
    ended = [one for one in hub.instances.values() if one.projection.status in TERMINAL]
    live = {one.key for one in waiting}
    held: dict[str, Any] = {
        "mail": [host for host, mail in hub.mail.items() if set(mail) - live],
        "ready instances": [key for line in hub.ready.values() for key in line if key not in live],
        "instances to be ended": [key for key in hub.ending if key not in live],
        "work items": [key for key, item in hub.activities.items() if item.instance not in live],
        "locks on ended instances": [one.key for one in ended if one.lock],
        "messages of ended instances": [one.key for one in ended if one.inbox or one.delayed or one.activities],
        "children of nobody": [
            name for name, keys in hub.children.items() if not keys or any(key not in hub.instances for key in keys)
        ],
        "ids without instance": [name for name, key in hub.keys.items() if key not in hub.instances],
        "times of messages that are gone": [None] * max(0, len(hub._due) - 2 * hub._delayed - SPARE),
        "work items in line that are gone": [
            key for line in hub.lines.values() for key in line._items if key not in hub.activities
        ],
    }
    return [f"the hub holds {what}: {which}" for what, which in held.items() if which]


_LIVE = "(select key from instance where completed is null)"
_OF_NOBODY = {
    "messages": f"select count(*) from message where instance not in {_LIVE}",
    "mail": f"select count(*) from mail where instance not in {_LIVE} or host not in (select number from host)",
    "work items": f"select count(*) from activity where key >> {PLACE_BITS} not in {_LIVE}",
    "locks on ended instances": "select count(*) from instance where completed is not null and lock is not null",
    "large starts without instance": "select count(*) from large where instance not in (select key from instance)",
    "history of nobody": f"select count(*) from history where key >> {PLACE_BITS} not in (select key from instance)",
}


def in_file(path: str) -> list[str]:
    """What the tables of a hub still hold for instances that have ended, or that are gone."""
    connection = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        counts = {what: connection.execute(statement).get for what, statement in _OF_NOBODY.items()}
    finally:
        connection.close()
    return [f"the hub holds {count} {what}" for what, count in counts.items() if count]


def nothing_is_left(found: list[str]) -> None:
    """What has ended must not cost anything for ever: a hub runs for years."""
    if found:
        raise Broken(f"left behind when all had come to rest: {'; '.join(found)}")
