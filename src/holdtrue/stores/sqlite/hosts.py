"""The hosts of a hub: joining, leaving, leases, and taking over from those that died."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .rows import decode_names, encode
from .statements import sql
from .transaction import Transaction, tokens_of


class HostRow(NamedTuple):
    """A host as it stands in its table; `file` names its lock file, its lease is `lease_seconds` long."""

    number: int
    name: str
    file: str
    lease_seconds: float
    renewals: int
    orchestrators: str
    queues: str


class Joining(NamedTuple):
    """A host that joins, or (with its `number`) comes with other code."""

    name: str
    file: str
    lease_seconds: float
    orchestrators: Sequence[str]
    queues: Sequence[str]
    number: int


def apply_join(transaction: Transaction, joining: list[Joining]) -> list[int]:
    """Take part; what is held is offered again."""
    numbers = []
    for one in joining:
        names = (encode(list(one.orchestrators)).decode(), encode(list(one.queues)).decode())
        number = one.number
        if not number or transaction.counted("update_host", [(*names, one.lease_seconds, number)]) != 1:
            number = transaction.execute(sql.insert_host, (one.name, one.file, one.lease_seconds, *names)).fetchone()[0]
        numbers.append(number)
        transaction.executemany(sql.held_instances, [(transaction.now, name, number) for name in one.orchestrators])
        transaction.work = True
    return numbers


def hosts_of(execute: Callable[..., Any]) -> list[HostRow]:
    """All hosts that have joined and not left."""
    return [HostRow._make(row) for row in execute(sql.hosts).fetchall()]


def apply_remove(transaction: Transaction, numbers: list[int]) -> list[bool]:
    """Hosts leave, or were found dead: all that they held is free again.  False for one already removed."""
    removed = []
    for number in numbers:
        there = transaction.one(sql.host_alive, number) is not None
        removed.append(there)
        if there:
            first, last = tokens_of(number)
            transaction.execute(sql.delete_host, (number,))
            transaction.execute(sql.delete_mail, (number,))
            transaction.execute(sql.release_instances_of_host, (transaction.now, first, last))
            transaction.execute(sql.release_activities_of_host, (first, last))
            transaction.work = True
    return removed


def apply_renew(transaction: Transaction, numbers: list[int]) -> list[bool]:
    """Prolong the leases of these hosts; false where one was taken for dead."""
    return [transaction.counted("renew_host", [(number,)]) == 1 for number in numbers]


def served(hosts: Sequence[HostRow]) -> tuple[set[str], set[str]]:
    """The orchestrators and the queues that hosts serve."""
    orchestrators: set[str] = set()
    queues: set[str] = set()
    for host in hosts:
        orchestrators.update(decode_names(host.orchestrators))
        queues.update(decode_names(host.queues))
    return orchestrators, queues
