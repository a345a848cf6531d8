"""What goes: purged instances, dead letters sent again or dismissed, free pages, a long log."""

from typing import Any

from holdtrue.core.messages import OutboundMessage
from holdtrue.core.projection import TERMINAL, Status
from holdtrue.stores.decisions import AT_REST
from holdtrue.stores.protocol import Purged, SendResult

from . import inbox, starts
from .rows import decode_letter
from .statements import sql
from .transaction import Transaction

VACUUM_PAGES = 2_000
"""Free pages given back to the file system in one transaction."""


def apply_purge(transaction: Transaction, asked: list[tuple[str, bool]]) -> list[Purged]:
    """Delete ended instances (and those at rest), with their descendants where that is asked."""
    purged = []
    for instance_id, recursive in asked:
        counts = Purged(refused=[])
        purged.append(counts)
        row = transaction.one(sql.purge_target, instance_id)
        if row is None:
            continue
        if not _may_go(row):
            counts.refused.append(instance_id)
            continue
        below: list[Any] = [instance_id]
        starts.delete(transaction, row[0])
        counts.instances += 1
        transaction.changed.append(instance_id)
        while recursive and below:
            for (child_id,) in transaction.execute(sql.children, (below.pop(),)).fetchall():
                child = transaction.one(sql.purge_target, child_id)
                if not _may_go(child):
                    counts.refused.append(child_id)
                    continue
                below.append(child_id)
                starts.delete(transaction, child[0])
                counts.instances += 1
                counts.children += 1
                transaction.changed.append(child_id)
    return purged


def _may_go(row: tuple[int, int, int | None]) -> bool:
    _, status, lock = row
    return Status(status) in TERMINAL or lock == AT_REST


def apply_resend(transaction: Transaction, numbers: list[int]) -> list[bool]:
    """Send dead letters again; false for one that is not there, or whose instance still cannot take it."""
    sent = []
    for number in numbers:
        row = transaction.one(sql.dead_letter, number)
        if row is None:
            sent.append(False)
            continue
        message: OutboundMessage = decode_letter(row[0]).message
        accepted = inbox.post_unseen(transaction, message) is SendResult.ACCEPTED
        if accepted:
            transaction.execute(sql.delete_dead_letter, (number,))
        sent.append(accepted)
    return sent


def apply_dismiss(transaction: Transaction, numbers: list[int]) -> list[bool]:
    """Delete dead letters."""
    return [bool(transaction.counted("delete_dead_letter", [(number,)])) for number in numbers]


def apply_vacuum(transaction: Transaction, pages: list[int]) -> list[int]:
    """Give free pages back; how many are left."""
    left = []
    for most in pages:
        # The pragma takes no bound value; both numbers are ours.
        transaction.execute(f"pragma incremental_vacuum({int(most)})").fetchall()
        left.append(int(transaction.execute("pragma freelist_count").fetchone()[0]))
    return left
