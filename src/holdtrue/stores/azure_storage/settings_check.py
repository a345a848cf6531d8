"""What is wrong with the settings of a host.json as a whole, and what changing them does to a running hub."""

from collections.abc import Callable, Iterator, Sequence

import msgspec

from holdtrue.core.errors import InvalidInput

from .host_json import Finding, HostJson, Origin, Resolved, Weight, full, given
from .setting import Setting

_CONNECTIONS = ("storageProvider.connectionName", "storageProvider.trackingStoreConnectionName")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A setting whose value differs from that of the running hub."""

    setting: Setting
    before: str
    after: str
    weight: Weight
    text: str


def check(host: HostJson) -> list[Finding]:
    """All findings about a host.json: of its reading, then of values together, then what is needless."""
    findings = list(host.findings)
    for rule in (_secrets, _no_effect, _contradictions, _needless):
        findings += rule(host)
    if not any(finding.weight is Weight.ERROR for finding in findings):
        try:
            host.settings()
        except InvalidInput as error:
            findings.append(Finding(weight=Weight.ERROR, name="host.json", where="", text=str(error)))
    order = list(Weight)
    return sorted(findings, key=lambda finding: order.index(finding.weight))


def compare(running: HostJson, new: HostJson) -> list[Change]:
    """What differs, and what it does to a hub that has instances and hosts."""
    changes = []
    for path, after in new.values.items():
        before = running.values[path]
        if before.value == after.value:
            continue
        setting = after.setting
        if setting.breaks:
            weight, text = Weight.ERROR, setting.change
        elif setting.change:
            weight, text = Weight.WARNING, setting.change
        elif setting.needless:
            weight, text = Weight.NOTE, f"Nothing. {setting.needless}"
        else:
            weight, text = Weight.NOTE, "Each host takes it up when it is started; old and new ones may run beside."
        changes.append(Change(setting=setting, before=before.text, after=after.text, weight=weight, text=text))
    return changes


def beside_hub(host: HostJson, partitions: int | None, served_by: Sequence[str]) -> list[Finding]:
    """What a host.json means to the hub as it stands: how many partitions it has (None: there is no hub of that name),
    and which hosts serve it."""
    count = host.values["storageProvider.partitionCount"]
    if partitions is None:
        text = f"there is no hub {host.hub!r} in the account: the first host makes it, with {count.text} partitions"
        return [_finding(Weight.NOTE, host.values["hubName"], text)]
    found = []
    if count.value != partitions:
        text = f"the hub {host.hub!r} has {partitions}, not {count.text}. {count.setting.change}"
        found.append(_finding(Weight.ERROR, count, text))
    if served_by:
        text = f"the hub is served by {', '.join(served_by)}: each host has its settings until it is started anew"
        found.append(_finding(Weight.NOTE, host.values["hubName"], text))
    return found


def _finding(weight: Weight, one: Resolved, text: str) -> Finding:
    path = one.setting.path or ""
    if one.origin is Origin.ENVIRONMENT:
        return Finding(weight=weight, name=one.where, where=Origin.ENVIRONMENT, text=text)
    return Finding(weight=weight, name=full(path), where=one.where, text=text)


def _secrets(host: HostJson) -> Iterator[Finding]:
    for path in _CONNECTIONS:
        one = host.values[path]
        if isinstance(one.value, str) and "=" in one.value:
            yield _finding(
                Weight.ERROR,
                one,
                "it holds a connection string. Its value is the *name* of an app setting: put the string into one, "
                "and change the account's key if this file has been anywhere",
            )


def _no_effect(host: HostJson) -> Iterator[Finding]:
    """Settings that mean something only with another one."""
    needs: tuple[tuple[str, bool, str], ...] = (
        (
            "storageProvider.trackingStoreNamePrefix",
            host.value("storageProvider.trackingStoreConnectionName") is not None,
            "storageProvider.trackingStoreConnectionName is set",
        ),
        *(
            (f"appLeaseOptions.{name}", host.value("useAppLease"), "useAppLease is true")
            for name in ("leaseInterval", "renewInterval", "acquireInterval")
        ),
    )
    for path, holds, condition in needs:
        one = host.values[path]
        if one.origin is not Origin.DEFAULT and not holds:
            yield _finding(Weight.WARNING, one, f"it has no effect: it counts only where {condition}")


def _contradictions(host: HostJson) -> Iterator[Finding]:
    value: Callable[[str], float] = host.value
    batch, buffer = (f"storageProvider.controlQueue{name}" for name in ("BatchSize", "BufferThreshold"))
    if value(batch) > value(buffer):
        yield _finding(
            Weight.WARNING,
            _one_given(host, batch, buffer),
            f"a request takes {value(batch)} messages, and {value(buffer)} may be held: set controlQueueBatchSize to "
            "at most controlQueueBufferThreshold",
        )
    table, legacy = (f"storageProvider.use{name}PartitionManagement" for name in ("Table", "Legacy"))
    if value(table) and value(legacy):
        yield _finding(
            Weight.ERROR,
            host.values[legacy],
            "it contradicts useTablePartitionManagement, and .NET does not start with both: leave it out",
        )
    if not value(table) and value(legacy):
        yield _finding(
            Weight.ERROR,
            host.values[legacy],
            "Holdtrue does not do it, and its hosts do not see workers that do: stop the hub's .NET workers, and "
            "leave it out",
        )
    lease, renew = (f"appLeaseOptions.{name}Interval" for name in ("lease", "renew"))
    if host.value("useAppLease") and value(renew) >= value(lease):
        yield _finding(
            Weight.ERROR,
            _one_given(host, renew, lease),
            f"the app lease of {host.values[lease].text} would run out before it is renewed after "
            f"{host.values[renew].text}: set renewInterval to less than half of leaseInterval",
        )
    if not host.value("useAppLease"):
        yield _finding(
            Weight.WARNING,
            host.values["useAppLease"],
            "without the app lease nothing keeps two apps, or a .NET app and Holdtrue, from serving one hub at once",
        )
    if host.values["hubName"].origin is Origin.DEFAULT:
        yield Finding(
            weight=Weight.WARNING,
            name=full("hubName"),
            where="",
            text=f"it is not set: the hub is {host.hub!r}, and that of a deployment slot or a renamed site is another",
        )


def _one_given(host: HostJson, *paths: str) -> Resolved:
    return next(host.values[path] for path in paths if host.values[path].origin is not Origin.DEFAULT)


def _needless(host: HostJson) -> Iterator[Finding]:
    for one in given(host):
        if one.setting.needless:
            yield _finding(Weight.NOTE, one, f"accepted, and not needed. {one.setting.needless}")
