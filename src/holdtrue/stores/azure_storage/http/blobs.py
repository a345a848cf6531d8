"""Containers, blobs and leases over HTTP, as the port `Blobs` says."""

from urllib.parse import quote, unquote
from xml.etree import ElementTree

from holdtrue.stores.azure_storage.moments import from_header_text
from holdtrue.stores.azure_storage.service import BlobInfo, Conflict, NotThere, Unsure

from .requests import Requests

_XML = {"accept": "application/xml"}
_CONTAINER = "restype=container"


class HttpBlobs:
    """Blobs."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def create_container(self, container: str) -> bool:
        try:
            await self._requests.send("blob", "PUT", f"/{container}", _CONTAINER, _XML, expect=(201,), again=True)
        except Conflict as conflict:
            if conflict.code == "ContainerAlreadyExists":
                return False
            raise
        return True

    async def delete_container(self, container: str) -> bool:
        try:
            await self._requests.send("blob", "DELETE", f"/{container}", _CONTAINER, _XML, expect=(202,), again=True)
        except NotThere:
            return False
        return True

    async def put_blob(
        self, container: str, blob: str, data: bytes, *, only_new: bool = False, lease: str | None = None
    ) -> None:
        headers = {**_XML, "x-ms-blob-type": "BlockBlob", "content-type": "application/octet-stream"}
        if only_new:
            headers["if-none-match"] = "*"
        if lease is not None:
            headers["x-ms-lease-id"] = lease
        await self._requests.send(
            "blob", "PUT", blob_path(container, blob), "", headers, data, expect=(201,), again=not only_new
        )

    async def get_blob(self, container: str, blob: str, *, most: int | None = None) -> bytes | None:
        try:
            answer = await self._requests.send(
                "blob", "GET", blob_path(container, blob), "", _XML, expect=(200,), again=True, most=most
            )
        except NotThere as gone:
            _check_container(gone)
            return None
        return answer.body

    async def delete_blob(self, container: str, blob: str) -> bool:
        try:
            await self._requests.send("blob", "DELETE", blob_path(container, blob), "", _XML, expect=(202,), again=True)
        except NotThere as gone:
            _check_container(gone)
            return False
        return True

    async def list_blobs(
        self, container: str, prefix: str, *, token: str | None = None
    ) -> tuple[list[BlobInfo], str | None]:
        query = f"{_CONTAINER}&comp=list&prefix={quote(prefix, safe='')}"
        if token is not None:
            query += f"&marker={quote(token, safe='')}"
        answer = await self._requests.send("blob", "GET", f"/{container}", query, _XML, expect=(200,), again=True)
        return listing_in(answer.body)

    async def acquire_lease(self, container: str, blob: str | None, seconds: int, proposed: str) -> bool:
        headers = {"x-ms-lease-duration": str(seconds), "x-ms-proposed-lease-id": proposed}
        return await self._lease(container, blob, "acquire", headers, expect=201)

    async def renew_lease(self, container: str, blob: str | None, lease: str) -> bool:
        return await self._lease(container, blob, "renew", {"x-ms-lease-id": lease})

    async def change_lease(self, container: str, blob: str | None, lease: str, proposed: str) -> bool:
        headers = {"x-ms-lease-id": lease, "x-ms-proposed-lease-id": proposed}
        return await self._lease(container, blob, "change", headers)

    async def release_lease(self, container: str, blob: str | None, lease: str) -> bool:
        return await self._lease(container, blob, "release", {"x-ms-lease-id": lease}, again=False)

    async def _lease(
        self,
        container: str,
        blob: str | None,
        action: str,
        headers: dict[str, str],
        *,
        expect: int = 200,
        again: bool = True,
    ) -> bool:
        path = f"/{container}" if blob is None else blob_path(container, blob)
        query = f"comp=lease&{_CONTAINER}" if blob is None else "comp=lease"
        headers = {**_XML, "x-ms-lease-action": action, **headers}
        try:
            await self._requests.send("blob", "PUT", path, query, headers, expect=(expect,), again=again)
        except Conflict as conflict:
            if conflict.code.startswith("Lease"):
                return False
            raise
        return True


def blob_path(container: str, blob: str) -> str:
    """The path of a blob; slashes in its name are slashes of the path."""
    return f"/{container}/{quote(blob, safe='/')}"


def _check_container(gone: NotThere) -> None:
    """Raises what was answered where it is the container that is missing."""
    if gone.code == "ContainerNotFound":
        raise gone


def listing_in(body: bytes) -> tuple[list[BlobInfo], str | None]:
    """The blobs of a listing and the marker of the next page.  Raises Unsure where it is none."""
    try:
        root = ElementTree.fromstring(body)
        infos = [
            BlobInfo(
                name=_name(blob),
                created=from_header_text(blob.findtext("Properties/Creation-Time") or ""),
                size=int(blob.findtext("Properties/Content-Length") or ""),
                etag=(blob.findtext("Properties/Etag") or "").strip('"'),
                leased=blob.findtext("Properties/LeaseStatus") == "locked",
            )
            for blob in root.iterfind("Blobs/Blob")
        ]
    except (ElementTree.ParseError, ValueError, TypeError) as error:
        raise Unsure(f"the answer is no listing of blobs: {error}") from error
    return infos, root.findtext("NextMarker") or None


def _name(blob: ElementTree.Element) -> str:
    name = blob.find("Name")
    if name is None or not name.text:
        raise ValueError("a blob without a name")
    return unquote(name.text) if name.get("Encoded") == "true" else name.text
