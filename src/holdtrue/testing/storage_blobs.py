"""The containers and blobs of a model account, and the leases on both."""

import re

import msgspec

from holdtrue.core.events import Ticks
from holdtrue.stores.azure_storage.service import BlobInfo, Conflict, TooLarge

from .storage_account import Account, expected_otherwise, not_there, refuse, request, seconds_in_ticks, whole_second

PAGE = 5_000

_NAME = re.compile(r"(?=.{3,63}\Z)[a-z0-9]+(-[a-z0-9]+)*")


class _Lease(msgspec.Struct):
    id: str
    seconds: int
    until: Ticks


class _Leasable(msgspec.Struct, kw_only=True):
    lease: _Lease | None = None

    def held(self, now: Ticks) -> _Lease | None:
        """The lease, while it lasts."""
        return self.lease if self.lease is not None and now < self.lease.until else None


class _Blob(_Leasable, kw_only=True):
    data: bytes
    created: Ticks
    etag: str


class _Container(_Leasable, kw_only=True):
    blobs: dict[str, _Blob] = {}


class ModelBlobs:
    """Blobs, as the port `Blobs` says."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._containers: dict[str, _Container] = {}

    def look(self, container: str, blob: str) -> bytes:
        """A blob at this moment: for who watches, not for who works.  Raises KeyError where there is none."""
        return self._containers[container].blobs[blob].data

    def names(self, container: str) -> list[str]:
        """The names of a container's blobs at this moment, none where there is no such container: the same."""
        return sorted(self._containers[container].blobs) if container in self._containers else []

    @request
    def create_container(self, container: str) -> bool:
        if not _NAME.fullmatch(container):
            raise refuse("InvalidResourceName" if 3 <= len(container) <= 63 else "OutOfRangeInput", container)
        if container in self._containers:
            return False
        self.account.check_free("Container", container)
        self._containers[container] = _Container()
        return True

    @request
    def delete_container(self, container: str) -> bool:
        there = self._containers.get(container)
        if there is None:
            return False
        if there.held(self.account.now()) is not None:
            raise expected_otherwise("LeaseIdMissing", f"there is a lease on the container {container}")
        del self._containers[container]
        self.account.deleted("Container", container)
        return True

    @request
    def put_blob(
        self, container: str, blob: str, data: bytes, *, only_new: bool = False, lease: str | None = None
    ) -> None:
        blobs = self._container(container).blobs
        there = blobs.get(blob)
        now = self.account.now()
        if there is not None and only_new:
            raise Conflict(409, "BlobAlreadyExists", "the specified blob already exists")
        _check_lease(there, lease, now)
        if there is None:
            blobs[blob] = _Blob(data=data, created=now, etag=f"{self.account.tick():X}")
            return
        there.data, there.etag = data, f"{self.account.tick():X}"
        if there.held(now) is None:
            there.lease = None

    @request
    def get_blob(self, container: str, blob: str, *, most: int | None = None) -> bytes | None:
        there = self._container(container).blobs.get(blob)
        if there is not None and most is not None and len(there.data) > most:
            raise TooLarge(f"the blob {blob} has more than {most} bytes")
        return None if there is None else there.data

    @request
    def delete_blob(self, container: str, blob: str) -> bool:
        blobs = self._container(container).blobs
        there = blobs.get(blob)
        if there is None:
            return False
        _check_lease(there, None, self.account.now())
        del blobs[blob]
        return True

    @request
    def list_blobs(self, container: str, prefix: str, *, token: str | None = None) -> tuple[list[BlobInfo], str | None]:
        blobs = self._container(container).blobs
        names = sorted(name for name in blobs if name.startswith(prefix) and (token is None or name >= token))
        size = PAGE
        random = self.account.random
        if self.account.manner.short_pages and random.random() < 0.5:
            size = random.randrange(len(names) + 1)
        now = self.account.now()
        infos = [
            BlobInfo(
                name=name,
                created=whole_second(blobs[name].created),
                size=len(blobs[name].data),
                etag=blobs[name].etag,
                leased=blobs[name].held(now) is not None,
            )
            for name in names[:size]
        ]
        return infos, names[size] if size < len(names) else None

    @request
    def acquire_lease(self, container: str, blob: str | None, seconds: int, proposed: str) -> bool:
        there = self._leasable(container, blob)
        now = self.account.now()
        held = there.held(now)
        if held is not None and held.id != proposed:
            return False
        if not 15 <= seconds <= 60:
            raise refuse("InvalidHeaderValue", f"a lease of {seconds} s: it may last 15 to 60")
        there.lease = _Lease(proposed, seconds, now + seconds_in_ticks(seconds))
        return True

    @request
    def renew_lease(self, container: str, blob: str | None, lease: str) -> bool:
        there = self._leasable(container, blob).lease
        if there is None or there.id != lease:
            return False
        there.until = self.account.now() + seconds_in_ticks(there.seconds)
        return True

    @request
    def change_lease(self, container: str, blob: str | None, lease: str, proposed: str) -> bool:
        held = self._leasable(container, blob).held(self.account.now())
        if held is None or held.id not in (lease, proposed):
            return False
        held.id = proposed
        return True

    @request
    def release_lease(self, container: str, blob: str | None, lease: str) -> bool:
        there = self._leasable(container, blob)
        if there.lease is None or there.lease.id != lease:
            return False
        there.lease = None
        return True

    def _container(self, container: str) -> _Container:
        there = self._containers.get(container)
        if there is None:
            raise not_there("ContainerNotFound", f"the container {container} does not exist")
        return there

    def _leasable(self, container: str, blob: str | None) -> _Leasable:
        there = self._container(container)
        if blob is None:
            return there
        if blob not in there.blobs:
            raise not_there("BlobNotFound", f"the blob {blob} does not exist")
        return there.blobs[blob]


def _check_lease(there: _Blob | None, lease: str | None, now: Ticks) -> None:
    """Raises what the service answers to a write under the wrong lease, or without the one there is."""
    held = None if there is None else there.held(now)
    if held is None:
        if lease is not None and there is not None:
            raise expected_otherwise("LeaseNotPresentWithBlobOperation", "there is no lease on the blob")
        return
    if lease is None:
        raise expected_otherwise("LeaseIdMissing", "there is a lease on the blob, and none was given")
    if lease != held.id:
        raise expected_otherwise("LeaseIdMismatchWithBlobOperation", "the lease is another one")
