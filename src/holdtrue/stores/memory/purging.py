"""Deletes ended instances (and those at rest), with their descendants where that is asked."""

from holdtrue.core.projection import TERMINAL
from holdtrue.stores.decisions import AT_REST
from holdtrue.stores.protocol import Purged

from .hub import Instance, Moment
from .reading import children


def purge(moment: Moment, instance_id: str, recursive: bool, counts: Purged) -> None:
    """Delete one instance and what is below it; `counts` says what came of it."""
    instance = moment.hub.of(instance_id)
    if instance is None or not _delete(moment, instance, counts):
        return
    below = [instance_id]
    while recursive and below:
        for child in children(moment.hub, below.pop()):
            if _delete(moment, child, counts):
                counts.children += 1
                below.append(child.projection.instance_id)


def _delete(moment: Moment, instance: Instance, counts: Purged) -> bool:
    instance_id = instance.projection.instance_id
    if instance.projection.status not in TERMINAL and instance.lock != AT_REST:
        counts.refused.append(instance_id)
        return False
    moment.hub.remove(instance)
    counts.instances += 1
    moment.changed.append(instance_id)
    return True
