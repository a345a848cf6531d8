"""A hub that cannot be opened leaves no connection behind."""

import asyncio

import pytest

from holdtrue.stores.azure_storage.http.connection import EMULATOR_KEY, from_connection_string
from holdtrue.stores.azure_storage.http.service import HttpService
from holdtrue.stores.azure_storage.store import AzureStorageStore
from holdtrue.stores.errors import StoreDenied

DENIED = b"HTTP/1.1 403 Forbidden\r\nx-ms-error-code: AuthenticationFailed\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize("answer", [DENIED, None], ids=["denied", "given up"])
def test_a_hub_that_cannot_be_opened(answer: bytes | None) -> None:
    async def main() -> None:
        asked, ended = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await reader.read(65_536):
                asked.set()
                if answer is not None:
                    writer.write(answer)
            ended.set()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            ends = "".join(f"{name}Endpoint=http://127.0.0.1:{port}/acc;" for name in ("Table", "Queue", "Blob"))
            service = HttpService(from_connection_string(f"AccountName=acc;AccountKey={EMULATOR_KEY};{ends}"))
            store = AzureStorageStore(service, "Hub")
            opening = asyncio.create_task(store.open())
            await asked.wait()
            if answer is None:
                opening.cancel()
            with pytest.raises(StoreDenied if answer else asyncio.CancelledError):
                await opening
            assert service._requests._session is None
            async with asyncio.timeout(60):
                await ended.wait()

    asyncio.run(main())
